"""The ready recipe around NNCS: SGD with Nesterov momentum, cosine learning rate, distillation from the dense network, checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosparse.compress import checkpoint, masks
from cosparse.compress.count import Report
from cosparse.compress.nncs import NNCS
from cosparse.errors import Error


@dataclass(frozen=True)
class Recipe:
    """Settings of `fit`. Weight decay acts on weights of two or more dimensions only.

    `distill`: share of the loss that compares with the dense network's logits at `temperature`, 0 for none. `ema`: decay of a running
    mean of the weights that replaces them in the end, None for none. `warmup`: steps from 0 to the full learning rate.
    """

    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: int = 100
    label_smoothing: float = 0.0
    distill: float = 0.5
    temperature: float = 4.0
    ema: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 <= self.momentum < 1 or self.temperature <= 0:
            got = f"lr {self.lr}, momentum {self.momentum}, temperature {self.temperature}"
            raise Error("recipe", "lr > 0, 0 <= momentum < 1, temperature > 0", got)
        if not 0 <= self.distill <= 1 or (self.ema is not None and not 0 < self.ema < 1):
            raise Error("recipe", "0 <= distill <= 1, 0 < ema < 1", f"distill {self.distill}, ema {self.ema}")


@dataclass(frozen=True)
class Progress:
    """What the progress callback gets after every step; `accuracy` is the latest on the validation data, None before the first."""

    phase: int
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Score:
    """Top-1 share and mean cross-entropy over `count` labels."""

    accuracy: float
    loss: float
    count: int


@dataclass(frozen=True)
class History:
    """One entry an epoch (epoch, phase, train_loss, accuracy, loss, seconds), the counts, and the recipe that led there."""

    epochs: tuple[dict[str, Any], ...]
    report: Report
    settings: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable) -> Score:
    """Scores the model in evaluation mode on batches (x, labels); outputs are logits [N, classes, ...]. The mode is put back."""
    training = model.training
    model.eval()
    right, loss, count = 0, 0.0, 0
    for x, y in loader:
        logits = model(_placed(x, model))
        y = y.to(logits.device)
        right += int((logits.argmax(1) == y).sum())
        loss += float(nn.functional.cross_entropy(logits, y, reduction="sum"))
        count += y.numel()
    model.train(training)
    if count == 0:
        raise Error("loader", "at least one batch", "none")
    return Score(right / count, loss / count, count)


def fit(
    nncs: NNCS,
    train_loader: Iterable,
    val_loader: Iterable | None = None,
    epochs: tuple[int, int] = (1, 4),
    *,
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> History:
    """Trains `nncs.model` in place: `epochs[0]` of step 1 at the full learning rate, the mask, `epochs[1]` of step 2 under a cosine to 0.

    `train_loader` yields (x, labels) and has a length; where it has `set_epoch`, that is called first. The dense teacher is the model as
    it is given, so a resumed run starts from the same dense model. `save_to` is rewritten after every epoch; with `resume` the run
    continues from it and ends with the very weights of an uninterrupted run. `val_loader` only reports: nothing is selected on it.
    `options` are the fields of `Recipe`. Raises Error where the loss is no longer finite; the last checkpoint then stays.
    """
    run = _Run(nncs, epochs, Recipe(**options), _length(train_loader), Path(save_to) if save_to is not None else None, progress)
    if resume:
        run.restore()
    while run.epoch < sum(epochs):
        if run.epoch == epochs[0] and not nncs.masked:
            nncs.mask(run.optimizer)
        run.one_epoch(train_loader, val_loader)
        run.save()
    if not nncs.masked:
        nncs.mask(run.optimizer)
    run.take_mean()
    return History(tuple(run.history), nncs.finish(), run.settings)


def _length(loader: Any) -> int:
    try:
        length = len(loader)
    except TypeError as error:
        raise Error("train_loader", "a length (the schedule needs it)", type(loader).__name__, "give it __len__") from error
    if length == 0:
        raise Error("train_loader", "at least one batch", "none")
    return length


def _placed(x: torch.Tensor, model: nn.Module) -> torch.Tensor:
    x = x.to(next(model.parameters()).device, non_blocking=True)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class _Run:
    """The state of one `fit`: optimizer, teacher, running mean, position."""

    def __init__(
        self,
        nncs: NNCS,
        epochs: tuple[int, int],
        recipe: Recipe,
        length: int,
        path: Path | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        if min(epochs) < 0 or sum(epochs) < 1:
            raise Error("epochs", "two counts, not both 0", repr(epochs))
        if nncs.masked and epochs[0]:
            raise Error("epochs", "(0, n), as the model has its masks", repr(epochs))
        self.nncs, self.epochs, self.recipe, self.length, self.path, self.progress = nncs, epochs, recipe, length, path, progress
        self.model = nncs.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nncs.ramp = max(1, epochs[0] * length)
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False) if recipe.distill else None
        decayed = [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.mean: dict[str, torch.Tensor] = {}
        method = {"transform": nncs.transform, "block": nncs.block, "shrink": nncs.shrink, "refresh": nncs.refresh, "nncs_seed": nncs.seed}
        budget = {"flops": nncs.budget.flops, "params": nncs.budget.params}
        if nncs.budget.density is not None:
            budget = {"density": nncs.budget.density}
        self.settings = {"epochs": list(epochs), "budget": budget, **method, **asdict(recipe)}

    def one_epoch(self, train_loader: Any, val_loader: Any) -> None:
        start, total = time.perf_counter(), 0.0
        torch.manual_seed(self.recipe.seed + self.epoch)
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(self.epoch)
        self.model.train()
        for step, (x, y) in enumerate(train_loader):
            total += (loss := self._step(step, x, y))
            if self.progress:
                accuracy = self.history[-1].get("accuracy") if self.history else None
                phase = 1 if self.epoch < self.epochs[0] else 2
                self.progress(Progress(phase, self.epoch, sum(self.epochs), step + 1, self.length, loss, accuracy))
        entry = {"epoch": self.epoch + 1, "phase": 1 if self.epoch < self.epochs[0] else 2, "train_loss": total / self.length}
        if val_loader is not None:
            score = evaluate(self.model, val_loader)
            entry |= {"accuracy": score.accuracy, "loss": score.loss}
        self.epoch += 1
        self.history.append({**entry, "seconds": time.perf_counter() - start})

    def _step(self, step: int, x: torch.Tensor, y: torch.Tensor) -> float:
        done = self.epoch * self.length + step
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(done)
        x = _placed(x, self.model)
        loss = self._loss(x, y.to(x.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            kept = f"; the last checkpoint, {self.path}, is of epoch {self.epoch}" if self.path and self.epoch else ""
            raise Error(f"loss in epoch {self.epoch + 1}, step {step + 1}", "a finite number", str(value), f"lower lr{kept}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.nncs.step(self.optimizer)
        if self.recipe.ema is not None and self.nncs.masked:
            self._average(self.recipe.ema)
        return value

    def _rate(self, done: int) -> float:
        """The learning rate of the next step: full in step 1, a cosine from full to 0 in step 2; warm-up at the start."""
        ahead = self.epochs[0] * self.length
        rate = self.recipe.lr
        if done >= ahead:
            rate *= (1 + math.cos(math.pi * (done - ahead) / (self.epochs[1] * self.length))) / 2
        return rate * min(1.0, (done + 1) / max(1, self.recipe.warmup))

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        loss = nn.functional.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            target = (self.teacher(x) / self.recipe.temperature).log_softmax(1)
        log_share = (logits / self.recipe.temperature).log_softmax(1)
        distance = (target.exp() * (target - log_share)).sum(1).mean() * self.recipe.temperature**2
        return (1 - self.recipe.distill) * loss + self.recipe.distill * distance

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for name, value in self.model.state_dict().items():
            if not value.is_floating_point():
                continue
            if name in self.mean:
                self.mean[name].lerp_(value, 1 - decay)
            else:
                self.mean[name] = value.clone()

    def take_mean(self) -> None:
        """Puts the running mean, where there is one, in the place of the weights and statistics."""
        if self.mean:
            self.model.load_state_dict({**self.model.state_dict(), **self.mean})

    def save(self) -> None:
        if self.path is None:
            return
        names = {id(p): name for name, p in self.model.named_parameters()}
        momenta = {names[id(p)]: s["momentum_buffer"] for p, s in self.optimizer.state.items() if s.get("momentum_buffer") is not None}
        keep, masked = masks.to_tensors(self.model)
        groups = {"model": self.model.state_dict(), "momentum": momenta, "mean": self.mean, "mask": keep}
        notes = {"settings": self.settings, "epoch": self.epoch, "steps": self.nncs.steps, "masked": self.nncs.masked}
        checkpoint.save(self.path, groups, {**notes, "layers": masked, "history": self.history})

    def restore(self) -> None:
        """Continues from the checkpoint; without one the run simply starts."""
        if self.path is None:
            raise Error("resume", "a checkpoint path in save_to", "None")
        if not self.path.exists():
            return
        groups, notes = checkpoint.load(self.path)
        if notes["settings"] != self.settings:
            differing = [key for key in self.settings if self.settings[key] != notes["settings"].get(key)]
            got = ", ".join(f"{key} {notes['settings'].get(key)} instead of {self.settings[key]}" for key in differing)
            raise Error(str(self.path), "a checkpoint of the same settings", got, "resume with those settings or start anew")
        self.model.load_state_dict(groups["model"])
        parameters: Mapping[str, nn.Parameter] = dict(self.model.named_parameters())
        for name, value in groups.get("momentum", {}).items():
            parameter = parameters[name]
            self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(value)
        self.mean = {name: value.to(next(iter(parameters.values())).device) for name, value in groups.get("mean", {}).items()}
        masks.from_tensors(self.model, groups.get("mask", {}), notes["layers"])
        self.epoch, self.history = notes["epoch"], notes["history"]
        self.nncs.steps, self.nncs.masked = notes["steps"], notes["masked"]
