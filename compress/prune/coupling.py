"""Which channels of a network can only go together: groups of (module, axis, position), and the reason where a group must stay whole.

The groups are torch-pruning's dependency graph (Fang et al. 2023): sums, concatenations, depthwise layers and classifiers couple channels.
It reads the graph of autograd and takes what it does not know for element-wise, so every group is checked here (`disagreeing`): a network
whose readers ignore a channel must give what the network without that channel gives. A group for which it does not, or that holds a module
which `cut` cannot make smaller, is left alone, and `why` says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from cosparse.compress import given
from cosparse.compress.count import as_tuple
from cosparse.compress.prune.check import disagreeing
from cosparse.compress.prune.cut import CUTTABLE, depthwise, width
from cosparse.compress.prune.dependency import dependencies

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers that make channels from others."""

Kept = Mapping[str, np.ndarray]
"""Group name -> its channels that stay, ascending."""


@dataclass(frozen=True, eq=False)
class Member:
    """Channels of one module: position `index[i]` on its `axis` ("out": filters; "in": what it reads) belongs to channel `root[i]`.

    A depthwise layer and a batch norm have the axis "out" only.
    """

    module: str
    axis: str
    index: np.ndarray  # [m]
    root: np.ndarray  # [m]

    def positions(self, channels: np.ndarray) -> np.ndarray:
        """The positions that belong to these channels of the group."""
        return self.index[np.isin(self.root, channels)]


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """`channels` that are made by the members of axis "out" and read by those of axis "in"; it is called after the first that makes them.

    `sections`: into so many equal runs of channels grouped convolutions cut them; each run keeps as many. `why`: the reason where the
    group must stay whole, else "".
    """

    name: str
    channels: int
    sections: int
    members: tuple[Member, ...]
    why: str = ""

    makers: int = 1

    def on(self, axis: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.axis == axis)

    @cached_property
    def parts(self) -> tuple[np.ndarray, ...]:
        """The channels of members that hold some of them only, as layers do whose outputs are joined: one of each must stay."""
        held = {tuple(np.unique(member.root).tolist()) for member in self.members}
        return tuple(np.array(channels) for channels in sorted(held) if len(channels) < self.channels)


@dataclass(frozen=True, eq=False)
class Coupling:
    """All groups of a network, in the order of the graph."""

    groups: tuple[ChannelGroup, ...]

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups that may lose channels."""
        return tuple(group for group in self.groups if not group.why)


def coupled(model: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> Coupling:
    """The groups of the model, each checked on random inputs of the example's shapes; the model itself is left as it was."""
    inputs, model = as_tuple(example), given.taken(model)
    groups = tuple(_reasoned(group, model) for group in _groups(model, inputs))
    reasons = disagreeing(model, inputs, [group for group in groups if not group.why])
    return Coupling(tuple(replace(group, why=group.why or reasons.get(group.name, "")) for group in groups))


def _groups(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Iterator[ChannelGroup]:
    traced = given.copied(model).eval()
    graph = dependencies(traced, inputs)
    layers = dict(traced.named_modules())
    names: dict[Any, str] = {module: name for name, module in layers.items()}
    for items in graph.get_all_groups():
        members: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        strange = ""
        for item in items:
            module = item.dep.target.module
            if isinstance(module, nn.Parameter):
                strange = strange or "a parameter outside any layer goes with it"
            if module not in names:
                continue  # additions, concatenations, reshapes: nothing of their own to cut
            two_sided = isinstance(module, LAYERS) and not depthwise(module)
            axis = "in" if two_sided and not graph.is_out_channel_pruning_fn(item.dep.handler) else "out"
            index, root = members.setdefault((names[module], axis), ([], []))
            known = set(zip(index, root, strict=True))
            fresh = [pair for pair in zip(item.idxs, item.root_idxs, strict=True) if pair not in known]
            index.extend(i for i, _ in fresh)
            root.extend(r for _, r in fresh)
        first = next(iter(members))[0]
        made = tuple(Member(name, axis, np.array(index), np.array(root)) for (name, axis), (index, root) in members.items())
        made_by = [layers[member.module] for member in made if member.axis == "out"]
        makers = sum(isinstance(module, LAYERS) and not depthwise(module) for module in made_by)
        yield ChannelGroup(first, len(items[0].idxs), 1, made, strange, makers)


def _reasoned(group: ChannelGroup, model: nn.Module) -> ChannelGroup:
    """The group with its sections, and with the reason why it must stay whole where the modules themselves tell it."""
    modules = dict(model.named_modules())
    owners = Counter(id(module._parameters.get("weight")) for module in modules.values())
    sections, why = 1, group.why
    for member in group.members:
        module = modules[member.module]
        why = why or _cannot(module, member, owners)
        parts = getattr(module, "groups", 1)
        if not isinstance(module, nn.Conv2d) or parts == 1 or depthwise(module):
            continue
        sections = math.lcm(sections, parts)
        if len(member.index) != group.channels or (member.index != member.root).any():
            why = why or f"{member.module} cuts them into {parts} parts that are not those of the group"
    if not why and not group.on("in"):
        why = "they leave the network"
    if not why and group.channels % sections == 0 and group.channels == sections:
        why = f"grouped convolution: one channel in each of {sections} parts"
    return replace(group, sections=sections, why=why)


def _cannot(module: nn.Module, member: Member, owners: Counter[int]) -> str:
    if not isinstance(module, CUTTABLE):
        return f"{member.module} ({type(module).__name__}) cannot be made smaller"
    if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
        return f"{member.module} is a grouped transposed convolution"
    weight = module._parameters.get("weight")
    if isinstance(getattr(module, "weight", None), torch.Tensor) and not isinstance(module.weight, nn.Parameter):
        return f"the weight of {member.module} is computed from other parameters"
    if int(member.index.max()) >= width(module, member.axis):
        return f"{member.module} has other channels than the group: they are moved or mixed on the way"
    if weight is not None and owners[id(weight)] > 1:
        return f"{member.module} shares its weight with another layer"
    return ""
