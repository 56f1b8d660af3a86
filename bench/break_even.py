"""What a density sweep says: from which density on sparsity pays, and whether less work always took less time.

A curve is a list of (density, ms), in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Curve = Sequence[tuple[float, float]]

GAIN = 0.02
"""A network pays at a density if it takes at most 1 - GAIN of the dense time. Where the plan falls back to dense kernels the two times are
equal, and noise alone would decide which of them is smaller."""

NOISE = 0.03
"""Medians of one run, taken in turn, differ by this much between equal candidates on a quiet machine; more is called a rise."""


def break_even(curve: Curve, dense_ms: float) -> float | None:
    """The density below which the network is faster than dense, interpolated between the measured ones; None if it never is."""
    line = (1 - GAIN) * dense_ms
    points = sorted(curve)
    pays = [ms <= line for _, ms in points]
    if not pays or not pays[0]:
        return None
    if all(pays):
        return points[-1][0]
    first = pays.index(False)
    (low, fast), (high, slow) = points[first - 1], points[first]
    return round(low + (high - low) * (line - fast) / (slow - fast), 4)


def rises(curve: Curve) -> list[tuple[float, float]]:
    """Neighbouring densities (high, low) of which the lower one took longer than noise explains; empty: latency is monotone."""
    points = sorted(curve, reverse=True)
    return [(high, low) for (high, before), (low, after) in pairwise(points) if after > (1 + NOISE) * before]
