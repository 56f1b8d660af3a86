"""Several variants of one network in turn in one run: all on the engine, beside the unpruned network on our dense kernels and on the peers.

`cosparse bench` compares an artifact with its own dense twin. Here the yardstick is another artifact, the baseline: what a network would
cost if nothing had been taken from it. Each variant's outputs are checked against its own dense twin on another runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

import cosparse
from cosparse import _C
from cosparse.bench import harness, neighbours
from cosparse.bench.break_even import break_even, rises
from cosparse.bench.check import Check, compare
from cosparse.bench.dense import densify, parameters
from cosparse.bench.environment import machine, version
from cosparse.bench.harness import DTYPE, UNSTABLE_SPREAD, Progress, Settings
from cosparse.bench.peers import Arrays, Shapes, find
from cosparse.bench.timing import SUMMARY, interleave, samples_ms, summary
from cosparse.engine import artifact
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph
from cosparse.errors import Error
from cosparse.kernels import reference

if TYPE_CHECKING:
    import torch

DENSE = "dense"


def density_sweep(
    model: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    densities: Sequence[float],
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    name: str = "",
    block: int = 8,
    transform: str = "dct",
) -> dict[str, Any]:
    """The break-even curve of a torch network: masks imposed at each density, exported to a temporary folder, all timed in one run.

    The result is that of `together`, its points with `density`, and `block`, `break_even` (density or None), `monotone`, `rises`.
    """
    from cosparse.compress import Budget, export, impose

    tell = progress or (lambda phase, share: None)
    if not densities:
        raise Error("densities", "at least one", "none")
    wanted = sorted(set(densities), reverse=True)
    budgets = {f"{density:g}": Budget(density=density) for density in wanted}
    with TemporaryDirectory(prefix="cosparse-") as folder:
        baseline = Path(folder) / "dense.cosparse"
        export(model, example, baseline, name=name)
        paths = {}
        for done, (label, budget) in enumerate(budgets.items()):
            tell(f"exporting density {label}", done / len(budgets))
            paths[label] = Path(folder) / f"{label}.cosparse"
            export(impose(model, budget, example, block=block, transform=transform), example, paths[label], name=name)
        result = together(paths, baseline, settings, progress)
    for point, density in zip(result["points"], wanted, strict=True):
        point["density"] = density
    curve = [(point["density"], point["engine"]["median_ms"]) for point in result["points"] if point["engine"]["median_ms"] is not None]
    found = break_even(curve, result[DENSE]["median_ms"]) if curve else None
    up = rises(curve)
    return result | {"block": block, "break_even": found, "monotone": not up if curve else None, "rises": [list(pair) for pair in up]}


def together(
    variants: Mapping[str, Path], baseline: Path, settings: Settings | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Times every variant on the engine, the baseline's dense twin on our dense kernels, and the same on each peer.

    Keys: model, device, dtype, batch, threads, machine; dense and peers{NAME}: figures as in a bench object, with samples_ms;
    fastest_peer; points[{name, density, flops_reduction, params_reduction, flop_speedup, check, engine, speedup (against the fastest
    peer), dense_speedup (against our dense kernels), realised}]; verdict. Nothing is timed where outputs differ.
    """
    settings, tell = settings or Settings(), progress or (lambda phase, share: None)
    harness._require_settings(settings)
    tell("loading", 0.0)
    busy_before = neighbours.sample()
    whole = densify(artifact.read(baseline))
    inputs = harness._inputs(whole, settings)
    with TemporaryDirectory(prefix="cosparse-") as folder:
        twin = Path(folder) / "twin.cosparse"
        artifact.write(twin, whole)
        paths = {**variants, DENSE: twin}
        engines = {label: cosparse.load(path, threads=settings.threads, isa=settings.isa) for label, path in paths.items()}
    shapes = _C.infer_shapes(_C.read_artifact(baseline), [list(x.shape) for x in inputs])
    points: list[dict[str, Any]] = []
    for done, (label, path) in enumerate(variants.items()):
        tell(f"checking {label}", done / len(variants))
        graph = artifact.read(path)
        check = _check(engines[label], densify(graph), shapes, inputs, settings)
        points.append(
            {"name": label, "density": None, **_reductions(graph, engines[label], whole, engines[DENSE]), "check": check.to_json()}
        )
    times: dict[str, np.ndarray] = {}
    start = neighbours.usage()
    if all(point["check"]["passed"] for point in points):
        calls = {f"engine/{label}": harness._engine_call(engine, inputs, _as_tuple(engine(*inputs))) for label, engine in engines.items()}
        for name in settings.against:
            runners = find(name).runtime().runners(whole, shapes, settings.threads)
            calls |= {f"{name}/{i}": runner.bind(inputs) for i, runner in enumerate(runners)}
        times = interleave(calls, settings.effort, lambda share: tell("timing", share))
    busy = [share for share in (busy_before, neighbours.others(start, neighbours.usage())) if share is not None]
    frame = {"model": whole.name, "device": "cpu", "dtype": DTYPE, "batch": settings.batch, "threads": settings.threads}
    return _conclude({**frame, "machine": machine(engines[DENSE].isa)}, points, times, settings, max(busy, default=None))


