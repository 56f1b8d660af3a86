"""What a budget leaves for the layers that carry masks, once all the others are paid for, and the selection within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from cosparse.compress import masks, transforms
from cosparse.compress.budget import Budget
from cosparse.compress.count import Report
from cosparse.compress.fisher import Fisher
from cosparse.compress.hierarchy import Hierarchy, select_in_groups
from cosparse.compress.latency import AGAIN, LayerTime, mask_times
from cosparse.compress.layers import Choice
from cosparse.compress.select import Candidates, Cost, Selection, Unreachable, least_cost, select, select_share
from cosparse.compress.transforms import Transform
from cosparse.errors import Error


def candidates(choices: Sequence[Choice], budget: Budget, fisher: Fisher | None = None) -> tuple[list[Candidates], dict[str, str]]:
    """The blocks of the layers that can carry a mask, scored by energy or, with `fisher`, by the loss that dropping them costs.

    Beside them, by name and with the reason, the layers that would be no faster even with the least that a mask must keep. Raises Error
    where a density is asked of a network none of whose layers can carry a mask.
    """
    if budget.density is not None and all(choice.transform is None for choice in choices):
        raise Error("budget", f"a layer that can keep {100 * budget.density:g}%", f"none: {left_dense(choices)}")
    times = layer_times(choices, budget)
    layers, hopeless = [], {}
    for choice in choices:
        if choice.transform is None:
            continue
        time = times.get(choice.name)
        layer = _candidates(choice, choice.transform, fisher, time)
        if time is not None and not choice.forced:
            least = least_cost([layer], budget.floor)[2] + time.fixed_us
            if least >= time.dense_us:
                hopeless[layer.name] = f"sparse it would take at least {least:.1f} us, dense {time.dense_us:.1f}"
                continue
        layers.append(layer)
    return layers, hopeless


def left_dense(choices: Sequence[Choice], hopeless: Mapping[str, str] | None = None) -> str:
    """How many layers carry no mask, and why, the most frequent reasons first, each with its number and names."""
    reasons = {choice.name: choice.why for choice in choices if choice.transform is None} | dict(hopeless or {})
    parts = [
        f"{why} ({count}: {', '.join([name for name in reasons if reasons[name] == why][:2])}{', ...' if count > 2 else ''})"
        for why, count in Counter(reasons.values()).most_common()
    ]
    shown = "; ".join(parts[:3]) + ("; ..." if len(parts) > 3 else "")
    return f"{len(reasons)} of {len(choices)} layers are left dense" + (f": {shown}" if reasons else "")


def _candidates(choice: Choice, transform: Transform, fisher: Fisher | None, time: LayerTime | None) -> Candidates:
    energy = masks.block_energy(choice.module.weight, transform, choice.block).numpy()
    if not np.isfinite(energy).all():
        raise Error(f"weight of {choice.name}", "finite values", "NaN or infinity")
    score = energy if fisher is None else _fisher_score(choice, transform, fisher)
    size = np.minimum(choice.block, choice.count.shape[0] - choice.block * np.arange(energy.shape[0]))
    kernel, stride = masks.geometry(choice.module)
    pixels, unit = choice.count.pixels, transform.unit
    basis = transforms.basis_cost(transform, kernel, stride) * unit * pixels
    us, us_basis = (time.coefficient_us, time.basis_us / choice.module.weight.shape[1] * unit) if time else (0.0, 0.0)
    return Candidates(
        choice.name,
        score,
        size.astype(np.float64),
        pixels,
        basis,
        kernel[0] * kernel[1] * unit,
        us,
        us_basis,
        fixed_params=transforms.stored(transform),
        fixed_flops=transforms.output_cost(transform, choice.count.shape[0]) * pixels,
    )


def _fisher_score(choice: Choice, transform: Transform, fisher: Fisher) -> np.ndarray:
    """sum over a block of F_i s_i^2, float64 [block rows, K]."""
    estimate = fisher.get(choice.name)
    if estimate is None or estimate.shape != choice.module.weight.shape:
        got = "none" if estimate is None else str(list(estimate.shape))
        raise Error(f"Fisher estimate of {choice.name}", f"a tensor {list(choice.module.weight.shape)}", got, "fisher() makes one")
    coefficients = transforms.forward(choice.module.weight.detach().double().cpu(), transform)
    score = masks.block_sums(estimate.detach().double().cpu() * coefficients.square(), choice.block).numpy()
    if not (np.isfinite(score).all() and (score >= 0).all()):
        raise Error(f"Fisher estimate of {choice.name}", "finite values from 0", "NaN, infinity or less than 0")
    return score


def layer_times(choices: Sequence[Choice], budget: Budget) -> dict[str, LayerTime]:
    """The latency table's entries for the layers that can carry a mask; Error where one is missing or of another layer, or by width."""
    if budget.latency is None:
        return {}
    table, found = mask_times(budget.latency), {}
    for choice in choices:
        if choice.transform is None:
            continue
        time = table.layers.get(choice.name)
        wanted = (tuple(choice.count.shape), choice.count.pixels, str(choice.transform), choice.block)
        if time is None or (time.shape, time.pixels, time.transform, time.block) != wanted:
            got = "no such layer" if time is None else _layer_words(time.shape, time.pixels, time.transform, time.block)
            raise Error(f"{budget.latency.table}: layer {choice.name!r}", _layer_words(*wanted), got, f"{AGAIN} for this network and block")
        found[choice.name] = time
    return found


