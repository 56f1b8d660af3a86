"""The peers of one run: opened, held against the engine's outputs, and reduced to the ways that are worth timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

from cosparse.bench.check import Check, compare, compare_short, short_tolerance, worst
from cosparse.bench.peers import Arrays, Peer, Runner, Shapes, find
from cosparse.bench.rounding import allowed
from cosparse.bench.timing import Effort, interleave
from cosparse.engine.graph import Graph
from cosparse.kernels import reference

HEAT = Effort(seconds=0.0, turns=2)
KEEP = 1.5  # a way that took this many times as long as the peer's fastest is not timed further


@dataclass(frozen=True)
class Opened:
    """A peer with the file that it loaded and every way to run it."""

    peer: Peer
    path: Path
    runners: tuple[Runner, ...]


@dataclass(frozen=True)
class Checks:
    """`own` is the engine's; `peers` maps "PEER/LABEL" to the check of that way."""

    own: Check
    peers: Mapping[str, Check]


def open_peers(
    names: Sequence[str], dense: Graph, shapes: Shapes, threads: int, dtype: str, samples: Sequence[Arrays], folder: Path
) -> dict[str, Opened]:
    """Peer -> the dense network opened by it; files go to a subfolder for each. Raises Error for a peer that is unknown or missing."""
    opened = {}
    for name in names:
        peer, own = find(name), folder / name
        runtime = peer.runtime(dtype)
        own.mkdir()
        path = runtime.save(dense, shapes, own, dtype, samples)
        ways = [runtime.load(path, shapes, threads, dtype, label) for label in runtime.ways(dtype)]
        opened[name] = Opened(peer, path, tuple(ways))
    return opened


def check_all(ours: Arrays, inputs: Arrays, dense: Graph, shapes: Shapes, opened: Mapping[str, Opened], threads: int, dtype: str) -> Checks:
    """float32: the engine's outputs against every peer's, or the plain reference's where there is none. Else: all against float32."""
    outputs = {f"{name}/{runner.label}": runner.run(inputs) for name, one in opened.items() for runner in one.runners}
    if dtype == "float32":
        checks = {key: compare(ours, theirs) for key, theirs in outputs.items()}
        return Checks(worst(list(checks.values()) or [compare(ours, reference.run(dense, *inputs))]), checks)
    expected, bound = _float32(dense, shapes, inputs, threads), allowed(dense, dtype)
    checks = {key: compare_short(theirs, expected, bound) for key, theirs in outputs.items()}
    return Checks(compare_short(ours, expected, short_tolerance(bound, list(checks.values()))), checks)


def _float32(dense: Graph, shapes: Shapes, inputs: Arrays, threads: int) -> Arrays:
    """The network's outputs without short dtypes, from PyTorch where it is installed: the plain reference takes minutes on large ones."""
    if util.find_spec("torch"):
        return find("torch").runners(dense, shapes, threads)[0].run(inputs)
    return reference.run(dense, *inputs)


def contenders(opened: Mapping[str, Opened], inputs: Arrays) -> dict[str, Callable[[], object]]:
    """ "PEER/LABEL" -> a call of that way, for those that come near the fastest way of their peer in a short heat."""
    kept = {}
    for name, one in opened.items():
        calls = {f"{name}/{runner.label}": runner.bind(inputs) for runner in one.runners}
        if len(calls) > 1:
            best = {key: float(np.min(times)) for key, times in interleave(calls, HEAT).items()}
            calls = {key: call for key, call in calls.items() if best[key] <= KEEP * min(best.values())}
        kept |= calls
    return kept


def way_of(one: Opened, times: Mapping[str, np.ndarray]) -> str:
    """Label of the peer's way with the smallest median, of its first where none was timed."""
    timed = {runner.label: times[key] for runner in one.runners if (key := f"{one.peer.name}/{runner.label}") in times}
    return min(timed, key=lambda label: float(np.median(timed[label])), default=one.runners[0].label)