def _as_tuple(outputs: Any) -> Arrays:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check(engine: Engine, twin: Graph, shapes: Shapes, inputs: Arrays, settings: Settings) -> Check:
    """The variant's outputs against its own dense twin on the first peer, or on the plain reference where there is none."""
    ours = _as_tuple(engine(*inputs))
    if not settings.against:
        return compare(ours, reference.run(twin, *inputs))
    return compare(ours, find(settings.against[0]).runtime().runners(twin, shapes, settings.threads)[0].run(inputs))


def _reductions(graph: Graph, engine: Engine, whole: Graph, dense: Engine) -> dict[str, float | None]:
    """What the variant saves of the baseline, at batch 1: the same share at any batch."""
    executed, before = engine.plan.flops, dense.plan.dense_flops
    return {
        "flops_reduction": round(1 - executed / before, 5) if before else 0.0,
        "params_reduction": round(1 - parameters(graph).stored / parameters(whole).dense, 5),
        "flop_speedup": round(before / executed, 4) if executed else None,
    }


def _figures(seconds: np.ndarray | None) -> dict[str, Any]:
    return {**dict.fromkeys(SUMMARY), "samples_ms": []} if seconds is None else summary(seconds) | {"samples_ms": samples_ms(seconds)}


def _conclude(
    frame: dict[str, Any], points: list[dict[str, Any]], times: Mapping[str, np.ndarray], settings: Settings, busy: float | None
) -> dict[str, Any]:
    dense = _figures(times.get(f"engine/{DENSE}"))
    peers = {}
    for name in settings.against:
        own = [seconds for key, seconds in times.items() if key.startswith(f"{name}/")]
        fastest = min(own, key=lambda seconds: float(np.median(seconds)), default=None)
        peers[name] = _figures(fastest) | {"dtype": DTYPE, "version": version(find(name).package)}
    medians = {name: row["median_ms"] for name, row in peers.items() if row["median_ms"] is not None}
    fastest_peer = min(medians, key=medians.__getitem__, default=None)
    for point in points:
        point |= {"engine": _figures(times.get(f"engine/{point['name']}")), "speedup": None, "dense_speedup": None, "realised": None}
        if (own_ms := point["engine"]["median_ms"]) is None:
            continue
        point["dense_speedup"] = round(dense["median_ms"] / own_ms, 4)
        if fastest_peer:
            point["speedup"] = round(medians[fastest_peer] / own_ms, 4)
            point["realised"] = round(point["speedup"] / point["flop_speedup"], 4) if point["flop_speedup"] else None
    spreads = [point["engine"]["spread"] for point in points]
    spreads.append(peers[fastest_peer]["spread"] if fastest_peer else dense["spread"])
    calm = all(spread is not None and spread <= UNSTABLE_SPREAD for spread in spreads)
    verdict = {"stable": calm and neighbours.quiet(busy), "neighbours": busy}
    return frame | {"dense": dense, "peers": peers, "fastest_peer": fastest_peer, "points": points, "verdict": verdict}
