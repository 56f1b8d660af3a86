"""How a network is trained: the settings of a run, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from cosparse.errors import Error

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16")


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
        if self.lr <= 0 or not 0 <= self.momentum < 1 or self.temperature <= 0:
            got = f"lr {self.lr}, momentum {self.momentum}, temperature {self.temperature}"
            raise Error("recipe", "lr > 0, 0 <= momentum < 1, temperature > 0", got)
        if not 0 <= self.distill <= 1 or (self.ema is not None and not 0 < self.ema < 1):
            raise Error("recipe", "0 <= distill <= 1, 0 < ema < 1", f"distill {self.distill}, ema {self.ema}")
        for name, value, allowed in (("optimizer", self.optimizer, OPTIMIZERS), ("precision", self.precision, PRECISIONS)):
            if value not in allowed:
                raise Error(f"recipe.{name}", f"one of {', '.join(allowed)}", repr(value))
        if self.clip is not None and self.clip <= 0:
            raise Error("recipe.clip", "a positive norm, or None", repr(self.clip))
