"""Masks by magnitude in the transform domain, under a budget."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from math import inf

import numpy as np
import torch
from torch import nn

from cosparse.compress import masks, transforms
from cosparse.compress.budget import FLOOR, Budget, Candidates, Selection, least_cost, select, select_share
from cosparse.compress.count import Report, count
from cosparse.compress.layers import Choice, choose, refitted
from cosparse.compress.transforms import Transform
from cosparse.errors import Error


def _candidates(choice: Choice, transform: Transform) -> Candidates:
    """The blocks of one layer, scored by the energy of their coefficients."""
    energy = masks.block_energy(choice.module.weight, transform, choice.block).numpy()
    if not np.isfinite(energy).all():
        raise Error(f"weight of {choice.name}", "finite values", "NaN or infinity")
    size = np.minimum(choice.block, choice.count.shape[0] - choice.block * np.arange(energy.shape[0]))
    kernel, stride = masks.geometry(choice.module)
    pixels, unit = choice.count.pixels, transform.unit
    basis = transforms.basis_cost(transform, kernel, stride) * unit * pixels
    behind = transforms.output_cost(transform, choice.count.shape[0]) * pixels
    matrices = transforms.stored(transform)
    return Candidates(choice.name, energy, size.astype(np.float64), pixels, basis, kernel[0] * kernel[1] * unit, matrices, behind)


def _within(report: Report, layers: Sequence[Candidates], budget: Budget, seed: int) -> Selection:
    """Selects within what the budget leaves for these layers once all the others are paid for; a density asks for no such account."""
    if budget.density is not None:
        return select_share(layers, budget.density, seed)
    names = {layer.name for layer in layers}
    inside = [layer for layer in report.layers if layer.name in names]
    fixed_params = report.params_dense - sum(layer.params_dense for layer in inside)
    fixed_flops = report.flops_dense - sum(layer.flops_dense for layer in inside)
    params = inf if budget.params is None else (1 - budget.params) * report.params_dense - fixed_params
    flops = inf if budget.flops is None else (1 - budget.flops) * report.flops_dense - fixed_flops
    least_params, least_flops = least_cost(layers, seed=seed)
    if least_params > params or least_flops > flops:
        asked = ((name, share) for name, share in (("flops", budget.flops), ("params", budget.params)) if share is not None)
        reach = {
            "flops": 1 - (fixed_flops + least_flops) / max(report.flops_dense, 1),
            "params": 1 - (fixed_params + least_params) / max(report.params_dense, 1),
        }
        most = ", ".join(f"{name} -{max(0.0, share):.1%}" for name, share in reach.items())
        expected = f"at most {most} (with {len(layers)} layers masked, {FLOOR:.0%} of each kept)"
        raise Error("budget", expected, ", ".join(f"{name} -{share:.1%}" for name, share in asked), "ask for less or mask more layers")
    return select(layers, params, flops, seed=seed)


def assign(choices: Sequence[Choice], report: Report, budget: Budget, seed: int = 0) -> Selection:
    """Attaches a mask, or the reason for having none, to every module of `choices`; the weights are left as they are.

    Fitted transforms are fitted to the present weights first. A layer whose sparse form would cost no fewer multiply-adds than its dense
    one is left dense and its share goes to the others, unless its transform is forced. Raises Error where the budget cannot be met.
    """
    choices = [refitted(choice) for choice in choices]
    forced = {choice.name for choice in choices if choice.forced}
    open_choices = [(choice, choice.transform) for choice in choices if choice.transform is not None]
    layers = [_candidates(choice, transform) for choice, transform in open_choices]
    selection = _within(report, layers, budget, seed)
    dear: dict[str, str] = {}
    while costly := _costly(layers, selection, forced):
        cheaper = [layer for layer in layers if layer.name not in costly]
        try:
            again = _within(report, cheaper, budget, seed)
        except Error:
            break  # Dense, these layers would break the parameter budget that they meet as they are.
        dear |= costly
        layers, selection = cheaper, again

    keep = {layer.name: kept for layer, kept in zip(layers, selection.keep, strict=True)}
    for choice in choices:
        if choice.transform is None or choice.name in dear:
            masks.leave_dense(choice.module, dear.get(choice.name, choice.why))
            continue
        kernel, _ = masks.geometry(choice.module)
        chosen = torch.from_numpy(keep[choice.name].copy())
        mask = masks.LayerMask(choice.transform, choice.block, chosen, choice.count.shape[0], kernel[0] * kernel[1], choice.why)
        masks.attach(choice.module, mask)
    return selection


def thresholds(choices: Sequence[Choice], report: Report, budget: Budget, seed: int = 0) -> dict[str, torch.Tensor]:
    """Layer name -> the norm below which the budget's rule would drop a block of the present weights, float32 [block rows]."""
    layers = [_candidates(choice, choice.transform) for choice in choices if choice.transform is not None]
    selection = _within(report, layers, budget, seed)
    cuts = {layer.name: np.sqrt(level * layer.size) for layer, level in zip(layers, selection.levels, strict=True)}
    return {name: torch.from_numpy(cut.astype(np.float32)) for name, cut in cuts.items()}


def _costly(layers: Sequence[Candidates], selection: Selection, forced: Collection[str]) -> dict[str, str]:
    """Layer name -> reason, for the layers that a mask makes no cheaper; forced ones are none of them."""
    reasons = {}
    for layer, keep in zip(layers, selection.keep, strict=True):
        kept = float((keep * layer.size[:, None]).sum()) * layer.pixels
        step = masks.units_used(keep, layer.taps) * layer.basis + layer.fixed_flops
        dense = float(layer.size.sum()) * keep.shape[1] * layer.pixels
        if kept + step >= dense and layer.name not in forced:
            reasons[layer.name] = f"sparse it would cost {(kept + step) / dense:.0%} of dense (basis step {step / dense:.0%})"
    return reasons


def impose(
    model: nn.Module,
    budget: Budget,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    block: int = 8,
    seed: int = 0,
    *,
    transform: str = "dct",
    layers: Mapping[str, str] | None = None,
) -> nn.Module:
    """A copy of the model with masks by magnitude and its weights projected onto them, untrained: a what-if, mainly for timing.

    `transform` is a text as in transforms/spec.py; `layers` overrides it for single layers by module path, also "dense".
    `str(count(model, example))` is the table of what was done.
    """
    imposed = copy.deepcopy(model)
    report = count(imposed, example)
    assign(choose(imposed, report, transform, block, layers), report, budget, seed)
    for _, module, _ in masks.masked(imposed):
        masks.project(module)
    return imposed
