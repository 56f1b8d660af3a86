"""Filters removed by magnitude until a share of the multiply-adds is gone: a what-if for structured pruning, without training.

A group of channels is pruned if one layer alone makes it and another reads it: the inner layers of a residual block, every layer of a plain
network. Channels that several layers add up (residual connections) or that leave the network stay. `FilterPruner` does it for good.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from cosparse.compress import given
from cosparse.compress.budget import Budget
from cosparse.compress.count import as_tuple, count
from cosparse.compress.prune.costs import costs
from cosparse.compress.prune.coupling import coupled
from cosparse.compress.prune.cut import cut
from cosparse.compress.prune.order import kept, orders
from cosparse.compress.prune.rounding import Rounding
from cosparse.errors import Error

MULTIPLE = 8
"""Filters are left in this number or a multiple of it: a block row of the default block size, and no vector half empty."""


def impose_filters(
    model: nn.Module, flops: float, example: torch.Tensor | tuple[torch.Tensor, ...], *, multiple: int = MULTIPLE
) -> nn.Module:
    """A copy of the model without the filters of least magnitude, so that at least the share `flops` of its multiply-adds is gone.

    Every group loses the same share of its channels, up to rounding to `multiple`, and what the rounding took too much is given back.
    Masks come later, if wanted. Raises Error where the share cannot be reached, or where no layer can lose filters.
    """
    if not 0 <= flops < 1:
        raise Error("flops", "a share in [0, 1)", repr(flops), "0.6 removes 60 %")
    model = given.taken(model)
    report = count(model, example)
    coupling = coupled(model, as_tuple(example))
    groups = [group for group in coupling.free if group.makers == 1 and group.channels > multiple]
    if not groups:
        raise Error("filters", "a layer whose filters can go", "none", "residual channels and outputs are left as they are")
    cost, rounding = costs(model, report, groups), Rounding.of(groups, multiple)
    over = partial(cost.over, Budget(flops=flops))
    widths = lambda rate: rounding.widths(np.full(len(groups), rate))  # noqa: E731
    if over(widths(1.0)) > 1:
        most = 1 - cost.flops(widths(1.0)) / report.flops_dense
        expected = f"at most -{most:.1%} multiply-adds ({len(groups)} layers, {multiple} filters of each kept)"
        raise Error("filters", expected, f"-{flops:.1%}")
    low, high = 0.0, 1.0
    for _ in range(40):
        rate = (low + high) / 2
        low, high = (low, rate) if over(widths(rate)) <= 1 else (rate, high)
    left = rounding.filled(widths(high), over)
    order = orders(model, groups, "magnitude")
    stays = {group.name: kept(group, order[group.name], width) for group, width in zip(groups, left, strict=True) if width < group.channels}
    return cut(model, coupling.groups, stays).eval()
