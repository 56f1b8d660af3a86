"""The pull of step 1 on the weights, and what it carries from step to step.

    J(w, s) = loss(w) + lambda ||s||_{2,1} + mu/2 ||Phi (w - Psi^T s)||^2              A = Phi Psi^T

Every `refresh` steps s is recovered with w fixed, min_s (lambda/mu) ||s||_{2,1} + 1/2 ||A (Psi w - s)||^2, starting from the last s. At
every step the weights get the gradient of the rest, mu Psi^T A^T A (Psi w - s). Where Phi = I and the recovery is "closed", s is exact at
every step and eliminated: Psi^T [mu c_b min(1, lambda / (mu ||c_b||))] with c = Psi w.

lambda / mu is the norm at which the budget's rule would cut the block now; greedy methods keep as many blocks of a signal as reach it,
but no more than there are measurements. rate * mu follows the schedule, so that over the ramp a block that is about to be dropped shrinks
by `shrink` e-foldings whatever the learning rate; E A^T A = I for a random Phi, which makes this the mean over directions.
SGD gets the pull as a part of the gradient, lr / (1 - momentum) being its rate. Optimizers that rescale gradients would rescale the pull
too: there it is taken from the weights after the step, at rate 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cosparse.compress import transforms
from cosparse.compress.layers import Choice
from cosparse.compress.measurement import Tiling, draw, join, norm_squared, of_coefficients, split
from cosparse.compress.recovery import CONVEX, Problem, iht, omp
from cosparse.compress.recovery.problem import descent, measure
from cosparse.compress.recovery.shrink import sizes
from cosparse.compress.step1 import Step1
from cosparse.compress.transforms import Transform
from cosparse.errors import Error

LARGE = 1e9
"""Stands for a cut without end, so that no infinity meets a 0 in a recovery."""


@dataclass(frozen=True, eq=False)
class Sensing:
    """How one layer is measured: its segments, A = Phi Psi^T [Q, m, n] (None: the identity), ||A||^2."""

    tiling: Tiling
    matrix: torch.Tensor | None
    norm_squared: float


class Pull:
    """The state of step 1: by layer name the cuts [block rows], what was recovered [Q, block rows, r, n], the matrices once drawn.

    `cuts` looks at where the budget would cut the present weights.
    """

    def __init__(self, choices: Sequence[Choice], cuts: Callable[[], dict[str, torch.Tensor]], settings: Step1, seed: int) -> None:
        self.choices, self.settings, self.seed, self._cuts = choices, settings, seed, cuts
        self.cut = cuts()
        self.recovered: dict[str, torch.Tensor] = {}
        self._sensing: dict[str, Sensing] = {}

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, step: int, ramp: int) -> None:
        """Adds the pull to the gradients, where the optimizer follows gradients as they are; called before its step."""
        if follows_gradients(optimizer):
            strength = self.settings.strength(step, ramp)
            for weight, pull, rate in self._pulls(optimizer, step, ramp):
                weight.grad.add_(pull, alpha=strength / rate)  # type: ignore[union-attr]

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer, step: int, ramp: int) -> None:
        """Takes the pull from the weights, where the optimizer rescales gradients; called after its step."""
        if not follows_gradients(optimizer):
            strength = self.settings.strength(step, ramp)
            for weight, pull, _ in self._pulls(optimizer, step, ramp):
                weight.sub_(pull, alpha=strength)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a resumed run needs, by group and layer; the matrices are drawn again from the seed."""
        return {"cut": self.cut, "recovered": self.recovered}

    def restore(self, groups: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Takes over what `state` gave."""
        self.cut, self.recovered = dict(groups.get("cut", {})), dict(groups.get("recovered", {}))

    def release(self) -> None:
        """Lets go of all of it, once the masks are chosen."""
        self.cut, self.recovered, self._sensing = {}, {}, {}

    def _pulls(self, optimizer: torch.optim.Optimizer, step: int, ramp: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """(weight, Psi^T A^T A (Psi w - s), rate) of every layer that the optimizer moves now."""
        if self.settings.shrink == 0:
            return
        fresh = step % self.settings.refresh == 0
        if fresh:
            self.cut = self._cuts()
        rates = {id(p): rate_of(group) for group in optimizer.param_groups for p in group["params"]}
        for choice in self.choices:
            weight, transform = choice.module.weight, choice.transform
            rate = rates.get(id(weight), 0.0)
            if transform is None or weight.grad is None or not rate:
                continue
            blocks = in_blocks(transforms.forward(weight, transform), choice.block)
            closed = self.settings.recovery == "closed"
            pull = self._eliminated(choice, blocks) if closed else self._recovering(choice, transform, blocks, fresh, ramp)
            flat = pull.flatten(0, 1)[: weight.shape[0]].reshape(weight.shape)
            yield weight, transforms.inverse(flat, transform), rate

    def _eliminated(self, choice: Choice, blocks: torch.Tensor) -> torch.Tensor:
        """c - s for s = soft(c, cut), [block rows, r, K]."""
        norm = blocks.square().sum(1, keepdim=True).sqrt()
        cut = self.cut[choice.name].to(norm).reshape(len(norm), 1, -1)  # of a block row, or of each block
        return blocks * torch.clamp(cut / norm.clamp_min(1e-12), max=1.0)

    def _recovering(self, choice: Choice, transform: Transform, blocks: torch.Tensor, fresh: bool, ramp: int) -> torch.Tensor:
        """A^T A (c - s) with the s of the latest recovery, [block rows, r, K]."""
        name = choice.name
        sensing = self._sensed(choice, transform, ramp)
        coefficients = split(blocks, sensing.tiling)
        problem = Problem(sensing.matrix, measure(sensing.matrix, coefficients), sensing.norm_squared)
        if fresh or name not in self.recovered:
            cut = self.cut[name].to(blocks).reshape(len(blocks), 1, -1).clamp_max(LARGE)
            cut = split(cut, sensing.tiling) if cut.shape[-1] > 1 else cut[None]  # [Q or 1, block rows, 1, n or 1]
            self.recovered[name] = self._recover(problem, coefficients, cut, self.recovered.get(name))
        self.recovered[name] = s = self.recovered[name].to(blocks)  # What a checkpoint gave lies on the CPU.
        return join(descent(problem, s), sensing.tiling)

    def _recover(self, problem: Problem, coefficients: torch.Tensor, cut: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        """s [Q, block rows, r, n] by the method of the settings."""
        method, work = self.settings.recovery, (self.settings.iterations, self.settings.tolerance)
        start = None if start is None else start.to(coefficients)
        if method in CONVEX:
            return CONVEX[method](problem, cut, start, *work).s
        most = min(problem.measured.shape[-1], problem.columns)
        k = (sizes(coefficients) >= cut).sum((-2, -1)).clamp_max(most)  # [Q, block rows]
        return omp(problem, k, self.settings.tolerance).s if method == "omp" else iht(problem, k, start, *work).s

    def _sensed(self, choice: Choice, transform: Transform, ramp: int) -> Sensing:
        """The layer's measurement, drawn at the first call; Error where the pull would overshoot along the longest direction of A."""
        if choice.name not in self._sensing:
            settings, weight = self.settings, choice.module.weight
            channels, taps = weight.shape[1], weight[0, 0].numel()
            drawn = draw(
                settings.measurement, channels, taps, share=settings.share, seed=self.seed, name=choice.name, limit=settings.segment
            )
            matrix = of_coefficients(drawn, transform, weight)
            largest = norm_squared(matrix)
            if settings.strength(ramp - 1, ramp) * largest > 1:
                least = math.ceil(settings.strength(0, 1) * largest)
                expected = f"at least {least} steps of step 1, as {choice.name} is measured with ||Phi||^2 = {largest:.2f}"
                raise Error("NNCS.ramp", expected, str(ramp), "train longer before the masks, shrink less, or measure more")
            self._sensing[choice.name] = Sensing(drawn.tiling, matrix, largest)
        return self._sensing[choice.name]


def in_blocks(coefficients: torch.Tensor, block: int) -> torch.Tensor:
    """Coefficients of the weight's shape as [block rows, block, K], the last row padded with zeros."""
    flat = coefficients.flatten(1)
    return nn.functional.pad(flat, (0, 0, 0, -flat.shape[0] % block)).reshape(-1, block, flat.shape[1])


def follows_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is linear in the gradients, downhill; a wrapper around SGD counts as unknown."""
    return isinstance(optimizer, torch.optim.SGD) and not any(group.get("maximize") for group in optimizer.param_groups)


def rate_of(group: dict[str, Any]) -> float:
    """How far SGD moves the weights in the end per unit of gradient: the learning rate, times what momentum adds up; 0 where it rests."""
    return float(group["lr"]) / (1 - float(group.get("momentum", 0.0)))
