"""Do two runtimes compute the same? Asked before anything is timed: a fast wrong answer is worth nothing.

float32 results are held to the largest difference of any value, those of shorter dtypes to the root mean square of the difference, since
single values of a thousand roundings may lie anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Runtimes sum in different orders, and a float32 network of some hundred layers drifts by a few units in the fifth digit.
RELATIVE = 1e-4
PEER_FACTOR = 2.0


@dataclass(frozen=True)
class Closeness:
    """How far an output lies from the expected one.

    max_abs_err: largest difference; largest: largest expected magnitude; rms_rel_err: root mean square of the difference over that of
    the expected values; top1_agreement: share of images (of pixels, for maps) whose largest channel is the same.
    """

    max_abs_err: float
    largest: float
    rms_rel_err: float
    top1_agreement: float

    def to_json(self) -> dict[str, float | None]:
        """The three figures that a result quotes; None for what is not finite."""
        figures = {"max_abs_err": self.max_abs_err, "rms_rel_err": self.rms_rel_err, "top1_agreement": self.top1_agreement}
        return {key: _finite(value) for key, value in figures.items()}


@dataclass(frozen=True)
class Check:
    """Closeness of the output that is closest to its bound or exceeds it most; `bound` names the figure that `tolerance` bounds."""

    closeness: Closeness
    tolerance: float
    bound: str = "max_abs_err"

    @property
    def max_abs_err(self) -> float:
        return self.closeness.max_abs_err

    @property
    def bounded(self) -> float:
        """The figure that is held against the tolerance."""
        return getattr(self.closeness, self.bound)

    @property
    def passed(self) -> bool:
        return bool(self.bounded <= self.tolerance)  # False for NaN

    def to_json(self) -> dict[str, Any]:
        return self.closeness.to_json() | {"bound": self.bound, "tolerance": self.tolerance, "passed": self.passed}


def closeness(got: np.ndarray, expected: np.ndarray) -> Closeness:
    """Of one output. Another shape than expected counts as infinitely wrong. Warns where only zeros are expected."""
    wide = np.asarray(expected, np.float64)
    largest = float(np.max(np.abs(wide), initial=0.0))
    if wide.size and largest < np.finfo(np.float32).tiny:
        text = "an expected output is zero everywhere: that two runtimes agree on it says little about the network"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    if got.shape != wide.shape:
        return Closeness(float("inf"), largest, float("inf"), 0.0)
    if not wide.size:
        return Closeness(0.0, 0.0, 0.0, 1.0)
    with np.errstate(invalid="ignore"):
        error = np.asarray(got, np.float64) - wide
    size, wrong = np.sqrt(np.mean(wide**2)), np.sqrt(np.mean(error**2))
    relative = wrong / size if size else 0.0 if wrong == 0 else float("inf")
    same = np.argmax(got, 1) == np.argmax(wide, 1) if wide.ndim > 1 else np.asarray(got) == wide
    return Closeness(float(np.max(np.abs(error))), largest, float(relative), float(np.mean(same)))


def compare(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Check:
    """float32 outputs against each other: RELATIVE x the largest magnitude of an output is allowed."""
    found = [closeness(y, reference) for y, reference in zip(got, expected, strict=True)]
    return worst([Check(one, RELATIVE * one.largest) for one in found])


def compare_short(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float) -> Check:
    """Outputs of a short dtype against the float32 ones: `tolerance` is allowed for the root mean square error."""
    return worst([Check(closeness(y, reference), tolerance, "rms_rel_err") for y, reference in zip(got, expected, strict=True)])


def short_tolerance(allowed: float, peers: Sequence[Check]) -> float:
    """PEER_FACTOR x the error of the most accurate peer of that dtype, or what the roundings explain (`rounding.allowed`), if that is more.

    `peers` are checks of the peers' outputs against the same float32 ones.
    """
    errors = [check.bounded for check in peers if np.isfinite(check.bounded)]
    return max(allowed, PEER_FACTOR * min(errors, default=0.0))


def worst(checks: Sequence[Check]) -> Check:
    """The check that exceeds its bound most, or comes closest to it."""

    def excess(check: Check) -> float:
        share = check.bounded / check.tolerance if check.tolerance else check.bounded * float("inf") if check.bounded else 0.0
        return share if share == share else float("inf")

    return max(checks, key=excess)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
