"""What a model scores on labelled data, in torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cosparse.errors import Error

IGNORED = -100
"""The label that no score and no loss counts, as torch's cross-entropy has it."""


@dataclass(frozen=True)
class Score:
    """Top-1 share and mean cross-entropy over `count` labels."""

    accuracy: float
    loss: float
    count: int


def placed(x: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """The input on the model's device, images channels-last."""
    x = x.to(next(model.parameters()).device, non_blocking=True)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def logits_of(output: Any, about: str = "output") -> torch.Tensor:
    """What the network says: its output if that is a tensor, else the only tensor of a mapping such as {"out": [N, classes, H, W]}."""
    found = [value for value in output.values() if isinstance(value, torch.Tensor)] if isinstance(output, Mapping) else [output]
    if len(found) != 1 or not isinstance(found[0], torch.Tensor):
        got = f"a mapping of {', '.join(map(str, output)) or 'nothing'}" if isinstance(output, Mapping) else type(output).__name__
        raise Error(about, "a tensor of logits, or a mapping with one", got, "wrap the network in a module that gives it")
    return found[0]


@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable) -> Score:
    """Scores the model in evaluation mode on batches (x, labels); outputs are logits [N, classes, ...]. The mode is put back."""
    training = model.training
    model.eval()
    right, loss, count = 0, 0.0, 0
    for x, y in loader:
        logits = logits_of(model(placed(x, model)))
        y = y.to(logits.device)
        right += int((logits.argmax(1) == y).sum())
        loss += float(nn.functional.cross_entropy(logits, y, reduction="sum", ignore_index=IGNORED))
        count += int((y != IGNORED).sum())
    model.train(training)
    if count == 0:
        raise Error("loader", "at least one batch", "none")
    return Score(right / count, loss / count, count)
