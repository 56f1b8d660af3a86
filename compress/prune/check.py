"""Whether the groups are what the network does: readers that ignore channels must give what the network without them gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cosparse.compress import given
from cosparse.compress.prune.cut import cut, ignoring

if TYPE_CHECKING:
    from cosparse.compress.prune.coupling import ChannelGroup

CLOSE = 1e-8
"""Largest difference of the outputs, relative to the largest output: in float64 the order of sums moves far less, a wrong channel more."""


def disagreeing(model: nn.Module, inputs: tuple[torch.Tensor, ...], groups: Sequence[ChannelGroup], seed: int = 0) -> dict[str, str]:
    """Group name -> reason, of the groups that are not what the network does; all at once, and one by one where that fails."""
    rng = np.random.default_rng(seed)
    probe = _probe(model, seed)
    doubles = tuple(x.new_empty(x.shape).normal_(generator=_generator(seed)).double() if x.is_floating_point() else x for x in inputs)
    doubles = tuple(x.cpu() for x in doubles)
    whole = _outputs(probe, doubles)
    reasons: dict[str, str] = {}
    checked = [group for group in groups if _fits(group)]
    reasons |= {group.name: "its channels and the layers' do not match" for group in groups if not _fits(group)}
    kept = {group.name: some(group, rng) for group in checked}
    if _same(probe, doubles, whole, checked, kept):
        return reasons
    for group in checked:
        if not _same(probe, doubles, whole, [group], {group.name: kept[group.name]}):
            reasons[group.name] = "its channels are moved or mixed on the way (padding, reshape, normalisation)"
    return reasons


def _fits(group: ChannelGroup) -> bool:
    """Whether every channel has at least one position in a reader, none of them twice."""
    for member in group.members:
        if len(np.unique(member.index)) != len(member.index):
            return False
    return len(np.unique(np.concatenate([member.root for member in group.on("in")]))) == group.channels


def some(group: ChannelGroup, rng: np.random.Generator) -> np.ndarray:
    """About half of the channels at random, as many in each section, and one of each part."""
    size = group.channels // group.sections
    most = max(1, size // 2)
    chosen = np.concatenate([s * size + rng.permutation(size)[:most] for s in range(group.sections)])
    return np.union1d(chosen, [part[0] for part in group.parts]).astype(np.int64)


def _probe(model: nn.Module, seed: int) -> nn.Module:
    """The model in float64 with random scales and shifts where they might be 1 or 0: a channel times 0 would hide what is wrong."""
    probe = given.copied(model).cpu().double().eval()
    with torch.no_grad():
        for module in probe.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.weight is not None:
                generator = _generator(seed)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return probe


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _same(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    whole: list[torch.Tensor],
    groups: Sequence[ChannelGroup],
    kept: dict[str, np.ndarray],
) -> bool:
    try:
        small = _outputs(cut(model, groups, kept), inputs)
    except (RuntimeError, ValueError):  # a network that runs no more, or that checks its channels
        return False
    masked = _outputs(ignoring(model, groups, kept), inputs)
    if [y.shape for y in small] != [y.shape for y in whole]:
        return False
    return all(float((a - b).abs().max()) <= CLOSE * max(float(b.abs().max()), 1e-300) for a, b in zip(small, masked, strict=True))


def _outputs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    with torch.no_grad():
        outputs = model(*inputs)
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list | tuple) else [outputs]
    return [value for value in values if isinstance(value, torch.Tensor)]
