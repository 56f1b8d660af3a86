"""Do two runtimes compute the same? Asked before anything is timed: a fast wrong answer is worth nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Runtimes sum in different orders, and a float32 network of some hundred layers drifts by a few units in the fifth digit.
RELATIVE = 1e-4


@dataclass(frozen=True)
class Check:
    """Largest difference of any output, and the bound that it was held against: RELATIVE x the largest magnitude of that output."""

    max_abs_err: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.max_abs_err <= self.tolerance)  # False for NaN

    def to_json(self) -> dict[str, Any]:
        error = self.max_abs_err if np.isfinite(self.max_abs_err) else None
        return {"max_abs_err": error, "tolerance": self.tolerance, "passed": self.passed}


def compare(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Check:
    """The output that comes closest to its bound, or exceeds it most. Other shapes than expected count as infinitely wrong."""
    checks = []
    for y, reference in zip(got, expected, strict=True):
        wide = np.asarray(reference, np.float64)
        tolerance = RELATIVE * float(np.max(np.abs(wide), initial=0.0))
        error = float(np.max(np.abs(np.asarray(y, np.float64) - wide), initial=0.0)) if y.shape == wide.shape else float("inf")
        checks.append(Check(error, tolerance))
    return worst(checks)


def worst(checks: Sequence[Check]) -> Check:
    """The check that exceeds its bound most, or comes closest to it."""

    def excess(check: Check) -> float:
        share = check.max_abs_err / check.tolerance if check.tolerance else check.max_abs_err * float("inf") if check.max_abs_err else 0.0
        return share if share == share else float("inf")

    return max(checks, key=excess)
