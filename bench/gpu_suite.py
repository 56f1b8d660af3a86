"""Everything that is measured on a GPU, as one command, written to gpu.json and gpu.md.

    python -m cosparse.bench.gpu_suite --cache DIR [--only environment,kernels,...] [--out docs/results]

    environment   the machine, and its ceilings: a copy within the device, an fp16 product
    kernels       the kernels' tests on the device, each against its reference
    agreement     whole networks against float64, beside cuDNN's own error
    networks      the network table: engines and dense peers in turn
    layers        each step beside cuDNN's dense layer and the hardware's floors
    sparse        torch's sparse products on single layers

Each section has a time limit and fails by itself: what it had by then is kept, and the others go on. Results are written after each one.
Sections that are not asked for stay as they are in an older gpu.json of the same GPU. Exit status: 0 all sections in gpu.json are done and
all bars kept, 1 something failed or missed its bar, 2 bad input or no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cosparse import _C
from cosparse.bench.gpu import device, layers, page, sparse
from cosparse.bench.gpu.agreement import random_input
from cosparse.bench.gpu.networks import BATCHES, ROWS, Row, artifact, row_of
from cosparse.bench.gpu.peers import PEERS, OutOfTime, within
from cosparse.bench.gpu.table import Bench, loader, measure, shape_of
from cosparse.bench.gpu.timing import median_s
from cosparse.engine import artifact as files
from cosparse.errors import Error

ODD = 3
"""A batch size that no tile divides, run without tuning."""
KERNEL_TESTS = (
    *("product", "maps", "joined", "plan", "pooled_plan", "device", "ops", "boundary", "pairs"),
    *("conv_basis", "conv_shared", "stem"),
)
"""tests/test_gpu_NAME.py; they run on a CUDA device where there is one."""
LAYER_ROWS = ("resnet50-even", "vgg16-even", "filters")
SPARSE_BATCH, SPARSE_DENSITY = 32, 0.2
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Suite:
    """What is asked for, and what was found: `result` is gpu.json. Sections fill it as they go, so that a limit costs only the rest."""

    rows: Sequence[Row]
    batches: Sequence[int]
    bench: Bench
    result: dict[str, Any] = field(default_factory=dict)
    ceilings: device.Ceilings | None = None
    limit: float = 0.0
    tests: Sequence[str] = KERNEL_TESTS

    def roof(self) -> device.Ceilings:
        if self.ceilings is None:
            self.ceilings = device.ceilings(median_s)
            self.result["ceilings"] = self.ceilings.to_json()
        return self.ceilings


def environment(suite: Suite) -> None:
    suite.result["machine"] = device.description()
    suite.ceilings = None
    suite.roof()


def kernels(suite: Suite) -> None:
    """Runs the kernels' tests in processes of their own: a kernel that faults takes its process's device memory with it."""
    tests = [path for name in suite.tests if (path := REPOSITORY / "tests" / f"test_gpu_{name}.py").exists()]
    if not tests:
        raise Error("GPU tests", "tests/test_gpu*.py in the checkout", "none", "run the suite from a checkout")
    # Most of the time is compiling, which several processes share where pytest-xdist is installed.
    several = ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "--tb=short", *several, *map(str, tests)]
    environment = os.environ | {"TRITON_INTERPRET": "0"}  # the tests' own default is the interpreter, on the CPU
    try:
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=suite.limit or None)
    except subprocess.TimeoutExpired as error:
        raise OutOfTime from error
    lines = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
    suite.result["kernels"] = {
        "tests": [path.name for path in tests],
        "status": done.returncode,
        "summary": lines[-1].strip("= "),
        "output": lines[-60:],
    }
    if done.returncode:
        raise Error("GPU tests", "exit status 0", f"{done.returncode}: {lines[-1].strip('= ')}", "the output is in gpu.json")


def agreement(suite: Suite) -> None:
    found: list[dict[str, Any]] = suite.result.setdefault("agreement", [])
    found.clear()
    for row in suite.rows:
        for batch in (1, ODD):
            try:
                engine = suite.bench.engine(row)
                if batch == ODD:
                    engine = loader()(artifact(row, suite.bench.cache)[0], device="cuda", dtype="float16", tune=False)
                judged = suite.bench.referees[row.name].judge(engine, random_input(shape_of(row.network, batch), seed=1000 + batch))
                found.append({"row": row.name, "batch": batch, **judged.to_json()})
            except Exception as error:  # a kernel's compiler raises what it likes; the other rows are judged all the same
                found.append({"row": row.name, "batch": batch, "passed": False, "why": first_line(error)})
    if failed := [f"{one['row']} at batch {one['batch']}" for one in found if not one["passed"]]:
        raise Error("agreement", "errors of at most twice cuDNN's", f"more, or no answer: {', '.join(failed)}")


def networks(suite: Suite) -> None:
    found: list[dict[str, Any]] = suite.result.setdefault("networks", [])
    found.clear()
    for batch in suite.batches:
        for network in dict.fromkeys(row.network for row in suite.rows):
            found += measure(network, [row for row in suite.rows if row.network == network], batch, suite.bench)
    if missed := [f"{one['row']} at batch {one['batch']}" for one in found if one["passed"] is False]:
        raise Error("networks", "all bars kept", f"missed: {', '.join(missed)}")


def layer_tables(suite: Suite) -> None:
    found: list[dict[str, Any]] = suite.result.setdefault("layers", [])
    found.clear()
    rows = [row for row in suite.rows if row.name in LAYER_ROWS] or suite.rows[:1]
    for row, batch in ((row, batch) for row in rows for batch in suite.batches):
        x = random_input(shape_of(row.network, batch), seed=7)
        engine, path = suite.bench.engine(row), artifact(row, suite.bench.cache)[0]
        profile, plan = engine.profile(x, repeat=20), engine.plan_for(tuple(x.shape))
        shapes = _C.infer_shapes(_C.read_artifact(path), [list(x.shape)])
        dense = layers.dense_us(suite.bench.model(row.network), x)
        made = layers.rows(profile, plan, files.read(path), shapes, dense, suite.roof())
        found.append({"row": row.name, "batch": batch, "rows": made, "totals": layers.totals(made)})


def sparse_products(suite: Suite) -> None:
    found: list[dict[str, Any]] = suite.result.setdefault("sparse", [])
    found.clear()
    for layer in sparse.LAYERS:
        one = sparse.measure(layer, SPARSE_BATCH, SPARSE_DENSITY, suite.bench.seconds / 4)
        found.append(one)
        try:
            one["us"]["cosparse"], one["notes"]["cosparse"] = sparse.engine_us(layer, SPARSE_BATCH, SPARSE_DENSITY, loader())
        except Exception as error:  # the peers' figures stand without it
            one["notes"]["cosparse"] = first_line(error)


SECTIONS: dict[str, tuple[Callable[[Suite], None], float]] = {
    "environment": (environment, 20.0),
    "kernels": (kernels, 120.0),
    "agreement": (agreement, 80.0),
    "networks": (networks, 210.0),
    "layers": (layer_tables, 50.0),
    "sparse": (sparse_products, 30.0),
}
"""Section -> what it does, and its limit in seconds: 8 and a half minutes together."""


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


def run(name: str, suite: Suite, limit: float) -> None:
    """One section under its limit; how it ended goes to `sections`."""
    start, status, why = time.perf_counter(), "done", ""
    suite.limit = limit
    try:
        with within(limit):
            SECTIONS[name][0](suite)
    except OutOfTime:
        status, why = "out of time", f"stopped after {limit:g} s; what was done by then is kept"
    except Exception as error:  # a section that fails in whatever way must not take the others with it
        status, why = "failed", first_line(error)
    seconds = round(time.perf_counter() - start, 1)
    suite.result.setdefault("sections", {})[name] = {"status": status, "seconds": seconds, **({"why": why} if why else {})}


def write(result: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(page.page(result), encoding="utf-8")


def earlier(out: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """An older result in the folder, if it is of the same GPU: figures of two cards never stand in one table."""
    path = out / "gpu.json"
    if not path.exists():
        return {}
    old = json.loads(path.read_text(encoding="utf-8"))
    return old if old.get("machine", {}).get("gpu") == machine["gpu"] else {}


def require_known(option: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise Error(option, f"some of {', '.join(known)}", repr(name))


def healthy() -> bool:
    """Whether the device still answers: after a fault in a kernel nothing in this process does."""
    try:
        return float(torch.ones(8, device="cuda").sum()) == 8
    except RuntimeError:
        return False


def start_anew(rest: Sequence[str]) -> None:
    """Goes on with the sections that are left in a process with a device context of its own; does not return."""
    arguments = [*sys.argv[1:], "--only", ",".join(rest)]  # of an option given twice the last one counts
    os.execv(sys.executable, [sys.executable, "-m", "cosparse.bench.gpu_suite", *arguments])


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder of the artifacts; made if they are not there.")],
    only: Annotated[str, typer.Option(help="Sections with commas between.")] = ",".join(SECTIONS),
    rows: Annotated[str, typer.Option(help="Rows of the network table.")] = ",".join(ROWS),
    batches: Annotated[str, typer.Option(help="Batch sizes of the network table.")] = ",".join(map(str, BATCHES)),
    against: Annotated[str, typer.Option(help="Dense peers with commas between.")] = ",".join(PEERS),
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each candidate.")] = 1.0,
    compile_s: Annotated[float, typer.Option("--compile", min=1, help="Seconds for torch.compile at each shape.")] = 45.0,
    limit: Annotated[float, typer.Option(min=0, help="Seconds for each section instead of its own limit; 0: its own.")] = 0.0,
    flush: Annotated[bool, typer.Option("--flush", help="Empty the L2 before each timed call.")] = False,
    tests: Annotated[str, typer.Option(help="Which of the kernels' tests, with commas between.")] = ",".join(KERNEL_TESTS),
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for gpu.json and gpu.md.")] = Path("docs/results"),
) -> None:
    """Measure everything on the GPU."""
    try:
        device.require_cuda()
        names, peers = only.split(","), against.split(",")
        require_known("--only", names, SECTIONS)
        require_known("--against", peers, PEERS)
        require_known("--tests", tests.split(","), KERNEL_TESTS)
        bench = Bench(cache, seconds, compile_s, tuple(peers), flush)
        suite = Suite([row_of(name) for name in rows.split(",")], [int(n) for n in batches.split(",")], bench, tests=tests.split(","))
        machine = device.description()
        suite.result = earlier(out, machine) | {"machine": machine, "command": " ".join(["gpu_suite", *sys.argv[1:]])}
    except (ValueError, OSError) as error:
        typer.echo(f"gpu_suite: {error}", err=True)
        raise typer.Exit(2) from error
    torch.cuda.init()
    for index, name in enumerate(names):
        run(name, suite, limit or SECTIONS[name][1])
        write(suite.result, out)
        typer.echo(f"{name}: {suite.result['sections'][name]}")
        sys.stdout.flush()
        if names[index + 1 :] and not healthy():
            start_anew(names[index + 1 :])
    typer.echo(page.networks(suite.result))
    typer.echo(page.sections(suite.result))
    if any(section["status"] != "done" for section in suite.result["sections"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
