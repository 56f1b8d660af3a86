"""`cosparse bench --device cuda`: one artifact on the GPU engine, and its dense network on the GPU's peers, in turn, in one process.

The engine runs the artifact; every peer runs the dense network with the very same weights, built from the artifact itself. Outputs are held
against float64 before anything is timed: the engine may err at most twice as much as cuDNN in the same dtype. Each candidate is the replay
of a CUDA graph. What the parts of a result mean stands in `artifact_result`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cosparse
from cosparse import _C
from cosparse.bench.gpu import artifact_result, device, layers, peers
from cosparse.bench.gpu.agreement import Network, allowed_of_peers, in_slices, random_input, rms
from cosparse.bench.gpu.artifact_result import ENGINE, TWIN, Found
from cosparse.bench.gpu.dense_module import Dense, build, require_one
from cosparse.bench.gpu.sparse import tried
from cosparse.bench.gpu.timing import Times, in_turn, median_s
from cosparse.bench.peers import Shapes
from cosparse.engine import artifact
from cosparse.engine.graph import Graph
from cosparse.errors import Error, UnsupportedError

NUMBERS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
REPEAT = 20
Progress = Callable[[str, float], None]
Replay = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """`against` names peers of `bench.gpu.peers.PEERS`; `compile_s` is what torch.compile may take."""

    device: str = "cuda"
    dtype: str = "float16"
    batch: int = 1
    against: tuple[str, ...] = ()
    seconds: float = 2.0
    layers: bool = True
    compile_s: float = 150.0


@dataclass(frozen=True)
class Case:
    """One network with what is put into it: x [N, C, H, W] float32 on the GPU; `wanted` is its output in float64, `largest` the error that
    a dense peer may have."""

    path: Path
    graph: Graph
    dense: Dense
    dense_graph: Graph
    shapes: Shapes
    x: Tensor
    wanted: Tensor
    largest: float
    settings: Settings

    @property
    def number(self) -> torch.dtype:
        return NUMBERS[self.settings.dtype]


def require(settings: Settings) -> None:
    """Raises Error for what cannot be measured here, before anything slow: a number out of range, a dtype, a peer, no GPU."""
    if settings.batch < 1:
        raise Error("batch", "at least 1", str(settings.batch))
    if settings.dtype not in NUMBERS:
        raise UnsupportedError("dtype", f"{' or '.join(NUMBERS)} on a GPU", settings.dtype, "the CPU computes in others")
    device.require_cuda(settings.device)
    for name in settings.against:
        peers.require(name)


def bench(path: str | Path, settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """The bench object of the artifact at `path`, with the keys that the CPU's has; figures that do not exist are None.

    Raises cosparse.Error for a bad artifact, one with several inputs or outputs, and for what `require` refuses. A peer that fails is in
    the result and says why.
    """
    require(settings)
    graph = artifact.read(path)
    require_one(graph)
    with torch.cuda.device(torch.device(settings.device)):
        return _bench(Path(path), graph, settings, progress or (lambda phase, share: None))


def _bench(path: Path, graph: Graph, settings: Settings, tell: Progress) -> dict[str, Any]:
    tell("looking for neighbours", 0.0)
    busy = device.busy()
    tell("loading", 0.0)
    shape = tuple(settings.batch if size is None else size for size in graph.inputs[0].shape)
    x = random_input(shape, seed=settings.batch)
    engine, got, start = _started(path, x, settings)

    tell("checking", 0.0)
    exact = Network(path, torch.float64)
    wanted = in_slices(exact, x)
    check = artifact_result.check(got, wanted, in_slices(Network(path, NUMBERS[settings.dtype], graph=exact.graph), x))
    shapes = _C.infer_shapes(_C.read_artifact(path), [list(shape)])
    largest = allowed_of_peers(check["cudnn_rms_rel_err"] or 0.0, settings.dtype)
    case = Case(path, graph, build(exact.graph, shapes), exact.graph, shapes, x, wanted, largest, settings)
    del exact

    times: dict[str, Times] = {}
    notes: dict[str, str] = {}
    if check["passed"]:
        calls, notes = _opened(case, tell)
        tell("timing", 0.0)
        # The first call has left x in the memory that replays read: zeros would run faster than real numbers.
        times = in_turn({ENGINE: engine.replay(shape)} | calls, settings.seconds)
    machine = device.description() | artifact_result.place(engine.isa)
    found = Found(graph, settings.device, settings.dtype, settings.batch, machine, engine.plan_for(shape), check, start, times, notes, busy)
    result = artifact_result.result(found, settings.against)
    if settings.layers and check["passed"]:
        tell("timing layers", 0.0)
        ceilings = device.ceilings(median_s)
        artifact_result.add_layers(result, _layer_rows(engine, case, ceilings), ceilings)
    torch.cuda.empty_cache()
    return result


def _started(path: Path, x: Tensor, settings: Settings) -> tuple[Any, Tensor, dict[str, float]]:
    """The engine, its answer to x, and what its start took: the first run measures forms, unless the tuning cache has them."""
    before, began = torch.cuda.memory_allocated(), time.perf_counter()
    engine = cosparse.load(path, device=settings.device, dtype=settings.dtype)
    loaded = time.perf_counter()
    got: Any = engine(x)
    torch.cuda.synchronize()
    done = time.perf_counter()
    grown = torch.cuda.memory_allocated() - before
    figures = {"load_ms": 1e3 * (loaded - began), "first_run_ms": 1e3 * (done - loaded), "device_mb": grown / 1e6}
    return engine, got, {key: round(value, 3) for key, value in figures.items()}


def _opened(case: Case, tell: Progress) -> tuple[dict[str, Replay], dict[str, str]]:
    """(the dense candidates that run and whose output is right, what is to be said of each, failed ones too)."""
    makers: dict[str, Callable[[], peers.Peer]] = {TWIN: partial(_twin, case)}
    special: dict[str, dict[str, Any]] = {"compile": {"budget_s": case.settings.compile_s}, "tensorrt": {"graph": case.dense_graph}}
    for name in case.settings.against:
        makers[name] = partial(peers.PEERS[name], case.dense.module, case.x, number=case.number, **special.get(name, {}))
    calls: dict[str, Replay] = {}
    notes: dict[str, str] = {}
    for done, (name, make) in enumerate(makers.items()):
        tell(f"opening {name}", done / len(makers))
        opened, missing = tried({name: make})
        notes |= missing
        for peer in opened.values():
            peer.replay()
            torch.cuda.synchronize()
            error = rms(peer.output(), case.wanted)
            notes[name] = peer.note
            if error <= case.largest:
                calls[name] = peer.replay
            else:
                notes[name] = f"not timed: output differs from float64 by {error:.2g} of its size"
    return calls, notes


def _twin(case: Case) -> peers.Peer:
    """The engine itself, with forms that multiply by every weight: what sparsity alone brings."""
    engine: Any = cosparse.load(case.path, device=case.settings.device, dtype=case.settings.dtype, dense=True)
    y = engine(case.x)
    return peers.Peer(TWIN, engine.replay(tuple(case.x.shape)), lambda: y, "dense forms")


def _layer_rows(engine: Any, case: Case, ceilings: device.Ceilings) -> list[dict[str, Any]]:
    dense = layers.dense_us(case.dense.module, case.x, case.number)
    named = {case.dense.names[path]: us for path, us in dense.items()}
    profile, plan = engine.profile(case.x, repeat=REPEAT), engine.plan_for(tuple(case.x.shape))
    return layers.rows(profile, plan, case.graph, case.shapes, named, ceilings)
