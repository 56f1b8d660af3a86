"""The ready recipes: ordinary training of a network, and NNCS around one that is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosparse.compress import masks
from cosparse.compress.count import Report, as_tuple, count
from cosparse.compress.importer import require_importable
from cosparse.compress.loop import Loop, OnEpoch, Plain, Progress, State
from cosparse.compress.nncs import NNCS
from cosparse.compress.recipe import Recipe
from cosparse.errors import Error


@dataclass(frozen=True)
class History:
    """One entry an epoch (epoch, phase, train_loss, lr, accuracy, loss, density, flops_share, seconds), the counts, the settings."""

    epochs: tuple[dict[str, Any], ...]
    report: Report
    settings: dict[str, Any] = field(default_factory=dict)


class _TwoSteps:
    """NNCS as a method of the loop: step 1, the masks, step 2."""

    def __init__(self, nncs: NNCS, first: int) -> None:
        self.nncs, self.first = nncs, first

    def begin(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch >= self.first and not self.nncs.masked:
            self.nncs.mask(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.nncs.step(optimizer)

    def phase(self, epoch: int) -> int:
        return 1 if epoch < self.first else 2

    def settings(self) -> dict[str, Any]:
        return self.nncs.settings()

    def figures(self) -> dict[str, Any]:
        """`density` of the masked layers, `flops_share` of the dense network's multiply-adds; both 1 while nothing is masked."""
        if not self.nncs.masked:
            return {"density": 1.0, "flops_share": 1.0}
        layers = [mask for _, _, mask in masks.masked(self.nncs.model)]
        kept, all_of_them = sum(mask.kept() for mask in layers), sum(mask.full.numel() for mask in layers)
        flops_share = 1 - count(self.nncs.model, self.nncs.example).flops_reduction
        return {"density": kept / all_of_them if all_of_them else 1.0, "flops_share": flops_share}

    def state(self) -> State:
        return self.nncs.state()

    def restore(self, groups: Mapping[str, Mapping[str, torch.Tensor]], notes: Mapping[str, Any]) -> None:
        self.nncs.restore(groups, notes)


def fit(
    nncs: NNCS,
    train_loader: Iterable,
    val_loader: Iterable | None = None,
    epochs: tuple[int, int] = (1, 4),
    *,
    teacher: nn.Module | None = None,
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> History:
    """Trains `nncs.model` in place: `epochs[0]` of step 1 at the full learning rate, the mask, `epochs[1]` of step 2 under a cosine to 0.

    `train_loader` yields (x, labels) and has a length; where it has `set_epoch`, that is called first. The teacher is `teacher`, or the
    model as it is given, so a resumed run starts from the same dense model. `save_to` is rewritten after every epoch; with `resume` the run
    continues from it and ends with the very weights of an uninterrupted run. `val_loader` only reports: nothing is selected on it.
    `progress` hears of every step, `on_epoch` of every epoch (`loop.OnEpoch`; `log.EpochLog` is one).
    `options` are the fields of `Recipe`. Raises UnsupportedError before the first step where no artifact could hold the model, Error where
    the loss is no longer finite; the last checkpoint then stays.
    """
    if nncs.masked and epochs[0]:
        raise Error("epochs", "(0, n), as the model has its masks", repr(epochs))
    require_importable(nncs.model, as_tuple(nncs.example))
    path = Path(save_to) if save_to is not None else None
    method, recipe = _TwoSteps(nncs, epochs[0]), Recipe(**options)
    loop = Loop(nncs.model, method, epochs, recipe, train_loader, teacher=teacher, path=path, progress=progress, on_epoch=on_epoch)
    nncs.ramp = max(1, epochs[0] * loop.length)
    if nncs.regrow is not None:
        nncs.regrow = replace(nncs.regrow, steps=max(1, epochs[1] * loop.length))
    if resume:
        loop.restore()
    if nncs.score == "fisher" and not (nncs.masked or nncs.fisher.count or epochs[0]):
        nncs.estimate(train_loader)  # without a step 1 nothing else has seen a gradient when the masks are chosen
    loop.run(val_loader)
    if not nncs.masked:
        nncs.mask(loop.optimizer)
    return History(tuple(loop.history), nncs.finish(), loop.settings)


def train(
    model: nn.Module,
    train_loader: Iterable,
    val_loader: Iterable | None = None,
    epochs: int | tuple[int, int] = 30,
    *,
    teacher: nn.Module | None = None,
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> tuple[dict[str, Any], ...]:
    """Trains all weights of `model` in place for `epochs` under a cosine to 0, and returns one entry an epoch; the rest is as in `fit`.

    Of two counts the first is of epochs at the full learning rate, before the cosine. Without a teacher nothing is distilled.
    """
    recipe = Recipe(**({"distill": 0.0} | options if teacher is None else options))
    path = Path(save_to) if save_to is not None else None
    both = (0, epochs) if isinstance(epochs, int) else epochs
    loop = Loop(model, Plain(), both, recipe, train_loader, teacher=teacher, path=path, progress=progress, on_epoch=on_epoch)
    if resume:
        loop.restore()
    loop.run(val_loader)
    return tuple(loop.history)
