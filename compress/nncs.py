"""NNCS: training that makes weights sparse in a transform domain, then trains the coefficients that are kept.

Step 1 adds to the loss, for every block s_b of the coefficients s = T w, the group-Huber penalty that remains of

    lambda ||s||_{2,1} + mu/2 ||w - T^-1 s'||^2          once the sparse representation s' is eliminated.

Its gradient, T^-1 [mu s_b min(1, lambda / (mu ||s_b||))], is added to autograd's. lambda / mu is the norm at which the budget's rule would
cut the block now, so the pull is full on what is going to be dropped and bounded on what is going to stay; mu ramps up from 0.
Step 2 trains the kept coefficients only. T is orthonormal, so SGD with momentum and weight decay on s equals SGD on w followed by
projecting w and its momentum onto the kept coefficients after every step: no special layer is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cosparse.compress import masks, transforms
from cosparse.compress.budget import Budget
from cosparse.compress.count import Report, count
from cosparse.compress.impose import assign, thresholds
from cosparse.compress.layers import choose
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.train import History

RESIDUE = 1e-6
"""Largest masked-out coefficient relative to the layer's largest that counts as zero."""

MOMENTA = ("momentum_buffer", "exp_avg")
"""Optimizer state that is linear in the gradients and therefore projected like the weight (SGD's and Adam's names)."""


class NNCS:
    """Sparsifies `model` in place, in the user's own loop or by `fit`.

        loss.backward(); nncs.step(optimizer)    ...    nncs.mask()    ...    loss.backward(); nncs.step(optimizer)    ...    nncs.finish()

    `shrink`: by how many e-foldings step 1 shrinks a block that is about to be dropped, over `ramp` steps; 0 leaves step 1 plain.
    `refresh`: steps between two looks at where the budget would cut. `transform` is a text as in transforms/spec.py, which `layers`
    overrides for single layers (also "dense"). A fitted transform is fitted to the weights given, for step 1, and anew in `mask`.
    Raises Error at once where the budget cannot be met.
    """

    def __init__(
        self,
        model: nn.Module,
        budget: Budget,
        example: torch.Tensor | tuple[torch.Tensor, ...],
        transform: str = "dct",
        block: int = 8,
        *,
        shrink: float = 1.0,
        ramp: int = 1000,
        refresh: int = 100,
        layers: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        if shrink < 0 or ramp < 1 or refresh < 1:
            raise Error("NNCS", "shrink >= 0, ramp >= 1, refresh >= 1", f"shrink {shrink}, ramp {ramp}, refresh {refresh}")
        self.model, self.budget, self.example, self.transform, self.block, self.seed = model, budget, example, transform, block, seed
        self.shrink, self.ramp, self.refresh = shrink, ramp, refresh
        self.report = count(model, example)
        self.choices = choose(model, self.report, transform, block, layers)
        self.steps = 0
        self.masked = any(True for _ in masks.masked(model))
        self._cut = thresholds(self.choices, self.report, budget, seed)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """`optimizer.step()` with what the current phase adds: before `mask` the penalty's gradient, after it the projection."""
        if not self.masked:
            self._pull(optimizer)
        optimizer.step()
        if self.masked:
            self._project(optimizer)
        self.steps += 1

    def mask(self, optimizer: torch.optim.Optimizer | None = None) -> Report:
        """Chooses the masks from the present weights and projects onto them; the step-2 phase begins.

        With the optimizer given, its momentum is projected too (else the next step does it).
        """
        if self.masked:
            raise Error("NNCS.mask", "one call", "masks that are there already")
        assign(self.choices, self.report, self.budget, self.seed)
        self.masked = True
        self._project(optimizer)
        return count(self.model, self.example)

    def finish(self) -> Report:
        """Projects once more, checks that nothing is left outside the masks, and counts."""
        if not self.masked:
            raise Error("NNCS.finish", "masks", "none yet", "call mask() before the second phase")
        self._project(None)
        for name, module, _ in masks.masked(self.model):
            residue = masks.residue(module)
            if not residue < RESIDUE:
                raise Error(f"weight of {name}", f"masked-out coefficients below {RESIDUE:g} of the largest", f"{residue:.2g}")
        return count(self.model, self.example)

    def settings(self) -> dict[str, Any]:
        """What decides the masks, as plain data: two runs of equal settings, data and recipe end alike."""
        shares = {name: value for name in ("flops", "params", "density") if (value := getattr(self.budget, name)) is not None}
        method = {"transform": self.transform, "block": self.block, "shrink": self.shrink, "refresh": self.refresh}
        return {"budget": shares, **method, "nncs_seed": self.seed}

    def fit(self, train_loader: Iterable, val_loader: Iterable | None = None, epochs: tuple[int, int] = (1, 4), **options: Any) -> History:
        """The ready recipe: `epochs[0]` of step 1, the mask, `epochs[1]` of step 2. See `train.fit` for the options."""
        from cosparse.compress.train import fit

        return fit(self, train_loader, val_loader, epochs, **options)

    @torch.no_grad()
    def _pull(self, optimizer: torch.optim.Optimizer) -> None:
        if self.shrink == 0:
            return
        if self.steps % self.refresh == 0:
            self._cut = thresholds(self.choices, self.report, self.budget, self.seed)
        strength = self.shrink * 2 * min(1.0, (self.steps + 1) / self.ramp) / self.ramp
        rates = {id(p): _rate(group) for group in optimizer.param_groups for p in group["params"]}
        for choice in self.choices:
            weight = choice.module.weight
            if choice.transform is None or weight.grad is None:
                continue
            coefficients = transforms.forward(weight, choice.transform)
            blocks = _in_blocks(coefficients, choice.block)
            norm = blocks.square().sum(1, keepdim=True).sqrt()
            cut = self._cut[choice.name].to(norm)[:, None, None]
            share = torch.clamp(cut / norm.clamp_min(1e-12), max=1.0)
            pull = (blocks * share).flatten(0, 1)[: weight.shape[0]].reshape(weight.shape)
            rate = rates.get(id(weight), 0.0)
            if rate:
                weight.grad.add_(transforms.inverse(pull, choice.transform), alpha=strength / rate)

    @torch.no_grad()
    def _project(self, optimizer: torch.optim.Optimizer | None) -> None:
        for _, module, mask in masks.masked(self.model):
            masks.project(module)
            state = optimizer.state.get(module.weight, {}) if optimizer is not None else {}
            for key in MOMENTA:
                if isinstance(state.get(key), torch.Tensor):
                    state[key].copy_(masks.keep_only(state[key], mask))


def _in_blocks(coefficients: torch.Tensor, block: int) -> torch.Tensor:
    """Coefficients of the weight's shape as [block rows, block, K], the last row padded with zeros."""
    flat = coefficients.flatten(1)
    return nn.functional.pad(flat, (0, 0, 0, -flat.shape[0] % block)).reshape(-1, block, flat.shape[1])


def _rate(group: dict[str, Any]) -> float:
    """How far the weights move in the end per unit of gradient: the learning rate, times what momentum adds up."""
    return float(group["lr"]) / (1 - float(group.get("momentum", 0.0)))
