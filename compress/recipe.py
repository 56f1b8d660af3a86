"""How a network is trained: the settings of a run, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Any

from cosparse.errors import Error

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16")
# What each number may be; NaN is never in a range.
NUMBERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("a finite number above 0", lambda value: 0 < value < inf),
    "momentum": ("a number from 0 to below 1", lambda value: 0 <= value < 1),
    "weight_decay": ("a finite number from 0", lambda value: 0 <= value < inf),
    "warmup": ("a number of steps from 0", lambda value: 0 <= value < inf),
    "label_smoothing": ("a number from 0 to below 1", lambda value: 0 <= value < 1),
    "distill": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "temperature": ("a finite number above 0", lambda value: 0 < value < inf),
    "ema": ("a number between 0 and 1", lambda value: 0 < value < 1),
    "clip": ("a positive norm", lambda value: 0 < value < inf),
}
OPTIONAL = ("ema", "clip")


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run. Weight decay acts on weights of two or more dimensions only.

    `optimizer`: "sgd" with Nesterov's momentum, or "adamw", whose first beta is `momentum`. `precision`: what products are computed in;
    weights, gradients and sums stay float32. `distill`: share of the loss that compares with the teacher's logits at `temperature`, 0 for
    none. `ema`: decay of a running mean of the weights that replaces them in the end, None for none. `warmup`: steps from 0 to the full
    learning rate. `clip`: largest norm of the whole gradient, None for no bound.
    """

    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: int = 100
    label_smoothing: float = 0.0
    distill: float = 0.5
    temperature: float = 4.0
    ema: float | None = None
    optimizer: str = "sgd"
    precision: str = "float32"
    clip: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (wanted, fits) in NUMBERS.items():
            value = getattr(self, name)
            if not (value is None and name in OPTIONAL) and not (isinstance(value, Real) and fits(value)):
                raise Error(f"recipe.{name}", f"{wanted}{', or None' if name in OPTIONAL else ''}", repr(value))
        for name, value, allowed in (("optimizer", self.optimizer, OPTIMIZERS), ("precision", self.precision, PRECISIONS)):
            if value not in allowed:
                raise Error(f"recipe.{name}", f"one of {', '.join(allowed)}", repr(value))
