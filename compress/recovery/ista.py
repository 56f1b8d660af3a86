"""Iterative soft thresholding (Daubechies, Defrise, De Mol 2004), in the group form for columns.

    s <- soft(s + tau A^T (y - A s), tau t)        tau = 1 / ||A||^2

The objective never rises, and its distance from the optimum falls like 1 / iterations. With A = I the first step is the answer.
"""

from __future__ import annotations

import torch

from cosparse.compress.recovery.problem import Problem, Recovered, beginning, check, descent, result, settled, thresholds
from cosparse.compress.recovery.shrink import soft


@torch.no_grad()
def ista(
    problem: Problem, threshold: float | torch.Tensor, start: torch.Tensor | None = None, iterations: int = 100, tolerance: float = 0.0
) -> Recovered:
    """Stops after `iterations`, or once no signal moves by more than `tolerance` of its norm."""
    check(iterations, tolerance)
    t, s, step, done = thresholds(problem, threshold), beginning(problem, start), 1 / problem.norm_squared, 0
    while done < iterations:
        done += 1
        before, s = s, soft(s + step * descent(problem, s), step * t)
        if settled(s, before, tolerance):
            break
    return result(problem, s, done, t)
