"""Batch norm's running mean and variance, estimated anew: after pruning the old ones are those of another network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from cosparse.compress.score import placed


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replaces all running statistics by the plain mean over the batches of inputs, in place; nothing else changes.

    Only batch norms are in training mode meanwhile, so dropout is off. A batch norm that tracks nothing, or that never runs, stays.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.track_running_stats]
    if not norms:
        return
    was = {module: module.training for module in model.modules()}
    before = {norm: (norm.momentum, norm.running_mean.clone(), norm.running_var.clone()) for norm in norms}  # type: ignore[union-attr]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for x in batches:
            model(placed(x, model))
    finally:
        for norm in norms:
            norm.momentum = before[norm][0]
            if not norm.num_batches_tracked:
                norm.running_mean.copy_(before[norm][1])  # type: ignore[union-attr]
                norm.running_var.copy_(before[norm][2])  # type: ignore[union-attr]
        for module, training in was.items():
            module.training = training
