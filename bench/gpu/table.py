"""The network table of the GPU: engines and dense peers of one network at one batch size, timed in turn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosparse.bench import zoo
from cosparse.bench.check import PEER_FACTOR
from cosparse.bench.gpu.agreement import SLICE, Referee, allowed_of_peers, in_slices, random_input, rms
from cosparse.bench.gpu.networks import Row, artifact
from cosparse.bench.gpu.peers import PEERS, Peer, compiled
from cosparse.bench.gpu.sparse import tried
from cosparse.bench.gpu.timing import Times, in_turn
from cosparse.compress import count
from cosparse.errors import UnsupportedError

UNSTABLE_SPREAD = 0.15


@dataclass
class Bench:
    """What the table needs besides the rows; networks, referees and engines are kept, since each is used at several batch sizes."""

    cache: Path
    seconds: float = 1.0
    compile_s: float = 60.0
    peers: Sequence[str] = tuple(PEERS)
    flush: bool = False
    engines: dict[str, Any] = field(default_factory=dict)
    referees: dict[str, Referee] = field(default_factory=dict)
    models: dict[str, nn.Module] = field(default_factory=dict)

    def engine(self, row: Row) -> Any:
        """The row's artifact on the GPU engine; UnsupportedError where this build has none."""
        if row.name not in self.engines:
            path, self.models[row.network] = artifact(row, self.cache)
            # Our own layers, where they are sparse: by default the engine runs the whole network in cuDNN's layout where that is faster. A
            # network that only lacks filters is dense, and may.
            compare = row.variant.filters is not None
            self.engines[row.name] = loader()(path, device="cuda", dtype="float16", compare=compare)
            self.referees[row.name] = Referee(path)
        return self.engines[row.name]

    def model(self, network: str) -> nn.Module:
        if network not in self.models:
            self.models[network] = zoo.build(network)
        return self.models[network]


def loader() -> Callable[..., Any]:
    """load_gpu, imported now: a build without the GPU engine still measures the peers."""
    try:
        from cosparse.engine.gpu.engine import load_gpu
    except ImportError as error:
        raise UnsupportedError("GPU engine", "cosparse.engine.gpu with torch and triton", str(error), "install cosparse[gpu]") from error
    return load_gpu


def shape_of(network: str, batch: int) -> tuple[int, ...]:
    return (batch, *zoo.example(network).shape[1:])


def measure(network: str, rows: Iterable[Row], batch: int, bench: Bench) -> list[dict[str, Any]]:
    """One result for each row of this network at this batch size; all are timed in turn with the same peers.

    A peer or an engine that cannot run, or whose output is wrong, is left out and says why; `speedup` is None where nothing is left.
    """
    x = random_input(shape_of(network, batch), seed=batch)
    opened, missing = dense_peers(network, x, bench)
    engines: dict[str, Callable[[], object]] = {}
    notes: dict[str, dict[str, Any]] = {}
    rows = list(rows)
    for row in rows:
        engines_found, failed = tried({row.name: partial(_opened, row, x, bench, notes)})
        engines |= {name: peer.replay for name, peer in engines_found.items()}
        for name, why in failed.items():
            notes.setdefault(name, {})["why"] = why
    calls = {name: peer.replay for name, peer in opened.items()} | engines
    times = in_turn(calls, bench.seconds, flush=bench.flush) if calls else {}
    versions = {name: peer.note for name, peer in opened.items()} | missing
    results = [result(row, batch, {n: times[n] for n in opened}, times.get(row.name), notes.get(row.name, {}), versions) for row in rows]
    del opened, calls
    torch.cuda.empty_cache()
    return results


