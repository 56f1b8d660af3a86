"""Iterative hard thresholding (Blumensath, Davies 2009): at most k columns a signal, no threshold.

    s <- hard(s + tau g, k)        g = A^T (y - A s)

tau is the better of two by signal: 1 / ||A||^2, with which the misfit never rises, and ||g_S||^2 / ||A g_S||^2 on the present support S
(the normalised form, Blumensath, Davies 2010), which is as long as a step can be while S stays.
"""

from __future__ import annotations

import torch

from cosparse.compress.recovery.problem import Problem, Recovered, beginning, check, counts, descent, measure, misfit, result, settled
from cosparse.compress.recovery.shrink import hard, sizes


@torch.no_grad()
def iht(
    problem: Problem, keep: int | torch.Tensor, start: torch.Tensor | None = None, iterations: int = 100, tolerance: float = 0.0
) -> Recovered:
    """`keep` is broadcast to [Q, J]. Stops after `iterations`, or once no signal moves by more than `tolerance` of its norm."""
    check(iterations, tolerance)
    k, done = counts(problem, keep), 0
    s = hard(beginning(problem, start), k)
    while done < iterations:
        done += 1
        before, g = s, descent(problem, s)
        careful, bold = (hard(s + step * g, k) for step in (1 / problem.norm_squared, _step(problem, s, g, k)))
        s = torch.where((misfit(problem, bold) < misfit(problem, careful))[..., None, None], bold, careful)
        if settled(s, before, tolerance):
            break
    return result(problem, s, done)


def _step(problem: Problem, s: torch.Tensor, g: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """||g_S||^2 / ||A g_S||^2, [Q, J, 1, 1], S the support of s or, where s is zero, the columns that g would choose; else 1 / ||A||^2."""
    support = sizes(s) > 0
    inside = torch.where(support.any(-1, keepdim=True), torch.where(support, g, 0), hard(g, k))
    above, below = (v.square().sum((-2, -1), keepdim=True) for v in (inside, measure(problem.matrix, inside)))
    return torch.where((above > 0) & (below > 0), above / below, 1 / problem.norm_squared)
