"""In which order the channels of a group can go: from the one that the others replace best to the one that must stay last.

    self-representation      how much a filter is used to write the others (`selfrep`; SSR+PSO), recomputed after each batch removed
    activations              the same of the channels' values on sample images instead of the filters
    magnitude                the filter's norm
    random                   the control

Where several layers make a group's channels (a residual sum), their filters stand below each other, each layer at total energy 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from cosparse.compress import selfrep
from cosparse.compress.prune.coupling import ChannelGroup, Member
from cosparse.compress.prune.moments import Moments
from cosparse.errors import Error

IMPORTANCES = ("self-representation", "activations", "magnitude", "random")
SHARE = 0.1
"""lambda / lambda_max of the self-representation."""


def orders(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    importance: str = "self-representation",
    *,
    scale: str = "raw",
    share: float = SHARE,
    follows: Mapping[str, str] | None = None,
    moments: Moments | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Group name -> its channels, the first to go first, [channels]; section by section where it has several, [sections x size].

    `scale` as in `selfrep.filters`; "bn" needs `follows`, layer -> the batch norm behind it, and leaves a layer that has none raw.
    """
    if importance not in IMPORTANCES:
        raise Error("importance", f"one of {', '.join(IMPORTANCES)}", repr(importance))
    modules, rng = dict(model.named_modules()), np.random.default_rng(seed)
    found = {}
    for group in groups:
        gram = None
        if importance == "activations":
            gram = _of_values(group, moments)
        elif importance != "random":
            gram = _of_filters(group, modules, scale, follows or {})
        size = group.channels // group.sections
        parts = []
        for start in range(0, group.channels, size):
            if gram is None:
                order = rng.permutation(size)
            elif importance == "magnitude":
                order = np.argsort(np.diag(gram)[start : start + size], kind="stable")
            else:
                order = selfrep.rank(gram[start : start + size, start : start + size], share)
            parts.append(start + order)
        found[group.name] = _one_of_each_last(np.concatenate(parts).astype(np.int64), group)
    return found


def _one_of_each_last(order: np.ndarray, group: ChannelGroup) -> np.ndarray:
    """The order with the best channel of each part at its end, so that no layer is left without any."""
    best = dict.fromkeys(int(order[np.isin(order, part)][-1]) for part in group.parts)
    last = [channel for channel in order.tolist() if channel in best]
    return np.array([channel for channel in order.tolist() if channel not in best] + last, dtype=np.int64)


def kept(group: ChannelGroup, order: np.ndarray, width: int) -> np.ndarray:
    """The `width` channels that stay, ascending: the last of each section's order."""
    size, each = group.channels // group.sections, width // group.sections
    return np.sort(np.concatenate([order[s * size : (s + 1) * size][size - each :] for s in range(group.sections)]))


def _of_filters(group: ChannelGroup, modules: Mapping[str, nn.Module], scale: str, follows: Mapping[str, str]) -> np.ndarray:
    """sum over the layers that make the channels of X^T X / trace, float64 [channels, channels]."""
    gram = np.zeros((group.channels, group.channels))
    for member in group.on("out"):
        module = modules[member.module]
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = module.weight.detach().double().cpu()
        rows = weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight
        norm = modules.get(follows.get(member.module, ""))
        if scale == "bn" and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and norm.weight is not None and norm.running_var is not None:
            gamma, variance = norm.weight.detach().double().cpu().numpy(), norm.running_var.double().cpu().numpy()
            x = selfrep.filters(rows.numpy(), "bn", gamma, variance)
        else:
            x = selfrep.filters(rows.numpy(), "raw" if scale == "bn" else scale)
        _add(gram, member, x.T @ x)
    return gram


def _of_values(group: ChannelGroup, moments: Moments | None) -> np.ndarray:
    if moments is None:
        raise Error("importance 'activations'", "moments of the channels", "none", "give the loader whose images they are taken on")
    gram = np.zeros((group.channels, group.channels))
    for member in group.on("in"):
        if member.module in moments.matrices:
            _add(gram, member, moments.matrices[member.module])
    return gram


def _add(gram: np.ndarray, member: Member, inner: np.ndarray) -> None:
    """Adds the inner products of a member's positions to those of the channels that they belong to, at trace 1."""
    trace = float(np.trace(inner[np.ix_(member.index, member.index)]))
    if trace > 0:
        times = np.bincount(member.root, minlength=len(gram))
        for turn in range(int(times.max())):  # a flattened channel has many positions; each channel's n-th ones go together
            places = _nth(member, turn)
            gram[np.ix_(member.root[places], member.root[places])] += inner[np.ix_(member.index[places], member.index[places])] / trace


def _nth(member: Member, turn: int) -> np.ndarray:
    """Where in the member each channel's position number `turn` stands."""
    order = np.argsort(member.root, kind="stable")
    starts = np.searchsorted(member.root[order], member.root[order], side="left")
    return order[np.arange(len(order)) - starts == turn]


def following(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, str]:
    """Layer -> the batch norm that reads its output, as the network does it on the inputs."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # the tensors stay alive here, so no two have one id
    found: dict[str, str] = {}

    def leaves(name: str):
        return lambda module, args, output: made.__setitem__(id(output), (name, output))

    def enters(name: str):
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if args and id(args[0]) in made:
                found[made[id(args[0])][0]] = name

        return hook

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            hooks.append(module.register_forward_hook(leaves(name)))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(enters(name)))
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
        for module, was in training.items():
            module.training = was
    return found
