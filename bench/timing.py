"""Times of several candidates, taken in turn (A B C A B C ...), so that drift of the machine hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SLICE_S = 0.05  # timed calls of one turn last about this long
SETTLE_LIMIT_S = 0.3
SAMPLES = 2000  # times kept of each candidate, for plots
SUMMARY = ("median_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "spread")


@dataclass(frozen=True)
class Effort:
    """How long to measure: every candidate gets `seconds` of timed calls, in at least `turns` turns."""

    seconds: float = 2.0
    turns: int = 5


def interleave(
    calls: Mapping[str, Callable[[], object]], effort: Effort, progress: Callable[[float], None] | None = None
) -> dict[str, np.ndarray]:
    """Candidate name -> wall times of its calls [calls], seconds, in the order taken.

    Between turns the process waits until the thread teams of the candidate before have stopped spinning (`settle`), and each turn starts
    with one untimed call that wakes its own threads and brings its data back into the caches. `progress` hears the share done, 0..1.
    """
    estimates = {name: _estimate(call) for name, call in calls.items()}
    turns = max(effort.turns, round(effort.seconds / max(SLICE_S, *estimates.values())))
    turn_s = max(SLICE_S, effort.seconds / turns)  # longer where a slow candidate leaves time for few turns only
    turn_calls = {name: max(1, min(500, round(turn_s / estimate))) for name, estimate in estimates.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns):
            for name, call in calls.items():
                settle()
                call()
                times[name] += _time(call, turn_calls[name], 4 * turn_s)
            if progress:
                progress((turn + 1) / turns)
    finally:
        gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def settle(limit: float = SETTLE_LIMIT_S) -> None:
    """Waits until this process burns almost no processor time, at most `limit` seconds.

    Thread pools spin for tens of milliseconds after a call in the hope of the next one; a candidate timed beside another's spinning pool
    would share the processors with it.
    """
    end = time.perf_counter() + limit
    calm = 0
    while calm < 2 and time.perf_counter() < end:
        wall, own = time.perf_counter(), time.process_time()
        time.sleep(0.003)
        calm = calm + 1 if time.process_time() - own < 0.2 * (time.perf_counter() - wall) else 0


def summary(seconds: np.ndarray) -> dict[str, Any]:
    """Median, minimum, percentiles in ms, and `spread` = interquartile range / median. seconds: [calls]."""
    ms = np.asarray(seconds) * 1e3
    low, middle, high, p90, p99 = np.percentile(ms, [25, 50, 75, 90, 99])
    figures = (middle, ms.min(), middle, p90, p99, (high - low) / middle)
    return {key: round(float(value), 5) for key, value in zip(SUMMARY, figures, strict=True)}


def samples_ms(seconds: np.ndarray) -> list[float]:
    """At most SAMPLES of the times, ms, spread evenly over the run. seconds: [calls]."""
    picked = np.linspace(0, len(seconds) - 1, min(SAMPLES, len(seconds))).astype(int)
    return [round(float(ms), 5) for ms in np.asarray(seconds)[picked] * 1e3]


def _estimate(call: Callable[[], object]) -> float:
    settle()
    call()
    return max(1e-6, min(_time(call, 2, 4 * SLICE_S)))


def _time(call: Callable[[], object], count: int, limit: float) -> list[float]:
    """Times of `count` calls; fewer where neighbours make them so slow that they would last longer than `limit` seconds."""
    times = []
    end = time.perf_counter() + limit
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return times
