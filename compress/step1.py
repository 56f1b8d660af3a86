"""The settings of NNCS's first step, in which weights train while they are pulled towards their sparse representation (`pull`).

    J(w, s) = loss(w) + lambda ||s||_{2,1} + mu/2 ||Phi (w - Psi^T s)||^2              (r x 1 blocks; Psi orthonormal)

lambda / mu is the norm at which the budget's rule would cut a block now: what is about to be dropped is pulled in full, the rest at most
by lambda. mu follows a schedule. Refused: names that are not there, and a closed form for anything but Phi = I.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cosparse.compress.measurement import MEASUREMENTS, SEGMENT
from cosparse.compress.recovery import CONVEX, GREEDY
from cosparse.errors import Error

RECOVERIES = ("closed", *CONVEX, *GREEDY)

LEAST = 0.01
"""Where the geometric schedule starts, as a share of where it ends."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "ramp": lambda at: 2 * at,
    "constant": lambda at: 1.0,
    "cosine": lambda at: 1 - math.cos(math.pi * at),
    "geometric": lambda at: LEAST ** (1 - at) * math.log(1 / LEAST) / (1 - LEAST),
}
"""mu over its mean, at a share of the ramp; all have mean 1 over it. Behind the ramp the end's value stays."""


@dataclass(frozen=True)
class Step1:
    """Settings of step 1.

    `recovery`: "closed" (the identity only), "ista", "fista", "admm", or by the number of blocks "omp", "iht". `measurement`: "identity",
    "gaussian", "bernoulli"; `measure_share`: measurements by columns, m / n, of the random two (None: 0.5); `segment`: most columns of a
    signal there. `schedule`: how mu gets to its end: "ramp" (linear), "constant", "cosine", "geometric". `shrink`: e-foldings over the
    ramp, 0 leaves step 1 plain. `iterations`, `tolerance`: of one recovery (OMP takes as many picks as it keeps blocks).
    `refresh`: steps between two looks at where the budget would cut, and between two recoveries.
    """

    recovery: str = "closed"
    measurement: str = "identity"
    measure_share: float | None = None
    schedule: str = "ramp"
    shrink: float = 1.0
    iterations: int = 20
    tolerance: float = 1e-4
    refresh: int = 100
    segment: int = SEGMENT

    def __post_init__(self) -> None:
        allowed = {"recovery": RECOVERIES, "measurement": MEASUREMENTS, "schedule": tuple(SCHEDULES)}
        for name, names in allowed.items():
            if getattr(self, name) not in names:
                raise Error(f"Step1.{name}", f"one of {', '.join(names)}", repr(getattr(self, name)))
        if self.measurement == "identity" and self.measure_share is not None:
            raise Error("Step1.measure_share", "a random measurement", "identity", "measure with gaussian or bernoulli")
        if self.measurement != "identity" and self.recovery == "closed":
            others = ", ".join(RECOVERIES[1:])
            raise Error("Step1.recovery", f"one of {others}, as the closed form is that of the identity", "'closed'")
        if self.measure_share is not None and not 0 < self.measure_share <= 1:
            raise Error("Step1.measure_share", "a number in (0, 1]", repr(self.measure_share), "0.5 measures every second dimension")
        if not self.shrink >= 0 or self.refresh < 1:
            raise Error("Step1", "shrink >= 0, refresh >= 1", f"shrink {self.shrink}, refresh {self.refresh}")
        if self.iterations < 1 or not self.tolerance >= 0 or self.segment < 1:
            got = f"iterations {self.iterations}, tolerance {self.tolerance}, segment {self.segment}"
            raise Error("Step1", "iterations >= 1, tolerance >= 0, segment >= 1", got)

    @property
    def share(self) -> float:
        return 0.5 if self.measure_share is None else self.measure_share

    def strength(self, step: int, ramp: int) -> float:
        """rate * mu at a step: the share by which a block that is about to be dropped shrinks."""
        return self.shrink * SCHEDULES[self.schedule](min(1.0, (step + 1) / ramp)) / ramp
