"""Several variants of one network in turn in one run: all on the engine, beside the unpruned network on our dense kernels and on the peers.

`cosparse bench` compares an artifact with its own dense twin. Here the yardstick is another artifact, the baseline: what a network would
cost if nothing had been taken from it. Each variant's outputs are checked against its own dense twin on another runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cosparse
from cosparse import _C
from cosparse.bench import harness, neighbours, signal_stack
from cosparse.bench.break_even import break_even, rises
from cosparse.bench.check import Check, compare
from cosparse.bench.contest import Opened, check_all, contenders, open_peers, way_of
from cosparse.bench.dense import densify, parameters
from cosparse.bench.environment import machine, version
from cosparse.bench.figures import Times, figures
from cosparse.bench.harness import UNSTABLE_SPREAD, Progress
from cosparse.bench.peers import Arrays, Shapes, find, installed
from cosparse.bench.settings import DTYPE, Settings, batches, calibration_of, inputs_of, require
from cosparse.bench.timing import interleave
from cosparse.engine import artifact
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph
from cosparse.errors import Error

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


@signal_stack.kept()
def together(
    variants: Mapping[str, Path], baseline: Path, settings: Settings | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Times every variant on the engine, the baseline's dense twin on our dense kernels, and the same on each peer.

    Keys: model, device, dtype, batch, threads, machine; dense and peers{NAME}: figures as in a bench object, with samples_ms;
    fastest_peer; points[{name, density, flops_reduction, params_reduction, flop_speedup, check, engine, speedup (against the fastest
    peer), dense_speedup (against our dense kernels), realised}]; verdict. Nothing is timed where outputs differ.
    """
    settings, tell = settings or Settings(), progress or (lambda phase, share: None)
    require(settings)
    tell("loading", 0.0)
    busy_before = neighbours.sample()
    whole = densify(artifact.read(baseline))
    inputs, calibration = inputs_of(whole, settings), calibration_of(whole, settings)
    shapes = _shapes(baseline, inputs)
    with TemporaryDirectory(prefix="cosparse-") as name:
        folder = Path(name)
        artifact.write(folder / "twin.cosparse", whole)
        paths = {**variants, DENSE: folder / "twin.cosparse"}
        engines = {label: _load(path, settings, calibration) for label, path in paths.items()}
        opened = open_peers(settings.against, whole, shapes, settings.threads, settings.dtype, batches(calibration, settings.batch), folder)
        points: list[dict[str, Any]] = []
        for done, (label, path) in enumerate(variants.items()):
            tell(f"checking {label}", done / len(variants))
            graph = artifact.read(path)
            saved = _reductions(graph, engines[label], whole, engines[DENSE])
            check = _check(engines[label], densify(graph), _shapes(path, inputs), inputs, settings)
            points.append({"name": label, "density": None, **saved, "check": check.to_json()})
        times: Times = {}
        start = neighbours.usage()
        if all(point["check"]["passed"] for point in points):
            outputs = {label: harness._as_tuple(engine(*inputs)) for label, engine in engines.items()}
            calls = {f"engine/{label}": harness._engine_call(engine, inputs, outputs[label]) for label, engine in engines.items()}
            times = interleave(calls | contenders(opened, inputs), settings.effort, lambda share: tell("timing", share))
    busy = [share for share in (busy_before, neighbours.others(start, neighbours.usage())) if share is not None]
    frame = {"model": whole.name, "device": "cpu", "dtype": settings.dtype, "batch": settings.batch, "threads": settings.threads}
    return _conclude({**frame, "machine": machine(engines[DENSE].isa)}, points, times, opened, max(busy, default=None))


def _load(path: Path, settings: Settings, calibration: Arrays) -> Engine:
    options: dict[str, Any] = {"calibration": calibration} if settings.dtype == "int8" else {}
    return cosparse.load(path, threads=settings.threads, isa=settings.isa, dtype=settings.dtype, **options)


def _check(engine: Engine, twin: Graph, shapes: Shapes, inputs: Arrays, settings: Settings) -> Check:
    """The variant's outputs against its own dense twin: in float32 on the first peer at hand, which is much faster than the reference."""
    ours = harness._as_tuple(engine(*inputs))
    peer = next(iter((*settings.against, *installed())), None)
    if settings.dtype == DTYPE and peer is not None:
        return compare(ours, find(peer).runners(twin, shapes, settings.threads)[0].run(inputs))
    return check_all(ours, inputs, twin, shapes, {}, settings.threads, settings.dtype).own


def _shapes(path: Path, inputs: Arrays) -> Shapes:
    """All values' shapes: the artifact's, and its dense twin's too."""
    return _C.infer_shapes(_C.read_artifact(path), [list(x.shape) for x in inputs])


def _reductions(graph: Graph, engine: Engine, whole: Graph, dense: Engine) -> dict[str, float | None]:
    """What the variant saves of the baseline, at batch 1: the same share at any batch."""
    executed, before = engine.plan.flops, dense.plan.dense_flops
    return {
        "flops_reduction": round(1 - executed / before, 5) if before else 0.0,
        "params_reduction": round(1 - parameters(graph).stored / parameters(whole).dense, 5),
        "flop_speedup": round(before / executed, 4) if executed else None,
    }


def _conclude(
    frame: dict[str, Any], points: list[dict[str, Any]], times: Times, opened: Mapping[str, Opened], busy: float | None
) -> dict[str, Any]:
    dense = figures(times.get(f"engine/{DENSE}"), None)
    peers = {}
    for name, one in opened.items():
        label = way_of(one, times)
        about = {"dtype": frame["dtype"], "version": version(one.peer.package), "label": label}
        peers[name] = figures(times.get(f"{name}/{label}"), None) | about
    medians = {name: row["median_ms"] for name, row in peers.items() if row["median_ms"] is not None}
    fastest_peer = min(medians, key=medians.__getitem__, default=None)
    for point in points:
        point |= {"engine": figures(times.get(f"engine/{point['name']}"), None), "speedup": None, "dense_speedup": None, "realised": None}
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
