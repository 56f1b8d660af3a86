"""Filters removed by magnitude until a share of the multiply-adds is gone: a what-if for structured pruning, without training.

Which layers lose a channel together is torch-pruning's dependency graph. A group of layers is pruned if one layer alone makes its
channels and another reads them: the inner layers of a residual block, every layer of a plain network. Channels that several layers add
up (residual connections) or that leave the network stay.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cosparse.compress.count import Report, as_tuple, count
from cosparse.errors import Error

MULTIPLE = 8
"""Filters are left in this number or a multiple of it: a block row of the default block size, and no vector half empty."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Channels that go together: `makers` have them as their filters (one layer, and depthwise ones after it), `readers` maps layer names
    to input features per channel."""

    root: nn.Module
    makers: tuple[str, ...]
    channels: int
    readers: dict[str, int]
    ranking: list[int]  # channels, the least important first


def impose_filters(
    model: nn.Module, flops: float, example: torch.Tensor | tuple[torch.Tensor, ...], *, multiple: int = MULTIPLE
) -> nn.Module:
    """A copy of the model without the filters of least magnitude, so that at least the share `flops` of its multiply-adds is gone.

    Every group loses the same share of its channels, up to rounding to `multiple`. Masks come later, if wanted. Raises Error where the
    share cannot be reached, where no layer can lose filters, or where the network runs no more without them.
    """
    if not 0 <= flops < 1:
        raise Error("flops", "a share in [0, 1)", repr(flops), "0.6 removes 60 %")
    pruned = copy.deepcopy(model).eval()
    inputs = as_tuple(example)
    report = count(pruned, example)
    graph = dependencies(pruned, inputs)
    groups = _groups(graph, pruned)
    if not groups:
        raise Error("filters", "a layer whose filters can go", "none", "residual channels and outputs are left as they are")
    kept = _kept(groups, report, flops, multiple)
    shapes = _output_shapes(pruned, inputs)
    for group, keep in zip(groups, kept, strict=True):
        drop = group.ranking[: group.channels - keep]
        if drop:
            graph.get_pruning_group(group.root, graph.get_pruner_of_module(group.root).prune_out_channels, drop).prune()
    try:
        after = _output_shapes(pruned, inputs)
    except RuntimeError as error:
        raise Error("filters", "a network that runs without them", str(error), "its channels depend on each other unseen") from error
    reduction = 1 - count(pruned, example).flops_dense / report.flops_dense
    if after != shapes or reduction < flops:
        raise Error("filters", f"outputs {shapes} and -{flops:.1%} multiply-adds", f"{after} and -{reduction:.1%}")
    return pruned


def dependencies(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """torch-pruning's dependency graph of the model, all of whose parameters then require gradients: give it a copy."""
    import torch_pruning

    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # the dependencies are read off autograd's graph
    with torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(model, inputs)


def _groups(graph: Any, model: nn.Module) -> list[_Group]:
    """The groups that one layer makes and others read, in the order of the graph."""
    import torch_pruning

    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    names = {module: name for name, module in model.named_modules()}
    found = []
    for group in graph.get_all_groups():
        makers, followers = set(), set()
        readers: dict[str, int] = defaultdict(int)
        for dependency, features in group:
            module = dependency.target.module
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                continue
            if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
                followers.add(names[module])
            elif graph.is_out_channel_pruning_fn(dependency.handler):
                makers.add(module)
            else:
                readers[names[module]] += len(features)
        if len(makers) != 1 or not readers or any(getattr(maker, "groups", 1) > 1 for maker in makers):
            continue
        score = importance(group)
        if score is None:
            continue
        root, channels = group[0].dep.target.module, len(group[0].idxs)
        filters = (*(names[maker] for maker in makers), *sorted(followers))
        per_channel = {name: size // channels for name, size in readers.items()}
        found.append(_Group(root, filters, channels, per_channel, torch.argsort(score, stable=True).tolist()))
    return found


def _kept(groups: Sequence[_Group], report: Report, flops: float, multiple: int) -> list[int]:
    """Channels that each group keeps: the smallest common rate that removes enough, then as many multiples back as that allows."""
    bound = (1 - flops) * report.flops_dense

    def at(rate: float) -> list[int]:
        return [min(g.channels, max(multiple, multiple * round(g.channels * (1 - rate) / multiple))) for g in groups]

    if (least := _flops(groups, report, at(1.0))) > bound:
        most = 1 - least / report.flops_dense
        raise Error(
            "filters", f"at most -{most:.1%} multiply-adds ({len(groups)} layers, {multiple} filters of each kept)", f"-{flops:.1%}"
        )
    low, high = 0.0, 1.0
    for _ in range(40):
        rate = (low + high) / 2
        low, high = (low, rate) if _flops(groups, report, at(rate)) <= bound else (rate, high)
    kept = at(high)
    wanted = [g.channels * (1 - high) for g in groups]
    for index in sorted(range(len(groups)), key=lambda i: (kept[i] - wanted[i]) / groups[i].channels):
        more = [*kept[:index], min(groups[index].channels, kept[index] + multiple), *kept[index + 1 :]]
        if _flops(groups, report, more) <= bound:
            kept = more
    return kept


def _flops(groups: Sequence[_Group], report: Report, kept: Sequence[int]) -> float:
    """Multiply-adds of the network if the groups keep so many channels. Exact: a layer's cost is filters x input channels x the rest."""
    filters = {name: keep for group, keep in zip(groups, kept, strict=True) for name in group.makers}
    gone: dict[str, int] = defaultdict(int)
    for group, keep in zip(groups, kept, strict=True):
        for name, features in group.readers.items():
            gone[name] += features * (group.channels - keep)
    total = report.flops_functional
    for layer in report.layers:
        outer, inner = (1, 0) if layer.kind == "ConvTranspose2d" else (0, 1)
        share = filters.get(layer.name, layer.shape[outer]) / layer.shape[outer]
        total += layer.flops_dense * share * (1 - gone[layer.name] / layer.shape[inner])
    return total


def _output_shapes(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[list[int]]:
    with torch.no_grad():
        outputs = model(*inputs)
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list | tuple) else [outputs]
    return [list(value.shape) for value in values]
