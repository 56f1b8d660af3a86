"""What one model has counted since it was loaded, in the terms of the protocol's statistics extension.

Times are whole nanoseconds. As there, a batch's queue and compute times count once for each request in it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

from cosparse.engine.serve.batcher import Ran


class Count:
    """How often, and for how many seconds in all."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count, self.seconds = self.count + count, self.seconds + seconds

    def row(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(1e9 * self.seconds)}


class Counts:
    """Of one model, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._success, self._fail, self._queue, self._compute = Count(), Count(), Count(), Count()
        self._images, self._batches = 0, defaultdict[int, Count](Count)

    def ran(self, ran: Ran) -> None:
        requests = len(ran.waited)
        with self._lock:
            self._images += ran.images
            self._queue.add(sum(ran.waited), requests)
            self._compute.add(ran.compute * requests, requests)
            self._batches[ran.images].add(ran.compute)

    def answered(self, seconds: float) -> None:
        with self._lock:
            self._success.add(seconds)

    def failed(self) -> None:
        with self._lock:
            self._fail.add(0.0)

    def rows(self) -> dict[str, Any]:
        with self._lock:
            kinds = {"success": self._success, "fail": self._fail, "queue": self._queue, **_compute(self._compute)}
            return {
                "inference_count": self._images,
                "execution_count": sum(count.count for count in self._batches.values()),
                "inference_stats": {name: count.row() for name, count in kinds.items()},
                "batch_stats": [
                    {"batch_size": images, **{name: part.row() for name, part in _compute(count).items()}}
                    for images, count in sorted(self._batches.items())
                ],
            }


def _compute(count: Count) -> dict[str, Count]:
    """In the protocol's three parts. Reading and writing tensors is not told apart, and perf_analyzer wants the same counts of all."""
    none = Count()
    none.add(0.0, count.count)
    return {"compute_input": none, "compute_infer": count, "compute_output": none}