def dense_peers(network: str, x: Tensor, bench: Bench) -> tuple[dict[str, Peer], dict[str, str]]:
    """(the peers that run and whose output is right, why the others are missing)."""
    model = bench.model(network)
    makers: dict[str, Callable[[], Peer]] = {name: partial(PEERS[name], model, x) for name in bench.peers}
    if "compile" in makers:
        makers["compile"] = partial(compiled, model, x, budget_s=bench.compile_s)
    peers, missing = tried(makers)
    plain = model.cuda().float()
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            wanted = in_slices(plain, x)
            half = copy.deepcopy(plain).half()(x[:SLICE].half())
    finally:
        torch.backends.cudnn.allow_tf32 = before
        model.cpu()
    largest = allowed_of_peers(rms(half, wanted[: len(half)]), "float16")
    for name in list(peers):
        peers[name].replay()
        torch.cuda.synchronize()
        if not (error := rms(peers[name].output(), wanted)) <= largest:
            missing[name] = f"output differs from float32 by {error:.2g}"
            del peers[name]
    return peers, missing


def _opened(row: Row, x: Tensor, bench: Bench, notes: dict[str, dict[str, Any]]) -> Peer:
    """The engine as a candidate, once its output has been judged; what is known of it goes to `notes`."""
    engine = bench.engine(row)
    agreement = bench.referees[row.name].judge(engine, x)
    plan = engine.plan_for(tuple(x.shape))
    executed = math.fsum(step.flops + getattr(step, "basis_flops", 0.0) for step in plan)
    dense = math.fsum(step.dense_flops for step in plan)
    provenance = engine.metadata.get("provenance", {})
    notes[row.name] = {
        "check": agreement.to_json(),
        **reductions(provenance, bench.model(row.network), row.network),
        "executed_flops": executed,
        "launched_dense_flops": dense,
        "ran": "cuDNN" if any(step.kernel.startswith("cudnn") for step in plan) else "own layers",
    }
    if not agreement.passed:
        error = f"engine's error {agreement.engine:.3g} is {agreement.ratio:.2f} of cuDNN's, at most {PEER_FACTOR:g} allowed"
        raise UnsupportedError(f"row {row.name}", "outputs that agree", error)
    # The call above has left x in the memory that replays read: zeros would run faster than real numbers.
    return Peer(row.name, engine.replay(tuple(x.shape)), lambda: x, "engine")


def reductions(provenance: Mapping[str, Any], model: nn.Module, network: str) -> dict[str, float | None]:
    """Shares that the artifact lacks of the dense network's multiply-adds and parameters: its own record knows no removed filters."""
    whole = count(model, zoo.example(network))
    shares = {"flops_reduction": ("flops", whole.flops_dense), "params_reduction": ("params", whole.params_dense)}
    return {key: round(1 - provenance[name] / dense, 5) if name in provenance else None for key, (name, dense) in shares.items()}


def result(
    row: Row, batch: int, peers: Mapping[str, Times], ours: Times | None, notes: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON of one row at one batch size. `flop_speedup`: the dense network's multiply-adds over the artifact's, before any pruning."""
    fastest = min(peers, key=lambda name: peers[name].median_ms, default=None)
    speedup = peers[fastest].median_ms / ours.median_ms if fastest and ours else None
    reduction = notes.get("flops_reduction")
    ideal = 1 / (1 - reduction) if reduction else row.ideal
    spreads = [one.to_json()["spread"] for one in (ours, peers.get(fastest or "")) if one is not None]
    bar = row.bars.get(batch)
    return {
        "row": row.name,
        "network": row.network,
        "batch": batch,
        "dtype": "float16",
        "engine": ours.to_json() if ours else {},
        "peers": {name: times.to_json() for name, times in peers.items()},
        "versions": dict(versions),
        "fastest_peer": fastest,
        "speedup": round(speedup, 4) if speedup else None,
        "flop_speedup": round(ideal, 4) if ideal else None,
        "realised": round(speedup / ideal, 4) if speedup and ideal else None,
        "bar": bar,
        "passed": None if bar is None else bool(speedup is not None and speedup >= bar),
        "stable": bool(spreads) and all(spread <= UNSTABLE_SPREAD for spread in spreads),
        **notes,
    }
