"""GPU times of several candidates, taken in turn (A B C A B C ...) by CUDA events, so that drift of clocks and heat hits all alike.

A candidate is a call without arguments that puts its work on the current stream: the replay of a CUDA graph. Each call stands between two
events, and a turn's calls are queued ahead of the device, so that what is timed is the device's work and the start of a graph, not Python.
Where the device is faster than the host can queue, the time includes the wait for the host, for every candidate alike.

The L2 is warm unless `flush` is asked for: weights and activations that fit stay in it from one call to the next, as they do for a server
under load. With `flush` a buffer of twice its size is written before each call, outside the events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from cosparse.bench.gpu.device import Clocks, clock_reader, require_cuda
from cosparse.bench.timing import SAMPLES, samples_ms, summary

SLICE_S = 0.02  # timed calls of one turn last about this long
TURNS = 5
MOST_CALLS = 200  # of one turn: the queue of launches must not fill up
HEAD_START = 400_000  # cycles that the device is kept busy while the host queues the first calls


class Event(Protocol):
    """What is used of torch.cuda.Event."""

    def record(self) -> None: ...
    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this event to `end`."""


@dataclass(frozen=True)
class Device:
    """The calls that timing makes to the device; tests put others in their place."""

    event: Callable[[], Event]
    synchronize: Callable[[], None]
    hold: Callable[[], None]
    flush: Callable[[], None]
    clocks: Callable[[], Clocks | None]


@dataclass(frozen=True)
class Times:
    """Seconds of every timed call [calls], in the order taken; clocks seen during the turns, MHz, SM and memory; whether L2 was warm."""

    seconds: np.ndarray
    clocks: tuple[Clocks, ...] = ()
    warm: bool = True

    @property
    def median_ms(self) -> float:
        return float(np.median(self.seconds)) * 1e3

    @property
    def min_ms(self) -> float:
        return float(np.min(self.seconds)) * 1e3

    def to_json(self) -> dict[str, Any]:
        """median_ms, min_ms, p50_ms, p90_ms, p99_ms, spread (interquartile range / median), calls, l2, clocks."""
        sm, memory = (float(np.median(values)) for values in zip(*self.clocks, strict=True)) if self.clocks else (None, None)
        state = {"calls": len(self.seconds), "l2": "warm" if self.warm else "flushed", "sm_mhz": sm, "memory_mhz": memory}
        return summary(self.seconds) | state

    def samples_ms(self) -> list[float]:
        return samples_ms(self.seconds)[:SAMPLES]


def cuda(*, flush: bool = False) -> Device:
    """The current CUDA device; Error where there is none."""
    require_cuda()
    size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size if flush else 0
    buffer = torch.empty(size, dtype=torch.uint8, device="cuda")

    def write() -> None:
        buffer.zero_()

    return Device(
        event=lambda: torch.cuda.Event(enable_timing=True),
        synchronize=torch.cuda.synchronize,
        hold=lambda: torch.cuda._sleep(HEAD_START),
        flush=write if flush else lambda: None,
        clocks=clock_reader(),
    )


def in_turn(
    candidates: Mapping[str, Callable[[], object]], seconds: float, *, flush: bool = False, device: Device | None = None
) -> dict[str, Times]:
    """Candidate name -> its times. Every candidate gets about `seconds` of timed calls, in at least TURNS turns.

    Each turn of a candidate starts with one untimed call, which brings back its own data into the L2.
    """
    device = device or cuda(flush=flush)
    estimates = {name: _estimate(call, device) for name, call in candidates.items()}
    turns = max(TURNS, round(seconds / max(SLICE_S, *estimates.values())))
    turn_s = seconds / turns
    counts = {name: max(1, min(MOST_CALLS, round(turn_s / estimate))) for name, estimate in estimates.items()}
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    clocks: dict[str, list[Clocks]] = {name: [] for name in candidates}
    for _ in range(turns):
        for name, call in candidates.items():
            device.hold()
            call()
            taken[name] += _timed(call, counts[name], device, clocks[name])
    return {name: Times(np.array(values), tuple(clocks[name]), not flush) for name, values in taken.items()}


def median_s(call: Callable[[], object], rounds: int, device: Device | None = None) -> float:
    """Median seconds of one call by itself."""
    device = device or cuda()
    call()
    call()
    return float(np.median(_timed(call, rounds, device, [])))


def _estimate(call: Callable[[], object], device: Device) -> float:
    """Seconds of a call once warm: the first calls load modules, allocate and bring up the clocks."""
    for _ in range(3):
        call()
    return max(1e-6, float(np.median(_timed(call, 5, device, []))))


def _timed(call: Callable[[], object], count: int, device: Device, clocks: list[Clocks]) -> list[float]:
    events = [(device.event(), device.event()) for _ in range(count)]
    for start, end in events:
        device.flush()
        start.record()
        call()
        end.record()
    if (seen := device.clocks()) is not None:  # while the device works: idle clocks say nothing
        clocks.append(seen)
    device.synchronize()
    return [start.elapsed_time(end) * 1e-3 for start, end in events]
