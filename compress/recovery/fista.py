"""ISTA with momentum (Beck, Teboulle 2009), restarted where it runs uphill (O'Donoghue, Candes 2015).

    x <- soft(p + tau A^T (y - A p), tau t)        a' = (1 + sqrt(1 + 4 a^2)) / 2        p <- x + (a - 1) / a' (x - x_before)

The distance from the optimum falls like 1 / iterations^2. Every signal has its own momentum a, back to 1 where (p - x)(x - x_before) > 0.
"""

from __future__ import annotations

import torch

from cosparse.compress.recovery.problem import Problem, Recovered, beginning, check, descent, result, settled, thresholds
from cosparse.compress.recovery.shrink import soft


@torch.no_grad()
def fista(
    problem: Problem, threshold: float | torch.Tensor, start: torch.Tensor | None = None, iterations: int = 100, tolerance: float = 0.0
) -> Recovered:
    """Stops after `iterations`, or once no signal moves by more than `tolerance` of its norm."""
    check(iterations, tolerance)
    t, s, step, done = thresholds(problem, threshold), beginning(problem, start), 1 / problem.norm_squared, 0
    point, momentum = s, torch.ones_like(s[..., :1, :1])  # [Q, J, 1, 1]
    while done < iterations:
        done += 1
        before, s = s, soft(point + step * descent(problem, point), step * t)
        uphill = ((point - s) * (s - before)).sum((-2, -1), keepdim=True) > 0
        momentum = torch.where(uphill, 1, momentum)
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        point, momentum = s + (momentum - 1) / following * (s - before), following
        if settled(s, before, tolerance):
            break
    return result(problem, s, done, t)
