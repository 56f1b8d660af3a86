"""Orthogonal matching pursuit (Pati et al. 1993; simultaneous for r channels: Tropp, Gilbert, Strauss 2006).

    pick  argmax_j ||A_j^T R|| / ||A_j||,    then  R <- y minus its projection onto the columns picked

The picked columns are kept as U T, U orthonormal (Gram-Schmidt, twice) and T triangular; in the end s = T^-1 U^T y, which is least squares.
"""

from __future__ import annotations

import torch

from cosparse.compress.recovery.problem import Problem, Recovered, check, counts, result
from cosparse.compress.recovery.shrink import hard

MOST_NUMBERS = 1 << 24
"""Numbers that the orthonormal columns of one pass may take; more signals go in several passes."""


@torch.no_grad()
def omp(problem: Problem, keep: int | torch.Tensor, tolerance: float = 0.0) -> Recovered:
    """At most `keep` (broadcast to [Q, J]) columns a signal, fewer where the residual is below `tolerance` ||y|| or rounding."""
    check(1, tolerance)
    k, y = counts(problem, keep), problem.measured
    most = int(k.max()) if k.numel() else 0
    if problem.matrix is None:
        return result(problem, hard(y, k), most)  # Picked one by one, these are the k largest columns.
    if most == 0:
        return result(problem, y.new_zeros((*y.shape[:3], problem.columns)), 0)
    rows = max(1, MOST_NUMBERS // (y.shape[0] * y.shape[3] * most))
    parts = [_pursue(problem.matrix, *part, tolerance) for part in zip(y.split(rows, 1), k.split(rows, 1), strict=True)]
    return result(problem, torch.cat([s for s, _ in parts], 1), max(picked for _, picked in parts))


def _pursue(matrix: torch.Tensor, y: torch.Tensor, k: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, int]:
    """(s, columns picked at most) of y [Q, J, r, m]."""
    (segments, signals, channels, m), n, most = y.shape, matrix.shape[2], int(k.max())
    floor = m * torch.finfo(y.dtype).eps
    length = matrix.norm(dim=1)[:, None]  # [Q, 1, n]
    basis = y.new_zeros((segments, signals, most, m))
    triangle = torch.eye(most, dtype=y.dtype, device=y.device).repeat(segments, signals, 1, 1)
    picks = k.new_zeros((segments, signals, most))
    taken = length.expand(segments, signals, n) == 0
    residual, enough = y, max(tolerance, floor) * y.flatten(2).norm(dim=2)  # [Q, J]
    going, picked = k > 0, 0
    for i in range(most):
        against = (residual.flatten(1, 2) @ matrix).unflatten(1, (signals, channels)).norm(dim=2)  # [Q, J, n]
        pick = (against / length.clamp_min(torch.finfo(y.dtype).tiny)).masked_fill(taken, -1).argmax(-1)  # [Q, J]
        column = matrix.mT.gather(1, pick[..., None].expand(-1, -1, m))  # [Q, J, m]
        direction, along = column, torch.zeros_like(basis[..., 0])
        for _ in range(2):
            inside = (basis @ direction[..., None])[..., 0]  # [Q, J, most]
            direction, along = direction - (inside[..., None, :] @ basis)[..., 0, :], along + inside
        left, size = direction.norm(dim=-1), column.norm(dim=-1)
        going = going & (i < k) & (residual.flatten(2).norm(dim=2) > enough) & (left > floor * size)
        if not bool(going.any()):
            break
        picked = i + 1
        unit = torch.where(going[..., None], direction / left.clamp_min(torch.finfo(y.dtype).tiny)[..., None], 0)
        basis[:, :, i], picks[:, :, i] = unit, pick
        triangle[..., i] = torch.where(going[..., None], along, triangle[..., i])
        triangle[..., i, i] = torch.where(going, left, 1)
        taken = taken.scatter(-1, pick[..., None], True)
        residual = residual - (residual @ unit[..., None]) * unit[..., None, :]
    weights = torch.linalg.solve_triangular(triangle, basis @ y.mT, upper=True)  # [Q, J, most, r]
    # Added, not stored: a signal that has stopped has picks of weight 0, which may name a column twice.
    s = y.new_zeros((segments, signals, channels, n))
    return s.scatter_add_(-1, picks[:, :, None].expand(-1, -1, channels, -1), weights.mT), picked
