"""Filters side by side that keep the same columns: a permutation of channels that raises what r x 1 blocks hold and changes no output.

The filters of a layer may stand in any order if everything that follows them (normalisation, bias, depthwise layers) and the input channels
of whatever reads them are put in the same order. Which these are is torch-pruning's dependency graph; layers whose outputs are added share
one order, which is then the best for all of them together (`cosparse.compress.cluster`). The consumers' columns move, their blocks do not.

Nothing rests on the graph being right: every order is tried on a float64 copy first, and one that changes an output is left out, with the
reason in the report. So are channels that leave the network, and those that something reads in an order of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from cosparse.compress import given, masks, transforms
from cosparse.compress.cluster import Profile, cluster, kept_energy
from cosparse.compress.count import as_tuple, count
from cosparse.compress.layers import Choice, choose
from cosparse.compress.prune.dependency import dependencies
from cosparse.compress.transforms import Transform
from cosparse.errors import Error

OUTSIDE = "its channels leave the network, or nothing reads them"
UNSEEN = "its channels depend on each other in a way the dependency graph does not see"
NO_BETTER = "no better order found"

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Grouped:
    """One layer: shares of its energy that the best blocks at `density` hold, before and after; `why` it kept its order, if it did."""

    name: str
    density: float
    before: float
    after: float
    why: str = ""


@dataclass(frozen=True)
class GroupReport:
    """What grouping did, in the order of the network."""

    layers: tuple[Grouped, ...]

    def __str__(self) -> str:
        lines = [f"{'layer':32} {'density':>8} {'kept before':>12} {'after':>8}"]
        for layer in self.layers:
            lines.append(f"{layer.name:32} {layer.density:8.3f} {layer.before:12.4f} {layer.after:8.4f}  {layer.why}".rstrip())
        before, after = (float(np.mean([getattr(layer, name) for layer in self.layers] or [0.0])) for name in ("before", "after"))
        return "\n".join([*lines, f"{'mean':32} {'':8} {before:12.4f} {after:8.4f}"])


@dataclass(frozen=True, eq=False)
class _Move:
    """A tensor of the state, one of its axes, and for each channel of the group the places along that axis, int [channels, places]."""

    tensor: str
    axis: int
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class _Group:
    """Channels that share one order: the layers that make them and every tensor that follows it; or why they cannot move."""

    makers: tuple[str, ...]
    channels: int
    moves: tuple[_Move, ...] = ()
    why: str = ""


def group_filters(
    model: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    transform: str = "dct",
    block: int = 8,
    density: float | Mapping[str, float] = 0.2,
    *,
    layers: Mapping[str, str] | None = None,
) -> GroupReport:
    """Reorders the filters of `model`, in place, so that blocks of `block` filters keep more energy; its outputs stay the same.

    `density`: the share of blocks that will be kept, one for all layers or by layer name (others: 0.2). `layers` as in `impose`. Do it
    before training starts: an optimizer's momentum does not follow. Deterministic. Raises Error for a model that has masks already.
    """
    model = given.taken(model)
    if any(True for _ in masks.masked(model)):
        raise Error("group_filters", "a model without masks", "one that has them", "group first, then choose masks")
    shares = density if isinstance(density, Mapping) else {}
    usual = 0.2 if isinstance(density, Mapping) else density
    if bad := [value for value in (usual, *shares.values()) if not 0 < value <= 1]:
        raise Error("density", "a share in (0, 1]", repr(bad[0]), "0.2 keeps 20 %")
    choices = [choice for choice in choose(model, count(model, example), transform, block, layers) if choice.transform is not None]
    profiles = {choice.name: _profile(choice, choice.transform, shares.get(choice.name, usual)) for choice in choices if choice.transform}
    twin = given.copied(model).double().eval()
    inputs = tuple(x.detach().double() if x.is_floating_point() else x for x in as_tuple(example))
    probe = tuple(_random_like(x) for x in inputs)
    reasons: dict[str, str] = {}
    after: dict[str, float] = {}
    wanted = _outputs(twin, probe)
    for group in _groups(twin, inputs, set(profiles)):
        mine = [profiles[name] for name in group.makers if name in profiles]
        why = group.why
        if not why:
            order = cluster(mine)
            why = NO_BETTER if (order == np.arange(group.channels)).all() else _tried(twin, model, group, order, probe, wanted)
        for name in group.makers:
            reasons[name] = why
            if not why and name in profiles:
                after[name] = kept_energy(profiles[name], order)
    rows = []
    for name, profile in profiles.items():
        before = kept_energy(profile)
        rows.append(Grouped(name, profile.density, before, after.get(name, before), reasons.get(name, OUTSIDE)))
    return GroupReport(tuple(rows))


def _profile(choice: Choice, transform: Transform, density: float) -> Profile:
    weight = choice.module.weight.detach().double().cpu()
    if not bool(weight.isfinite().all()):
        raise Error(f"weight of {choice.name}", "finite values", "NaN or infinity")
    energy = transforms.forward(weight, transform).square().flatten(1).numpy()
    return Profile(energy, choice.block, density)


def _random_like(x: torch.Tensor) -> torch.Tensor:
    """Two images of noise, of the example's size: zeros or a constant would hide a wrong order."""
    if not x.is_floating_point():
        return x
    return torch.randn((min(2, x.shape[0]), *x.shape[1:]), generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [y for y in tree_leaves(model(*inputs)) if isinstance(y, torch.Tensor)]


def _tried(
    twin: nn.Module, model: nn.Module, group: _Group, order: np.ndarray, probe: tuple[torch.Tensor, ...], wanted: Sequence[torch.Tensor]
) -> str:
    """Puts the group in order in the copy and, if no output changes beyond rounding, in the model; else says why not."""
    _permute(twin, group, order)
    try:
        same = all(_close(got, want) for got, want in zip(_outputs(twin, probe), wanted, strict=True))
    except RuntimeError:  # a shape that no longer fits
        same = False
    if not same:
        _permute(twin, group, np.argsort(order))
        return UNSEEN
    _permute(model, group, order)
    return ""


def _close(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Within what another order of summation may change: relative to the largest output, far above eps, far below any real difference."""
    return got.shape == want.shape and float((got - want).abs().max()) <= 2**20 * EPS * float(want.abs().max())


@torch.no_grad()
def _permute(model: nn.Module, group: _Group, order: np.ndarray) -> None:
    """Channel i takes what channel order[i] was, in every tensor of the group. Values are moved, never computed with."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for move in group.moves:
        tensor = state[move.tensor]
        source = np.arange(tensor.shape[move.axis])
        source[move.places.ravel()] = move.places[order].ravel()
        tensor.copy_(tensor.index_select(move.axis, torch.from_numpy(source).to(tensor.device)))


def _groups(model: nn.Module, inputs: tuple[torch.Tensor, ...], wanted: set[str]) -> list[_Group]:
    """The groups of channels with a maker among `wanted`, in the order of the graph."""
    graph = dependencies(model, inputs)
    names = {module: name for name, module in model.named_modules()}
    found = []
    for items in graph.get_all_groups():
        group = _group(graph, items, names)
        if wanted & set(group.makers):
            found.append(group)
    return found


def _group(graph: Any, items: Any, names: Mapping[nn.Module, str]) -> _Group:
    channels = len(items[0].idxs)
    makers, moves, why = [], [], ""
    read = False
    for item in items:
        module, name = item.dep.target.module, names.get(item.dep.target.module)
        outward = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
        places = _places(item, channels)
        if isinstance(module, masks.Layer) and outward and not _depthwise(module):
            makers.append(str(name))
        if type(module).__module__.startswith("torch_pruning."):
            continue  # an operation without tensors of its own
        axes = None if name is None else _axes(module, outward)
        if axes is None:
            why = why or f"{type(module).__name__} follows its channels in a way that is not known"
        elif places is None or (outward and any(places.size != size for size in _sizes(module, axes))):
            why = why or f"{name} holds only some of its channels"
        else:
            moves += [_Move(f"{name}.{key}" if name else key, axis, places) for key, axis in axes]
        read = read or (isinstance(module, masks.Layer) and not outward)
    if not why and not read:
        why = OUTSIDE
    if not why and len({move.tensor + str(move.axis) for move in moves}) != len(moves):
        why = "a layer reads its channels twice"
    return _Group(tuple(makers), channels, () if why else tuple(moves), why)


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def _axes(module: nn.Module, outward: bool) -> list[tuple[str, int]] | None:
    """(tensor, axis) of the module's own tensors that lie along the channels; None where they have no order that could be changed."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        if getattr(module, "groups", 1) > 1 and not _depthwise(module):
            return None
        if not isinstance(module._parameters.get("weight"), nn.Parameter):
            return None
        first = outward != isinstance(module, nn.ConvTranspose2d) or _depthwise(module)
        along_filters = [("bias", 0)] if outward and module.bias is not None else []
        return [("weight", 0 if first else 1), *along_filters]
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.PReLU):
        tensors = {**module._parameters, **module._buffers}
        return [(key, 0) for key, tensor in tensors.items() if tensor is not None and tensor.ndim == 1 and tensor.numel() > 1]
    return None


def _sizes(module: nn.Module, axes: Sequence[tuple[str, int]]) -> list[int]:
    return [int(getattr(module, key).shape[axis]) for key, axis in axes]


def _places(item: Any, channels: int) -> np.ndarray | None:
    """Where the group's channels lie in this tensor, int [channels, places]; None where they are not all there equally often."""
    roots = item.root_idxs if item.root_idxs is not None else item.idxs
    if len(roots) != len(item.idxs) or len(item.idxs) % channels:
        return None
    order = np.argsort(np.asarray(roots), kind="stable")
    per_channel = np.asarray(item.idxs)[order].reshape(channels, -1)
    if not (np.asarray(roots)[order].reshape(channels, -1) == np.arange(channels)[:, None]).all():
        return None
    return per_channel
