"""`cosparse bench`: one artifact on the engine, and its dense twin on the peers, in turn, in one process.

What is compared. The engine runs the artifact. Every peer runs the dense network with the very same weights (transformed back, zeros kept),
so the outputs must agree, and no speedup is given where they do not. Inputs are normal random numbers. Memory for inputs and outputs is
bound beforehand where a runtime can, so that no candidate pays for conversions. Peers get the graph's own operators: a transposed
convolution is a convolution and a rearrangement for them too. `flop_speedup` = dense multiply-adds / executed ones, the
basis step included; `realised` = speedup / flop_speedup.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cosparse
from cosparse import _C
from cosparse.bench import cold, neighbours
from cosparse.bench.check import Check, compare, worst
from cosparse.bench.dense import densify, parameters
from cosparse.bench.environment import machine, processors, version
from cosparse.bench.layers import layer_rows
from cosparse.bench.peers import PEERS, Arrays, Runner, Shapes, find
from cosparse.bench.timing import SUMMARY, Effort, interleave, summary
from cosparse.engine import artifact
from cosparse.engine.engine import Engine, default_threads
from cosparse.engine.graph import Graph
from cosparse.kernels import reference

Progress = Callable[[str, float], None]
UNSTABLE_SPREAD = 0.15
DTYPE = "float32"


@dataclass(frozen=True)
class Settings:
    """`against` names peers (cosparse.bench.peers.PEERS); empty: the engine alone, checked against the plain reference.

    Without `cold_start`, load_ms, first_run_ms and peak_rss_mb stay None; without `layers`, that list stays empty.
    """

    batch: int = 1
    threads: int = field(default_factory=default_threads)
    against: tuple[str, ...] = tuple(PEERS)
    isa: str | None = None
    effort: Effort = field(default_factory=Effort)
    cold_start: bool = True
    layers: bool = True
    seed: int = 0


def bench(path: str | Path, settings: Settings | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """The bench object of the artifact at `path`: keys as in the README's table "bench JSON"; figures that do not exist are None.

    Raises cosparse.Error for a bad artifact, an unknown or missing peer, or a setting out of range.
    """
    settings, tell = settings or Settings(), progress or (lambda phase, share: None)
    _require_settings(settings)
    peers = [find(name) for name in settings.against]
    tell("looking for neighbours", 0.0)
    busy_before = neighbours.sample()
    tell("loading", 0.0)
    graph = artifact.read(path)
    dense = densify(graph)
    engine = cosparse.load(path, threads=settings.threads, isa=settings.isa)
    inputs = _inputs(graph, settings)
    shapes = _C.infer_shapes(_C.read_artifact(path), [list(x.shape) for x in inputs])
    runners = {peer.name: list(peer.runtime().runners(dense, shapes, settings.threads)) for peer in peers}

    tell("checking", 0.0)
    ours = _as_tuple(engine(*inputs))
    check = _check(ours, inputs, dense, runners)
    result = _frame(graph, engine, settings, check)
    times: dict[str, np.ndarray] = {}
    start = neighbours.usage()
    if check.passed:
        calls = {cold.ENGINE: _engine_call(engine, inputs, ours)}
        calls |= {f"{name}/{i}": runner.bind(inputs) for name, many in runners.items() for i, runner in enumerate(many)}
        times = interleave(calls, settings.effort, lambda share: tell("timing", share))
    busy = [share for share in (busy_before, neighbours.others(start, neighbours.usage())) if share is not None]

    with tempfile.TemporaryDirectory(prefix="cosparse-") as name:
        folder = Path(name)
        if settings.layers and check.passed:
            tell("timing layers", 0.0)
            result["layers"] = layer_rows(engine, dense, inputs, folder)
        alone = _alone(Path(path), graph, dense, shapes, settings, folder, tell) if settings.cold_start else {}

    result["engine"] = _figures(times.get(cold.ENGINE), alone.get(cold.ENGINE))
    for peer in peers:
        own = [times[key] for key in times if key.startswith(f"{peer.name}/")]
        fastest = min(own, key=lambda seconds: float(np.median(seconds)), default=None)
        result["peers"][peer.name] = _figures(fastest, alone.get(peer.name)) | {"dtype": DTYPE, "version": version(peer.package)}
    return _conclude(result, max(busy, default=None))


def _require_settings(settings: Settings) -> None:
    limit = len(processors())
    if settings.batch < 1:
        raise cosparse.Error("batch", "at least 1", str(settings.batch))
    if not 1 <= settings.threads <= limit:
        raise cosparse.Error("threads", f"1 to {limit}, the processors that this process may use", str(settings.threads))


def _inputs(graph: Graph, settings: Settings) -> Arrays:
    generator = np.random.default_rng(settings.seed)
    shapes = [[settings.batch if size is None else size for size in value.shape] for value in graph.inputs]
    return tuple(generator.standard_normal(shape, np.float32) for shape in shapes)


def _as_tuple(outputs: Any) -> Arrays:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _engine_call(engine: Engine, inputs: Arrays, outputs: Arrays) -> Callable[[], object]:
    out = tuple(np.empty_like(y) for y in outputs)
    target = out if len(out) > 1 else out[0]
    return lambda: engine(*inputs, out=target)


def _check(ours: Arrays, inputs: Arrays, dense: Graph, runners: Mapping[str, Sequence[Runner]]) -> Check:
    everyone = [runner.run(inputs) for many in runners.values() for runner in many]
    return worst([compare(ours, theirs) for theirs in everyone or [reference.run(dense, *inputs)]])


def _frame(graph: Graph, engine: Engine, settings: Settings, check: Check) -> dict[str, Any]:
    """The result with everything that is known before timing, in the order in which it is read."""
    executed, whole = engine.plan.flops, engine.plan.dense_flops
    return {
        "model": graph.name,
        "device": "cpu",
        "dtype": DTYPE,
        "batch": settings.batch,
        "threads": settings.threads,
        "machine": machine(engine.isa),
        "flops_reduction": round(1 - executed / whole, 5) if whole else 0.0,
        "params_reduction": round(parameters(graph).reduction, 5),
        "check": check.to_json(),
        "engine": {},
        "peers": {},
        "fastest_peer": None,
        "speedup": None,
        "flop_speedup": round(whole / executed, 4) if executed else None,
        "realised": None,
        "layers": [],
        "verdict": {},
    }


def _alone(
    path: Path, graph: Graph, dense: Graph, shapes: Shapes, settings: Settings, folder: Path, tell: Progress
) -> dict[str, dict[str, float]]:
    """Candidate -> its figures from a process of its own."""
    files = {cold.ENGINE: path} | {name: find(name).runtime().save(dense, shapes, folder) for name in settings.against}
    figures = {}
    for done, (name, file) in enumerate(files.items()):
        tell(f"starting {name} alone", done / len(files))
        figures[name] = cold.measure(name, file, shapes, [value.name for value in graph.inputs], settings.threads, settings.isa)
    return figures


def _figures(seconds: np.ndarray | None, alone: Mapping[str, float] | None) -> dict[str, Any]:
    timed: dict[str, Any] = summary(seconds) if seconds is not None else dict.fromkeys(SUMMARY)
    return timed | (dict(alone) if alone else dict.fromkeys(cold.FIGURES))


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
