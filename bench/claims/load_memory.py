"""Claim: loading and planning take at most 200 ms once the cache is warm, and memory at most 1.5 x (artifact + live activations).

    python -m cosparse.bench.claims.load_memory --cache DIR

Each figure is the median over several processes, started after one that warms the caches; `live activations` are the bytes of the
graph's values that are needed at the same time, at the moment when they are most. Exit status: 0 the bars are kept, 1 one is missed,
2 bad input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from cosparse import _C
from cosparse.bench.claims.networks import Variant, artifact
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.rounding import BYTES
from cosparse.bench.settings import DTYPE
from cosparse.bench.traffic import live_bytes
from cosparse.engine import artifact as file_format
from cosparse.engine.engine import default_threads
from cosparse.errors import Error

LOAD_MS, MEMORY = 200.0, 1.5
PROCESSES = 5

# Memory is counted from after the imports on: /proc/self/clear_refs makes the largest resident set start anew.
CHILD = """
import json, sys, time
import numpy as np
import cosparse
path, threads = sys.argv[1], int(sys.argv[2])
def resident(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
start = time.perf_counter()
engine = cosparse.load(path, threads=threads)
loaded = time.perf_counter()
engine.plan
planned = time.perf_counter()
inputs = [np.ones([size or 1 for size in value.shape], np.float32) for value in engine.inputs]
engine(*inputs)
print(json.dumps({"load_ms": (loaded - start) * 1e3, "plan_ms": (planned - loaded) * 1e3, "bytes": resident("VmHWM") - before}))
"""


def measure(path: Path, threads: int, processes: int = PROCESSES) -> dict[str, float]:
    """load_ms, plan_ms and bytes (growth of the process from before loading to the end of the first run): medians over processes."""
    runs = []
    for _ in range(processes + 1):
        done = subprocess.run([sys.executable, "-P", "-c", CHILD, str(path), str(threads)], capture_output=True, text=True, timeout=300)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise Error(f"loading {path.name} in a process of its own", "exit status 0", last)
        runs.append(json.loads(done.stdout))
    return {key: median(run[key] for run in runs[1:]) for key in runs[0]}


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifact; exported once.")],
    network: Annotated[str, typer.Option(help="A zoo network.")] = "resnet50",
    flops: Annotated[float, typer.Option(help="Share of the multiply-adds that masks take away.")] = 0.789,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    out: OutOption = None,
) -> None:
    """Measure load time and memory of a network in processes of their own."""
    try:
        path = artifact(Variant(network, flops=flops), cache)
        graph = file_format.read(path)
        shapes = _C.infer_shapes(_C.read_artifact(path), [[size or 1 for size in value.shape] for value in graph.inputs])
        found = measure(path, threads or default_threads())
    except (ValueError, OSError) as error:
        typer.echo(f"load_memory: {error}", err=True)
        raise typer.Exit(2) from error
    live, stored = live_bytes(graph, shapes, BYTES[DTYPE]), path.stat().st_size
    note = f"{found['bytes'] / 1e6:.1f} MB; artifact {stored / 1e6:.1f}, live activations {live / 1e6:.1f}"
    bars = [
        Bar(f"{network}: load + plan, ms", found["load_ms"] + found["plan_ms"], LOAD_MS, True, f"load {found['load_ms']:.0f} ms"),
        Bar(f"{network}: memory / (artifact + live activations)", found["bytes"] / (stored + live), MEMORY, True, note),
    ]
    command = "python -m cosparse.bench.claims.load_memory " + " ".join(sys.argv[1:])
    conclude("load_memory", "Load time and memory", command, bars, found | {"artifact_bytes": stored, "live_bytes": live}, out)


if __name__ == "__main__":
    typer.run(main)
