"""What the solvers solve: sparse signals s behind measurements y = A s, Q matrices at once.

    min_s  t ||s||_{2,1} + 1/2 ||A s - y||^2          ||s||_{2,1} = sum over columns of the norm of the r coefficients there

    A  [Q, m, n]      one matrix a segment; None: the identity
    y  [Q, J, r, m]   J signals a segment; the r channels of a signal share their support
    s  [Q, J, r, n]
    t  threshold, broadcast to [Q, J, 1, n]; in units of s where the columns of A have length 1

r = 1 is the plain l1 problem: channels that decide alone are signals of one channel (`alone`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from cosparse.compress.recovery.shrink import sizes
from cosparse.errors import Error


@dataclass(frozen=True, eq=False)
class Problem:
    """`norm_squared` is ||A||^2, the largest over the Q matrices, or a bound on it: gradient steps are 1 / norm_squared long."""

    matrix: torch.Tensor | None
    measured: torch.Tensor
    norm_squared: float = 1.0

    def __post_init__(self) -> None:
        got, matrix = list(self.measured.shape), self.matrix
        if self.measured.ndim != 4:
            raise Error("measurements", "[segments, signals, channels, m]", str(got))
        if matrix is not None and (matrix.ndim != 3 or matrix.shape[:2] != (got[0], got[3])):
            raise Error("measurement matrices", f"[{got[0]}, {got[3]}, n], as the measurements are {got}", str(list(matrix.shape)))
        if not self.norm_squared > 0:
            raise Error("norm_squared", "a positive number", str(self.norm_squared))

    @property
    def columns(self) -> int:
        """n, the coefficients of a channel."""
        return self.measured.shape[-1] if self.matrix is None else self.matrix.shape[-1]


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a solver found: s, iterations taken, and by signal, both [Q, J], ||A s - y|| and the objective.

    The greedy methods have no threshold: their objective is 1/2 ||A s - y||^2.
    """

    s: torch.Tensor
    iterations: int
    residual: torch.Tensor
    objective: torch.Tensor


def measure(matrix: torch.Tensor | None, s: torch.Tensor) -> torch.Tensor:
    """A s, [Q, J, r, m]."""
    return s if matrix is None else (s.flatten(1, 2) @ matrix.mT).unflatten(1, s.shape[1:3])


def back(matrix: torch.Tensor | None, y: torch.Tensor) -> torch.Tensor:
    """A^T y, [Q, J, r, n]."""
    return y if matrix is None else (y.flatten(1, 2) @ matrix).unflatten(1, y.shape[1:3])


def descent(problem: Problem, s: torch.Tensor) -> torch.Tensor:
    """A^T (y - A s), minus the gradient of 1/2 ||A s - y||^2."""
    return back(problem.matrix, problem.measured - measure(problem.matrix, s))


def misfit(problem: Problem, s: torch.Tensor) -> torch.Tensor:
    """1/2 ||A s - y||^2 of every signal, [Q, J]."""
    return (problem.measured - measure(problem.matrix, s)).square().sum((-2, -1)) / 2


def alone(problem: Problem) -> Problem:
    """The plain form: every channel a signal of its own, [Q, J r, 1, m]."""
    return replace(problem, measured=problem.measured.flatten(1, 2).unsqueeze(2))


def beginning(problem: Problem, start: torch.Tensor | None) -> torch.Tensor:
    """`start`, or zeros of its shape."""
    shape = (*problem.measured.shape[:3], problem.columns)
    if start is None:
        return problem.measured.new_zeros(shape)
    if start.shape != shape:
        raise Error("start of the recovery", str(list(shape)), str(list(start.shape)))
    return start


def check(iterations: int, tolerance: float) -> None:
    """Error unless there is something to do."""
    if iterations < 1 or not tolerance >= 0:
        raise Error("recovery", "iterations >= 1, tolerance >= 0", f"iterations {iterations}, tolerance {tolerance}")


def thresholds(problem: Problem, threshold: float | torch.Tensor) -> torch.Tensor:
    """The threshold as a tensor beside s; Error where one is negative."""
    values = torch.as_tensor(threshold, dtype=problem.measured.dtype, device=problem.measured.device)
    if not bool((values >= 0).all()):
        raise Error("threshold", "nothing below 0", str(float(values.min())))
    return values


def counts(problem: Problem, keep: int | torch.Tensor) -> torch.Tensor:
    """Columns that each signal may use, int64 [Q, J]; Error unless between 0 and min(m, n), since more cannot be told apart."""
    most = min(problem.measured.shape[-1], problem.columns)
    k = torch.as_tensor(keep, device=problem.measured.device).long().expand(problem.measured.shape[:2])
    if bool(((k < 0) | (k > most)).any()):
        raise Error("keep", f"0 to {most} columns of {problem.columns}", f"{int(k.min())} to {int(k.max())}", "measure more")
    return k


def settled(new: torch.Tensor, old: torch.Tensor, tolerance: float) -> bool:
    """Whether every signal moved by no more than `tolerance` times its norm; never where the tolerance is 0."""
    if tolerance == 0:
        return False
    moved, norm = (new - old).flatten(2).norm(dim=2), new.flatten(2).norm(dim=2)
    return bool((moved <= tolerance * norm).all())


def result(problem: Problem, s: torch.Tensor, iterations: int, threshold: torch.Tensor | None = None) -> Recovered:
    """`s` with its residual and objective."""
    error = misfit(problem, s)
    penalty = 0.0 if threshold is None else (threshold * sizes(s)).sum((-2, -1))
    return Recovered(s, iterations, (2 * error).sqrt(), error + penalty)