def _layer_words(shape: tuple[int, ...], pixels: float, transform: str, block: int) -> str:
    return f"{'x'.join(map(str, shape))}, {pixels:g} pixels, {transform} {block}x1"


@dataclass(frozen=True)
class Account:
    """(parameters, multiply-adds, microseconds): `fixed` is what the layers without masks take, `bounds` what is left for the others."""

    fixed: Cost
    bounds: Cost


def account(report: Report, layers: Sequence[Candidates], budget: Budget) -> Account:
    """The account of a network in which exactly `layers` carry masks."""
    names = {layer.name for layer in layers}
    inside = [layer for layer in report.layers if layer.name in names]
    params = report.params_dense - sum(layer.params_dense for layer in inside)
    flops = report.flops_dense - sum(layer.flops_dense for layer in inside)
    us = 0.0
    if budget.latency is not None:
        table = mask_times(budget.latency)
        us = table.other_us + sum(time.fixed_us if name in names else time.dense_us for name, time in table.layers.items())
    return Account(
        (params, flops, us),
        (
            inf if budget.params is None else (1 - budget.params) * report.params_dense - params,
            inf if budget.flops is None else (1 - budget.flops) * report.flops_dense - flops,
            inf if budget.latency is None else budget.latency.bound_us - us,
        ),
    )


def within(
    report: Report, layers: Sequence[Candidates], budget: Budget, seed: int, groups: Hierarchy | None = None, others: str = ""
) -> Selection:
    """Selects within the account, with `groups` in two levels; a density asks for no account.

    Raises Error, with what could be reached and `others`, what is said of the layers that are none of these, where it cannot be met.
    """
    books = account(report, layers, budget)

    def pick(layers: Sequence[Candidates], slack: float = 1.0) -> Selection:
        if budget.density is not None:
            return select_share(layers, min(1.0, slack * budget.density), seed)
        return select(layers, *(slack * bound for bound in books.bounds), floor=budget.floor, seed=seed)

    try:
        return pick(layers) if groups is None else select_in_groups(layers, groups, pick)
    except Unreachable as error:
        least = tuple(a + b for a, b in zip(books.fixed, error.least, strict=True))
        raise _unreachable(report, layers, budget, least, others) from None


def _unreachable(report: Report, layers: Sequence[Candidates], budget: Budget, least: tuple[float, ...], others: str) -> Error:
    most = [f"{name} -{max(0.0, 1 - cost / max(dense, 1)):.1%}" for name, cost, dense in _totals(report, least)]
    asked = [f"{name} -{share:.1%}" for name in ("flops", "params") if (share := getattr(budget, name)) is not None]
    if budget.latency is not None:
        most.append(f"latency {least[2] / 1e3:.4g} ms")
        asked.append(f"latency {budget.latency.bound_us / 1e3:.4g} ms")
    expected = f"at most {', '.join(most)} (with {len(layers)} layers masked, {100 * budget.floor:g}% of each kept)"
    next_step = "ask for less or mask more layers, or lower Budget.floor"
    return Error("budget", expected, ", ".join(asked), next_step + (f" ({others})" if others else ""))


def _totals(report: Report, least: tuple[float, ...]) -> list[tuple[str, float, float]]:
    return [("flops", least[1], report.flops_dense), ("params", least[0], report.params_dense)]


def costly(
    layers: Sequence[Candidates], selection: Selection, times: Mapping[str, LayerTime], count_flops: bool, forced: Collection[str]
) -> dict[str, str]:
    """Layer name -> reason, for the layers that a mask makes no cheaper: in multiply-adds if they count, in time if it was measured.

    Forced layers are none of them.
    """
    reasons = {}
    for layer, keep in zip(layers, selection.keep, strict=True):
        if layer.name in forced:
            continue
        coefficients = float((keep * layer.size[:, None]).sum())
        steps = masks.units_used(keep, layer.taps)
        step, dense = steps * layer.basis + layer.fixed_flops, float(layer.size.sum()) * keep.shape[1] * layer.pixels
        sparse = coefficients * layer.pixels + step
        if count_flops and sparse >= dense:
            reasons[layer.name] = f"sparse it would cost {sparse / dense:.0%} of dense (basis step {step / dense:.0%})"
        time = times.get(layer.name)
        if time is None:
            continue
        us = time.fixed_us + coefficients * layer.us + steps * layer.us_basis
        if us >= time.dense_us:
            reasons[layer.name] = f"sparse it would take {us:.1f} us, dense {time.dense_us:.1f}"
    return reasons
