"""Thresholds on columns: a column is the r coefficients of a signal that are kept or dropped together, s [..., r, n].

soft(s, t) = s max(0, 1 - t / ||s_col||)       the proximal map of t ||s||_{2,1}
hard(s, k) = the k columns of largest norm     the projection onto k columns
"""

from __future__ import annotations

import torch


def sizes(s: torch.Tensor) -> torch.Tensor:
    """Norm of every column, [..., 1, n]."""
    return s.abs() if s.shape[-2] == 1 else s.square().sum(-2, keepdim=True).sqrt()


def soft(s: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Every column shorter by `threshold` (broadcast to [..., 1, n]), or zero."""
    if s.shape[-2] == 1:
        return s.sign() * (s.abs() - threshold).clamp_min(0)  # Without the division, exact up to one rounding.
    norm = sizes(s)
    return s * ((norm - threshold).clamp_min(0) / norm.clamp_min(torch.finfo(s.dtype).tiny))


def hard(s: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The k [...] columns of largest norm, everything else zero; of equal columns the first."""
    order = sizes(s).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(s.shape[-1], device=s.device).expand_as(order))
    return torch.where(rank < k[..., None, None], s, 0)
