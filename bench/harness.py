"""`cosparse bench`: one artifact on the engine, and its dense twin on the peers, in turn, in one process.

What is compared. The engine runs the artifact. Every peer runs the dense network with the very same weights (transformed back, zeros kept)
in the same dtype, so the outputs must agree, and no speedup is given where they do not. Inputs are normal random numbers. Memory for inputs
and outputs is bound beforehand where a runtime can, so that no candidate pays for conversions. Each is made ready for the inputs' shape,
the engine by `warmup_for`. Peers get the graph's own operators: a transposed convolution is a convolution and a rearrangement for them too.
The engine also runs the dense twin, which says what sparsity alone brings. `flop_speedup` = dense multiply-adds / executed ones, the basis
step included; `realised` = speedup / flop_speedup.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cosparse
from cosparse import _C
from cosparse.bench import cold, neighbours, roofline, signal_stack
from cosparse.bench.check import Check
from cosparse.bench.contest import Opened, check_all, contenders, open_peers, way_of
from cosparse.bench.dense import densify, parameters
from cosparse.bench.environment import machine
from cosparse.bench.figures import engine_row, peer_row
from cosparse.bench.layers import layer_rows, losing_layers
from cosparse.bench.peers import Arrays, Shapes
from cosparse.bench.rounding import BYTES
from cosparse.bench.settings import Settings, batches, calibration_of, inputs_of, require
from cosparse.bench.timing import interleave
from cosparse.bench.traffic import live_bytes
from cosparse.engine import artifact
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph

Progress = Callable[[str, float], None]
UNSTABLE_SPREAD = 0.15
TWIN = "dense"


@dataclass(frozen=True)
class Case:
    """One network with what is put into it; `shapes` are those of all its values in this run, `folder` is for files of this run."""

    path: Path
    graph: Graph
    dense: Graph
    inputs: Arrays
    calibration: Arrays
    shapes: Shapes
    settings: Settings
    folder: Path


@signal_stack.kept()
def bench(path: str | Path, settings: Settings | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """The bench object of the artifact at `path`: keys as in the README's section "Measuring"; figures that do not exist are None.

    Raises cosparse.Error for a bad artifact, an unknown or missing peer, a dtype that engine or peer lacks, or a setting out of range.
    """
    settings, tell = settings or Settings(), progress or (lambda phase, share: None)
    require(settings)
    with tempfile.TemporaryDirectory(prefix="cosparse-") as folder:
        return _bench(_case(Path(path), settings, Path(folder)), tell)


def _case(path: Path, settings: Settings, folder: Path) -> Case:
    graph = artifact.read(path)
    inputs = inputs_of(graph, settings)
    shapes = _C.infer_shapes(_C.read_artifact(path), [list(x.shape) for x in inputs])
    return Case(path, graph, densify(graph), inputs, calibration_of(graph, settings), shapes, settings, folder)


def _bench(case: Case, tell: Progress) -> dict[str, Any]:
    settings = case.settings
    tell("looking for neighbours", 0.0)
    busy_before = neighbours.sample()
    tell("loading", 0.0)
    engine, twin = _load(case.path, case), _load(_twin(case), case, dense=True)
    samples = batches(case.calibration, settings.batch)
    opened = open_peers(settings.against, case.dense, case.shapes, settings.threads, settings.dtype, samples, case.folder)

    tell("checking", 0.0)
    ours = _as_tuple(engine(*case.inputs))
    checks = check_all(ours, case.inputs, case.dense, case.shapes, opened, settings.threads, settings.dtype)
    result = _frame(case, engine, checks.own)
    times: dict[str, np.ndarray] = {}
    start = neighbours.usage()
    if checks.own.passed:
        calls = {cold.ENGINE: _engine_call(engine, case.inputs, ours), TWIN: _engine_call(twin, case.inputs, ours)}
        times = interleave(calls | contenders(opened, case.inputs), settings.effort, lambda share: tell("timing", share))
    busy = [share for share in (busy_before, neighbours.others(start, neighbours.usage())) if share is not None]

    if settings.layers and checks.own.passed:
        tell("timing layers", 0.0)
        limits = roofline.measure(settings.threads, settings.dtype)
        result["machine"] |= limits.to_json() if limits else roofline.NOWHERE
        result["layers"] = layer_rows(engine, twin, case.graph, case.shapes, case.inputs, limits)
        result["losing_layers"] = losing_layers(result["layers"])
    alone = _alone(case, opened, times, tell) if settings.cold_start else {}

    needed = case.path.stat().st_size + live_bytes(case.graph, case.shapes, BYTES[settings.dtype])
    result["engine"] = engine_row(times, TWIN, alone, needed)
    result["peers"] = {name: peer_row(one, times, alone, checks.peers, settings.dtype) for name, one in opened.items()}
    return _conclude(result, max(busy, default=None))


def _load(path: Path, case: Case, *, dense: bool = False) -> Engine:
    settings = case.settings
    options: dict[str, Any] = {"calibration": case.calibration} if settings.dtype == "int8" else {}
    engine = cosparse.load(path, threads=settings.threads, isa=settings.isa, dtype=settings.dtype, dense=dense, **options)
    return engine.warmup_for(*(x.shape for x in case.inputs))


def _twin(case: Case) -> Path:
    path = case.folder / "twin.cosparse"
    artifact.write(path, case.dense)
    return path


def _as_tuple(outputs: Any) -> Arrays:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _engine_call(engine: Engine, inputs: Arrays, outputs: Arrays) -> Callable[[], object]:
    out = tuple(np.empty_like(y) for y in outputs)
    target = out if len(out) > 1 else out[0]
    return lambda: engine(*inputs, out=target)


def _frame(case: Case, engine: Engine, check: Check) -> dict[str, Any]:
    """The result with everything that is known before timing, in the order in which it is read."""
    executed, whole = engine.plan.flops, engine.plan.dense_flops
    return {
        "model": case.graph.name,
        "device": "cpu",
        "dtype": case.settings.dtype,
        "batch": case.settings.batch,
        "threads": case.settings.threads,
        "machine": machine(engine.isa) | roofline.NOWHERE,
        "flops_reduction": round(1 - executed / whole, 5) if whole else 0.0,
        "params_reduction": round(parameters(case.graph).reduction, 5),
        "check": check.to_json(),
        "engine": {},
        "peers": {},
        "fastest_peer": None,
        "speedup": None,
        "flop_speedup": round(whole / executed, 4) if executed else None,
        "realised": None,
        "layers": [],
        "losing_layers": [],
        "verdict": {},
    }


def _alone(case: Case, opened: Mapping[str, Opened], times: Mapping[str, np.ndarray], tell: Progress) -> dict[str, dict[str, float]]:
    """Candidate -> its figures from a process of its own; a peer runs in the way that was its fastest."""
    settings, names = case.settings, [value.name for value in case.graph.inputs]
    data = None
    if settings.dtype == "int8":
        data = case.folder / "calibration.npz"
        np.savez(data, allow_pickle=False, **dict(zip(names, case.calibration, strict=True)))
    starts = {cold.ENGINE: (case.path, "")} | {name: (one.path, way_of(one, times)) for name, one in opened.items()}
    figures = {}
    for done, (name, (path, label)) in enumerate(starts.items()):
        tell(f"starting {name} alone", done / len(starts))
        figures[name] = cold.measure(name, path, case.shapes, names, settings.threads, settings.isa, settings.dtype, label, data)
    return figures


def _conclude(result: dict[str, Any], busy: float | None) -> dict[str, Any]:
    medians = {name: row["median_ms"] for name, row in result["peers"].items() if row["median_ms"] is not None}
    spreads = [result["engine"]["spread"]]
    if medians:
        fastest = min(medians, key=medians.__getitem__)
        speedup = medians[fastest] / result["engine"]["median_ms"]
        result |= {"fastest_peer": fastest, "speedup": round(speedup, 4)}
        if result["flop_speedup"]:
            result["realised"] = round(speedup / result["flop_speedup"], 4)
        spreads.append(result["peers"][fastest]["spread"])
    calm = all(spread is not None and spread <= UNSTABLE_SPREAD for spread in spreads)
    result["verdict"] = {"stable": calm and neighbours.quiet(busy), "neighbours": busy}
    return result
