"""Masks by magnitude in the transform domain, under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from cosparse.compress import given, masks
from cosparse.compress.account import candidates, costly, layer_times, left_dense, within
from cosparse.compress.budget import Budget
from cosparse.compress.count import Report, count
from cosparse.compress.fisher import Fisher
from cosparse.compress.grouping import group_filters
from cosparse.compress.hierarchy import Hierarchy, hierarchy
from cosparse.compress.layers import Choice, choose, refitted
from cosparse.compress.select import Selection
from cosparse.errors import Error


def assign(
    choices: Sequence[Choice],
    report: Report,
    budget: Budget,
    seed: int = 0,
    fisher: Fisher | None = None,
    groups: Hierarchy | None = None,
) -> Selection:
    """Attaches a mask, or the reason for having none, to every module of `choices`; the weights are left as they are.

    Blocks are scored by their energy or, where `fisher` is given, by sum F_i s_i^2. A layer whose sparse form would cost no fewer
    multiply-adds than its dense one is left dense and its share goes to the others; where time is bounded, also one that would take no
    less of it, and multiply-adds count only if they are bounded too; a forced transform stays. Fitted transforms are fitted to the present
    weights first, unless `fisher` was taken in the earlier ones. `groups`: choose in two levels. Raises Error where the budget cannot be
    met.
    """
    if fisher is None:
        choices = [refitted(choice) for choice in choices]
    forced = {choice.name for choice in choices if choice.forced}
    layers, dear = candidates(choices, budget, fisher)
    times = layer_times(choices, budget)
    count_flops = budget.latency is None or budget.flops is not None
    selection = within(report, layers, budget, seed, groups, left_dense(choices, dear))
    while found := costly(layers, selection, times, count_flops, forced):
        cheaper = [layer for layer in layers if layer.name not in found]
        try:
            again = within(report, cheaper, budget, seed, groups)
        except Error:
            break  # Dense, these layers would break the bounds that they meet as they are.
        dear |= found
        layers, selection = cheaper, again

    keep = {layer.name: kept for layer, kept in zip(layers, selection.keep, strict=True)}
    for choice in choices:
        if choice.transform is None or choice.name in dear:
            masks.leave_dense(choice.module, dear.get(choice.name, choice.why))
            continue
        kernel, _ = masks.geometry(choice.module)
        chosen = torch.from_numpy(keep[choice.name].copy())
        taps, rows = kernel[0] * kernel[1], groups.rows if groups else 0
        mask = masks.LayerMask(choice.transform, choice.block, chosen, choice.count.shape[0], taps, choice.why, rows)
        masks.attach(choice.module, mask)
    return selection


def thresholds(
    choices: Sequence[Choice],
    report: Report,
    budget: Budget,
    seed: int = 0,
    fisher: Fisher | None = None,
    groups: Hierarchy | None = None,
) -> dict[str, torch.Tensor]:
    """Layer name -> the norm below which the budget's rule would drop a block of the present weights, float32 [block rows].

    With `fisher` the rule cuts at a score, so the norm differs from block to block, [block rows, K]: that at which a block whose norm
    alone changed would have that score; infinite where the loss does not feel the block at all. With `groups` it differs too: infinite in
    closed columns, and in open ones at least that at which the column, all its blocks shrunk alike, would close. Layers that no mask makes
    faster are not cut: 0.
    """
    layers, hopeless = candidates(choices, budget, fisher)
    selection = within(report, layers, budget, seed, groups, left_dense(choices, hopeless))
    levels = {layer.name: level * layer.size for layer, level in zip(layers, selection.levels, strict=True)}
    cuts = {choice.name: torch.zeros(-(-choice.count.shape[0] // choice.block)) for choice in choices if choice.name in hopeless}
    plains = layers if fisher is None else candidates(choices, budget)[0]
    for index, (layer, plain) in enumerate(zip(layers, plains, strict=True)):
        square = levels[layer.name]
        if fisher is not None:
            level = np.broadcast_to(square[:, None], layer.energy.shape)
            unfelt = np.where(level > 0, np.inf, 0.0)
            square = np.divide(level * plain.energy, layer.energy, out=unfelt, where=layer.energy > 0)
        if selection.bounded is not None:
            share = selection.bounded[index]
            held = np.where(np.isinf(share), np.inf, plain.energy * np.minimum(share, 1.0))
            square = np.maximum(square if square.ndim == 2 else square[:, None], held)
        cuts[layer.name] = torch.from_numpy(np.sqrt(square).astype(np.float32))
    return cuts


def densities(
    choices: Sequence[Choice], report: Report, budget: Budget, seed: int = 0, groups: Hierarchy | None = None
) -> dict[str, float]:
    """Layer name -> share of its blocks that the budget's rule would keep of the present weights."""
    layers, hopeless = candidates(choices, budget)
    selection = within(report, layers, budget, seed, groups, left_dense(choices, hopeless))
    return {layer.name: float(keep.mean()) for layer, keep in zip(layers, selection.keep, strict=True)}


def impose(
    model: nn.Module,
    budget: Budget,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    block: int = 8,
    seed: int = 0,
    *,
    transform: str = "dct",
    layers: Mapping[str, str] | None = None,
    fisher: Fisher | None = None,
    group: bool = False,
    group_rows: int | None = None,
    slack: float | None = None,
) -> nn.Module:
    """A copy of the model with masks by magnitude and its weights projected onto them, untrained: a what-if, mainly for timing.

    `transform` is a text as in transforms/spec.py; `layers` overrides it for single layers by module path, also "dense".
    `fisher`: score blocks by the loss instead (what `cosparse.compress.fisher.fisher` returns for this model). `group`: first put filters
    that keep the same columns side by side (`cosparse.compress.grouping`); not together with `fisher`, whose order is the model's.
    `group_rows`: choose the blocks of so many consecutive filters, a multiple of `block`, with regard to each other, so that the columns
    that any of them keeps cost at most `slack` (1.5) times the budget's share (`cosparse.compress.hierarchy`).
    `str(count(model, example))` is the table of what was done.
    """
    model = given.taken(model)
    given.require_masks_hold(model)
    imposed = given.copied(model)
    report = count(imposed, example)
    choices = choose(imposed, report, transform, block, layers)
    groups = hierarchy(group_rows, slack, block)
    if group:
        if fisher is not None:
            raise Error("group", "no Fisher estimate, which is in the order before grouping", "one", "group_filters first, then fisher")
        group_filters(imposed, example, transform, block, densities(choices, report, budget, seed, groups), layers=layers)
    assign(choices, report, budget, seed, fisher, groups)
    for _, module, _ in masks.masked(imposed):
        masks.project(module)
    return imposed
