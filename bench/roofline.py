"""What this machine can do at the most, measured: operations a second and bytes a second.

Both are rates that a stock library reached here, hence lower bounds of the hardware's own: a layer may lie above the roof a little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from typing import Any

SIZES = (512, 1024)  # of the square matrices: in the second-level cache, and beyond it
TRIAD = 1 << 24  # floats in each array of the triad: 64 MiB, more than the last-level cache
SECONDS = 0.1  # for each of the three measurements
HOW = "largest rates of a matrix product in this dtype and of a triad over 192 MiB, both by torch: lower bounds"


@dataclass(frozen=True)
class Roofline:
    """Rates of the threads together: 10^9 operations a second (two a multiply-add), 10^9 bytes a second."""

    peak_gflops: float
    bandwidth_gbs: float

    def roof(self, intensity: float) -> float:
        """GFLOP/s that a kernel of `intensity` operations a byte can reach."""
        return min(self.peak_gflops, intensity * self.bandwidth_gbs)

    def to_json(self) -> dict[str, Any]:
        return {"peak_gflops": round(self.peak_gflops, 1), "bandwidth_gbs": round(self.bandwidth_gbs, 2), "roofline_by": HOW}


NOWHERE = {"peak_gflops": None, "bandwidth_gbs": None, "roofline_by": None}


@lru_cache
def measure(threads: int, dtype: str) -> Roofline | None:
    """The rates for `threads` threads, measured once a process; None where torch is not installed."""
    if util.find_spec("torch") is None:
        return None
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            product = max(2e-9 * size**3 / _fastest(_product(torch, size, dtype)) for size in SIZES)
            a, b, c = torch.zeros(TRIAD), torch.ones(TRIAD), torch.ones(TRIAD)
            triad = 12e-9 * TRIAD / _fastest(lambda: torch.add(b, c, alpha=2.0, out=a))
    finally:
        torch.set_num_threads(before)
    return Roofline(product, triad)


def _product(torch: Any, size: int, dtype: str) -> Callable[[], object]:
    if dtype == "int8":
        a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(a, b)
    a, b = (torch.rand(size, size, dtype=getattr(torch, dtype)) for _ in range(2))
    return lambda: torch.mm(a, b)


def _fastest(call: Callable[[], object]) -> float:
    """Shortest time of a call, seconds, over SECONDS; the first is not counted."""
    call()
    shortest, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end or shortest == float("inf"):
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
