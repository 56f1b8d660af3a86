"""A network without some of its channels: plain layers of the same kind, smaller, with the weights of what stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cosparse.compress import given
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.prune.coupling import ChannelGroup, Kept

CUTTABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)

Gone = dict[tuple[str, str], np.ndarray]
"""(module, axis) -> positions that go, ascending."""


def depthwise(module: nn.Module) -> bool:
    """Whether each filter reads a channel of its own: it then goes with that channel."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def gone(groups: Iterable[ChannelGroup], kept: Kept) -> Gone:
    """What goes from each module where the groups keep these channels; a group that is not named stays whole.

    Raises Error for a group that is unknown or must stay whole, and for channels that it has not, or keeps none of.
    """
    known = {group.name: group for group in groups}
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for name, channels in kept.items():
        group = known.get(name)
        if group is None or group.why:
            raise Error(f"kept[{name!r}]", "a group that may lose channels", group.why if group else "no such group")
        _require(group, np.asarray(channels))
        dropped = np.setdiff1d(np.arange(group.channels), channels)
        for member in group.members:
            found[member.module, member.axis].append(member.positions(dropped))
    return {key: np.unique(np.concatenate(parts)) for key, parts in found.items()}


def _require(group: ChannelGroup, channels: np.ndarray) -> None:
    about = f"kept[{group.name!r}]"
    if not len(channels) or (np.diff(channels) <= 0).any() or channels[0] < 0 or channels[-1] >= group.channels:
        raise Error(about, f"ascending channels out of {group.channels}, at least one", str(channels.tolist())[:80])
    if any(not np.isin(part, channels).any() for part in group.parts):
        raise Error(about, f"a channel of each of the {len(group.parts)} layers that hold a part of them", str(channels.tolist())[:80])
    each = np.bincount(channels // (group.channels // group.sections), minlength=group.sections)
    if (each != each[0]).any():
        raise Error(about, f"as many channels in each of {group.sections} sections", f"{each.min()} to {each.max()}")


def cut(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept) -> nn.Module:
    """A copy of the model whose groups keep exactly these channels."""
    small = given.copied(model)
    modules = dict(small.named_modules())
    for (name, axis), positions in gone(groups, kept).items():
        if len(positions):
            without(modules[name], axis, positions)
    return small


def ignoring(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept) -> nn.Module:
    """A copy of the model, of the old size, in which whoever reads a channel that goes has weight 0 for it."""
    masked = given.copied(model)
    modules = dict(masked.named_modules())
    with torch.no_grad():
        for (name, axis), positions in gone(groups, kept).items():
            if axis == "in":
                _blind(modules[name], torch.from_numpy(positions))
    return masked


def _blind(module: nn.Module, positions: torch.Tensor) -> None:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    if isinstance(module, nn.ConvTranspose2d):
        weight[positions] = 0
    elif isinstance(module, nn.Conv2d) and module.groups > 1:
        section, place = positions // weight.shape[1], positions % weight.shape[1]
        rows = module.out_channels // module.groups
        for s, p in zip(section.tolist(), place.tolist(), strict=True):
            weight[s * rows : (s + 1) * rows, p] = 0
    else:
        weight[:, positions] = 0


def without(module: nn.Module, axis: str, positions: np.ndarray) -> None:
    """Takes these positions of an axis from the module, in place; gradients are not kept."""
    keep = torch.from_numpy(np.setdiff1d(np.arange(width(module, axis)), positions))
    if isinstance(module, nn.Conv2d):
        _without_conv(module, axis, keep)
    elif isinstance(module, nn.ConvTranspose2d):
        _take(module, keep, ("weight",), int(axis == "out"))
        if axis == "out":
            _take(module, keep, ("bias",))
            module.out_channels = len(keep)
        else:
            module.in_channels = len(keep)
    elif isinstance(module, nn.Linear):
        if axis == "out":
            _take(module, keep, ("weight", "bias"))
            module.out_features = len(keep)
        else:
            _take(module, keep, ("weight",), 1)
            module.in_features = len(keep)
    elif isinstance(module, nn.PReLU):
        if module.num_parameters > 1:
            _take(module, keep, ("weight",))
            module.num_parameters = len(keep)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        _take(module, keep, ("weight", "bias", "running_mean", "running_var"))
        module.num_features = len(keep)
    else:
        raise TypeError(type(module).__name__)


def _without_conv(module: nn.Conv2d, axis: str, keep: torch.Tensor) -> None:
    if axis == "out":
        if depthwise(module):
            module.groups = module.in_channels = len(keep)
        _take(module, keep, ("weight", "bias"))
        module.out_channels = len(keep)
        return
    if module.groups == 1:
        _take(module, keep, ("weight",), 1)
    else:  # each section of filters reads its own section of channels
        size, rows = module.in_channels // module.groups, module.weight.shape[0] // module.groups
        places = keep.to(module.weight.device)
        parts = [
            module.weight.detach()[s * rows : (s + 1) * rows].index_select(1, places[places // size == s] - s * size)
            for s in range(module.groups)
        ]
        module.weight = nn.Parameter(torch.cat(parts), requires_grad=module.weight.requires_grad)
    module.in_channels = len(keep)


def _take(module: nn.Module, keep: torch.Tensor, names: tuple[str, ...], axis: int = 0) -> None:
    """Keeps these positions of the axis of each parameter or buffer that the module has under the names."""
    for name in names:
        value: torch.Tensor | None = getattr(module, name)
        if value is None:
            continue
        taken = value.detach().index_select(axis, keep.to(value.device)).clone()
        setattr(module, name, nn.Parameter(taken, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else taken)


def width(module: nn.Module, axis: str) -> int:
    """How many positions the axis has."""
    if isinstance(module, nn.Linear):
        return module.out_features if axis == "out" else module.in_features
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.out_channels if axis == "out" else module.in_channels
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    return int(module.num_features)  # type: ignore[arg-type]
