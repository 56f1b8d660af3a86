"""Second moments of what layers read, and the fold that lets them do without some of it.

    A [samples, C]: the values that a layer reads, one row an image and pixel.   M = A^T A / samples
    B = (M_SS + ridge mu I)^-1 M_SR,  mu the mean of M's diagonal                S stays, R goes
    W_S <- W_S + W_R B^T                                                       for every tap

so that what the channels of R carried is carried by those of S as well as a linear map can do it. The ridge is what few images make of M:
its smallest eigenvalues are noise. It is that of the shrinkage (1 - rho) M + rho mu I that is closest to the true moments (Chen, Wiesel,
Eldar and Hero 2010, equation 23, "OAS"), counted in images: the pixels of one image say much the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import nn

from cosparse.compress.prune.coupling import ChannelGroup, Kept
from cosparse.compress.prune.cut import depthwise, gone, width
from cosparse.compress.score import placed


@dataclass(frozen=True, eq=False)
class Moments:
    """Layer -> M, float64 [C, C] of its inputs, and layer -> ridge, in parts of the mean of M's diagonal."""

    matrices: Mapping[str, np.ndarray]
    ridges: Mapping[str, float]


MOST = 4096
"""Inputs of a layer beyond which it gets no moments: 128 MB at float64. Flattened images are such; their layers are not folded."""

RIDGE = 1e-4
"""The least: below it float32 says nothing."""


@torch.no_grad()
def moments(model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[torch.Tensor]) -> Moments:
    """Those of every layer that reads a group, from the network as it is, in evaluation mode, over the batches of inputs."""
    modules = dict(model.named_modules())
    readers = {member.module for group in groups for member in group.on("in")}
    readers = {name for name in readers if width(modules[name], "in") <= MOST and not depthwise(modules[name])}
    sums: dict[str, torch.Tensor] = {}
    samples, images = dict.fromkeys(readers, 0), 0

    def observe(name: str):
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0].detach().float()
            rows = x.movedim(1, -1).reshape(-1, x.shape[1]) if x.ndim == 4 else x.reshape(-1, x.shape[-1])
            sums[name] = sums.get(name, 0) + (rows.T @ rows).double()
            samples[name] += len(rows)

        return hook

    hooks = [modules[name].register_forward_pre_hook(observe(name)) for name in sorted(readers)]
    was = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for x in batches:
            model(placed(x, model))
            images += len(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was.items():
            module.training = training
    matrices = {name: (total / samples[name]).cpu().numpy() for name, total in sums.items()}
    return Moments(matrices, {name: ridge(inner, images) for name, inner in matrices.items()})


def ridge(inner: np.ndarray, images: int) -> float:
    """rho / (1 - rho) of the shrinkage, from M of so many images; RIDGE at least, 1 at most."""
    channels, trace, squares = len(inner), float(np.trace(inner)), float((inner**2).sum())
    spread = squares - trace**2 / channels  # 0 where M is a multiple of I
    rho = ((1 - 2 / channels) * squares + trace**2) / max((images + 1 - 2 / channels) * spread, 1e-300)
    return float(np.clip(rho / max(1 - rho, 1e-300), RIDGE, 1.0)) if rho < 1 else 1.0


@torch.no_grad()
def fold(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept, moments: Moments) -> None:
    """Adds to the weights of what stays what the channels that are about to go carried, in place; layers without moments stay."""
    modules = dict(model.named_modules())
    for (name, axis), positions in gone(groups, kept).items():
        module = modules[name]
        if axis != "in" or name not in moments.matrices or not len(positions):
            continue
        transposed, parts = isinstance(module, nn.ConvTranspose2d), getattr(module, "groups", 1)
        weight: torch.Tensor = module.weight.data.transpose(0, 1) if transposed else module.weight.data
        size, rows = width(module, "in") // parts, weight.shape[0] // parts
        for part in range(parts):
            inner = moments.matrices[name][part * size : (part + 1) * size, part * size : (part + 1) * size]
            dropped = positions[(positions >= part * size) & (positions < (part + 1) * size)] - part * size
            stays = np.setdiff1d(np.arange(size), dropped)
            b = torch.from_numpy(replacement(inner, stays, dropped, moments.ridges[name])).to(weight)  # [S, R]
            block = weight[part * rows : (part + 1) * rows]
            block[:, stays] += torch.einsum("or...,sr->os...", block[:, dropped], b)


def replacement(inner: np.ndarray, stays: np.ndarray, dropped: np.ndarray, parts: float = RIDGE) -> np.ndarray:
    """B [S, R]: each dropped channel as the best linear combination of those that stay; 0 where they are all 0. `parts`: the ridge."""
    system = inner[np.ix_(stays, stays)].copy()
    scale = float(np.trace(system)) / max(1, len(stays))
    if scale <= 0:
        return np.zeros((len(stays), len(dropped)))
    system[np.diag_indices_from(system)] += parts * scale
    return linalg.solve(system, inner[np.ix_(stays, dropped)], assume_a="pos")
