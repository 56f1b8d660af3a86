"""One training loop for every method: optimizer, schedule, distillation, running mean, checkpoints, position.

A method (plain training, NNCS, fine-tuning after pruning) takes the optimizer's step and may change the model between epochs.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from cosparse.compress import checkpoint, distributed
from cosparse.compress.recipe import Recipe
from cosparse.compress.score import IGNORED, evaluate, logits_of, placed
from cosparse.errors import Error

State = tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]
"""Tensors by group and name, and plain data: what a checkpoint holds."""


class Method(Protocol):
    """What a training method adds to the loop."""

    def begin(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Called before every epoch, also the first after a restart."""

    def step(self, optimizer: torch.optim.Optimizer) -> object:
        """Takes the optimizer's step, once the gradients are there."""

    def phase(self, epoch: int) -> int:
        """1 while the weights are free, 2 once their zeros are decided: from there on the running mean is kept."""

    def settings(self) -> dict[str, Any]:
        """What a resumed run must share with the first, as plain data."""

    def figures(self) -> dict[str, Any]:
        """What the method adds to an epoch's entry in the history."""

    def state(self) -> State: ...

    def restore(self, groups: Mapping[str, Mapping[str, torch.Tensor]], notes: Mapping[str, Any]) -> None: ...


class Plain:
    """Ordinary training."""

    def begin(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        pass

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def phase(self, epoch: int) -> int:
        return 2

    def settings(self) -> dict[str, Any]:
        return {}

    def figures(self) -> dict[str, Any]:
        return {}

    def state(self) -> State:
        return {}, {}

    def restore(self, groups: Mapping[str, Mapping[str, torch.Tensor]], notes: Mapping[str, Any]) -> None:
        pass


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


OnEpoch = Callable[[Sequence[Mapping[str, Any]]], None]
"""Gets the history, one entry an epoch: once before the first step, which tells a resumed run from a new one, and after every epoch, when
its checkpoint is written."""


class Loop:
    """The state of one run: `epochs[0]` epochs at the full learning rate, then `epochs[1]` under a cosine to 0.

    `path` is rewritten after every epoch. In a process group (torchrun) every rank runs the loop on its share of the data, which the
    loader cuts; gradients are averaged, rank 0 writes, all read. The teacher of the distillation is `teacher`, or the model as it is given.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        epochs: tuple[int, int],
        recipe: Recipe,
        train_loader: Any,
        *,
        teacher: nn.Module | None = None,
        path: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        if min(epochs) < 0 or sum(epochs) < 1:
            raise Error("epochs", "two counts, not both 0", repr(epochs))
        self.method, self.epochs, self.recipe, self.path, self.progress = method, epochs, recipe, path, progress
        self.on_epoch = on_epoch if not distributed.rank() else None
        self.loader, self.length = train_loader, _length(train_loader)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = distributed.parallel(self.model)
        self.teacher = (teacher or copy.deepcopy(self.model)).eval().requires_grad_(False) if recipe.distill else None
        self.optimizer = _optimizer(self.model, recipe)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.mean: dict[str, torch.Tensor] = {}
        self.settings = {"epochs": list(epochs), **method.settings(), **asdict(recipe)}

    def run(self, val_loader: Any = None) -> None:
        """Trains to the end; Error where the loss is no longer finite, and the last checkpoint stays."""
        self._tell()
        while self.epoch < sum(self.epochs):
            self.method.begin(self.epoch, self.optimizer)
            self._one_epoch(val_loader)
            self.save()
            self._tell()
        if self.mean:
            self.model.load_state_dict({**self.model.state_dict(), **self.mean})

    def _tell(self) -> None:
        if self.on_epoch:
            self.on_epoch(tuple(self.history))

    def _one_epoch(self, val_loader: Any) -> None:
        start, total, phase = time.perf_counter(), 0.0, self.method.phase(self.epoch)
        torch.manual_seed(self.recipe.seed + self.epoch + 1_000_003 * distributed.rank())
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(self.epoch)
        self.forward.train()
        for step, (x, y) in enumerate(self.loader):
            total += (loss := self._step(step, phase, x, y))
            if self.progress:
                accuracy = self.history[-1].get("accuracy") if self.history else None
                self.progress(Progress(phase, self.epoch, sum(self.epochs), step + 1, self.length, loss, accuracy))
        train_loss = distributed.mean(total / self.length, next(self.model.parameters()).device)
        entry = {"epoch": self.epoch + 1, "phase": phase, "train_loss": train_loss, "lr": self.optimizer.param_groups[0]["lr"]}
        if val_loader is not None:
            score = evaluate(self.model, val_loader)
            entry |= {"accuracy": score.accuracy, "loss": score.loss}
        self.epoch += 1
        self.history.append({**entry, **self.method.figures(), "seconds": time.perf_counter() - start})

    def _step(self, step: int, phase: int, x: torch.Tensor, y: torch.Tensor) -> float:
        done = self.epoch * self.length + step
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(done)
        x = placed(x, self.model)
        loss = self._loss(x, y.to(x.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            kept = f"; the last checkpoint, {self.path}, is of epoch {self.epoch}" if self.path and self.epoch else ""
            raise Error(f"loss in epoch {self.epoch + 1}, step {step + 1}", "a finite number", str(value), f"lower lr{kept}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.method.step(self.optimizer)
        if self.recipe.ema is not None and phase == 2:
            self._average(self.recipe.ema)
        return value

    def rate(self, done: int) -> float:
        """The learning rate after `done` steps: full, then a cosine from full to 0; warm-up at the start."""
        ahead = self.epochs[0] * self.length
        rate = self.recipe.lr
        if done >= ahead:
            rate *= (1 + math.cos(math.pi * (done - ahead) / (self.epochs[1] * self.length))) / 2
        return rate * min(1.0, (done + 1) / max(1, self.recipe.warmup))

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        low = self.recipe.precision != "float32"
        with torch.autocast(x.device.type, dtype=getattr(torch, self.recipe.precision), enabled=low):
            logits = logits_of(self.forward(x))
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing, ignore_index=IGNORED)
        if self.teacher is None:
            return loss
        with torch.no_grad(), torch.autocast(x.device.type, dtype=getattr(torch, self.recipe.precision), enabled=low):
            target = logits_of(self.teacher(x))
        target = (target.float() / self.recipe.temperature).log_softmax(1)
        share = (logits / self.recipe.temperature).log_softmax(1)
        distance = (target.exp() * (target - share)).sum(1).mean() * self.recipe.temperature**2
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

    def save(self) -> None:
        """Writes the state after the last whole epoch, atomically; nothing where the run has no path."""
        if self.path is None or distributed.rank():
            return
        names = {id(p): name for name, p in self.model.named_parameters()}
        state = {
            f"{names[id(p)]}/{key}": value
            for p, values in self.optimizer.state.items()
            for key, value in values.items()
            if isinstance(value, torch.Tensor)
        }
        groups, notes = self.method.state()
        groups |= {"model": self.model.state_dict(), "optimizer": state, "mean": self.mean}
        checkpoint.save(self.path, groups, {**notes, "settings": self.settings, "epoch": self.epoch, "history": self.history})

    def restore(self) -> None:
        """Continues from the checkpoint; without one the run simply starts."""
        if self.path is None:
            raise Error("resume", "a checkpoint path in save_to", "None")
        if not self.path.exists():
            return
        groups, notes = checkpoint.load(self.path)
        if notes.get("settings") != self.settings:
            before = notes.get("settings") or {}
            differing = [key for key in self.settings if self.settings[key] != before.get(key)]
            got = ", ".join(f"{key} {before.get(key)} instead of {self.settings[key]}" for key in differing)
            raise Error(str(self.path), "a checkpoint of the same settings", got, "resume with those settings or start anew")
        self.model.load_state_dict(groups["model"])
        parameters: Mapping[str, nn.Parameter] = dict(self.model.named_parameters())
        for full, value in groups.get("optimizer", {}).items():
            name, _, key = full.rpartition("/")
            parameter = parameters[name]
            like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            self.optimizer.state[parameter][key] = like.copy_(value)
        self.mean = {name: value.to(next(iter(parameters.values())).device) for name, value in groups.get("mean", {}).items()}
        self.method.restore(groups, notes)
        self.epoch, self.history = notes["epoch"], notes["history"]


def _length(loader: Any) -> int:
    try:
        length = len(loader)
    except TypeError as error:
        raise Error("train_loader", "a length (the schedule needs it)", type(loader).__name__, "give it __len__") from error
    if length == 0:
        raise Error("train_loader", "at least one batch", "none")
    return length


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
