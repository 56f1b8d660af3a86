"""The last minutes of a model's answers, second by second, for the status page. Memory is bounded; the metrics have the whole history."""

from __future__ import annotations

import random
import time
from collections import OrderedDict

SECONDS = 300
SAMPLES = 200  # kept of one second


class Latencies:
    """From one thread alone, that of the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, list[float]] = OrderedDict()
        self._counts: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        now = int(time.time())
        kept = self._kept.get(now)
        if kept is None:
            kept = self._kept[now] = []
            self._counts[now] = 0
            while len(self._kept) > SECONDS:
                old, _ = self._kept.popitem(last=False)
                del self._counts[old]
        self._counts[now] += 1
        if len(kept) < SAMPLES:
            kept.append(seconds)
        elif (place := random.randrange(self._counts[now])) < SAMPLES:
            kept[place] = seconds

    def rows(self) -> list[dict[str, float]]:
        """For each second with an answer: when, how many, and the median and 99th percentile in milliseconds."""
        rows = []
        for second, kept in self._kept.items():
            ordered = sorted(kept)
            median, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            rows.append({"second": second, "count": self._counts[second], "p50_ms": round(1e3 * median, 3), "p99_ms": round(1e3 * high, 3)})
        return rows
