"""Alternating directions (Boyd et al. 2011, scaled form) on a copy z of s that carries the penalty.

    s <- (A^T A + rho I)^-1 (A^T y + rho (z - u))        z <- soft(s + u, t / rho)        u <- u + s - z

The matrix is factored once, on its smaller side: (A^T A + rho I)^-1 v = (v - A^T (A A^T + rho I)^-1 A v) / rho. At the optimum
rho u = A^T (y - A z), with no column longer than t, so that a start z gives its u. The result is z, whose zeros are zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from cosparse.compress.recovery.problem import Problem, Recovered, back, beginning, check, descent, measure, result, settled, thresholds
from cosparse.compress.recovery.shrink import soft
from cosparse.errors import Error


@torch.no_grad()
def admm(
    problem: Problem,
    threshold: float | torch.Tensor,
    start: torch.Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 0.0,
    rho: float = 1.0,
) -> Recovered:
    """Stops after `iterations`, or once z stands still and agrees with s to `tolerance`, relative to each signal."""
    check(iterations, tolerance)
    if not rho > 0:
        raise Error("rho", "a positive number", str(rho))
    t, z, done = thresholds(problem, threshold), beginning(problem, start), 0
    solve, projected = _factored(problem, rho), back(problem.matrix, problem.measured)
    u = descent(problem, z) / rho
    u = u - soft(u, t / rho)  # Onto the ball in which the optimum's lies.
    while done < iterations:
        done += 1
        s = solve(projected + rho * (z - u))
        before, z = z, soft(s + u, t / rho)
        u = u + s - z
        if settled(z, before, tolerance) and settled(z, s, tolerance):
            break
    return result(problem, z, done, t)


def _factored(problem: Problem, rho: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """v -> (A^T A + rho I)^-1 v for v [Q, J, r, n]."""
    matrix = problem.matrix
    if matrix is None:
        return lambda v: v / (1 + rho)
    wide = matrix.shape[1] <= matrix.shape[2]
    gram = matrix @ matrix.mT if wide else matrix.mT @ matrix
    factor = torch.linalg.cholesky(gram + rho * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))

    def solve(v: torch.Tensor) -> torch.Tensor:
        return torch.cholesky_solve(v.flatten(1, 2).mT, factor).mT.unflatten(1, v.shape[1:3])

    return (lambda v: (v - back(matrix, solve(measure(matrix, v)))) / rho) if wide else solve
