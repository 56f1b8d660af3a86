"""NNCS: training that makes weights sparse in a transform domain, then trains the coefficients that are kept.

Step 1 pulls the weights towards the sparse representation that is recovered from them, harder and harder (`step1`, `pull`).
Step 2 trains the kept coefficients only. T is orthonormal, so SGD with momentum and weight decay on s equals SGD on w followed by
projecting w and its momentum onto the kept coefficients after every step: no special layer is needed. Its masks may move (`regrow`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cosparse.compress import distributed, given, masks
from cosparse.compress.budget import Budget
from cosparse.compress.count import Report, count
from cosparse.compress.fisher import FisherMean, fisher
from cosparse.compress.grouping import GroupReport, group_filters
from cosparse.compress.hierarchy import hierarchy
from cosparse.compress.impose import assign, densities, thresholds
from cosparse.compress.layers import choose
from cosparse.compress.pull import Pull
from cosparse.compress.regrow import Regrow, regrow_masks
from cosparse.compress.step1 import Step1
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.loop import State
    from cosparse.compress.train import History

RESIDUE = 1e-6
"""Largest masked-out coefficient relative to the layer's largest that counts as zero."""

MOMENTA = ("momentum_buffer", "exp_avg")
"""Optimizer state that is linear in the gradients and therefore projected like the weight (SGD's and Adam's names)."""


SCORES = ("energy", "fisher")
"""What a block is worth: its energy, or the loss that dropping it costs (`cosparse.compress.fisher`)."""


class NNCS:
    """Sparsifies `model` in place, in the user's own loop or by `fit`.

        loss.backward(); nncs.step(optimizer)    ...    nncs.mask()    ...    loss.backward(); nncs.step(optimizer)    ...    nncs.finish()

    `step1`: its settings. `shrink` and `refresh` replace those in it: by how many e-foldings step 1 shrinks a block that is about to be
    dropped, over `ramp` steps, 0 leaves step 1 plain; and the steps between two looks at where the budget would cut.
    `transform` is a text as in transforms/spec.py, which `layers` overrides for single layers (also "dense"); a fitted transform is fitted
    to the weights given, for step 1, and anew in `mask`, unless Fisher scores were taken in it.
    `score`: what blocks are ranked by, "energy" or "fisher", which step 1 estimates from its gradients, else `estimate`. `group`: first put
    filters that keep the same columns side by side; `grouped` reports it. `regrow`: let step 2 move the masks. `group_rows`, `slack`: bound
    what a GPU executes, as in `impose`.
    `model` may be wrapped by torch.compile or in DistributedDataParallel: gradients that DDP has averaged keep weights and masks equal on
    all ranks, which `mask` checks. Raises Error at once where the budget cannot be met.
    """

    def __init__(
        self,
        model: nn.Module,
        budget: Budget,
        example: torch.Tensor | tuple[torch.Tensor, ...],
        transform: str = "dct",
        block: int = 8,
        *,
        step1: Step1 | None = None,
        shrink: float | None = None,
        ramp: int = 1000,
        refresh: int | None = None,
        layers: Mapping[str, str] | None = None,
        seed: int = 0,
        score: str = "energy",
        group: bool = False,
        regrow: Regrow | None = None,
        group_rows: int | None = None,
        slack: float | None = None,
    ) -> None:
        if score not in SCORES:
            raise Error("NNCS.score", f"one of {', '.join(SCORES)}", repr(score))
        if ramp < 1:
            raise Error("NNCS", "ramp >= 1", f"ramp {ramp}")
        pull = {name: value for name, value in (("shrink", shrink), ("refresh", refresh)) if value is not None}
        self.model = model = given.taken(model)
        given.require_masks_hold(model)
        self.budget, self.example, self.transform, self.block, self.seed = budget, example, transform, block, seed
        self.step1, self.ramp = replace(step1 or Step1(), **pull), ramp  # type: ignore[arg-type]
        self.report = count(model, example)
        self.choices = choose(model, self.report, transform, block, layers)
        self.groups = hierarchy(group_rows, slack, block)
        self.steps = 0
        self.masked = any(True for _ in masks.masked(model))
        self.score, self.fisher = score, FisherMean()
        self.regrow, self.masked_at = regrow, 0
        self.grouped: GroupReport | None = None
        if group and not self.masked:
            kept = densities(self.choices, self.report, budget, seed, self.groups)
            self.grouped = group_filters(model, example, transform, block, kept, layers=layers)
        self.pull = Pull(self.choices, self._cuts, self.step1, seed)

    def step(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        """`optimizer.step()` with what the current phase adds: before `mask` the pull of step 1, after it the projection.

        With the `scaler` of a float16 loop given, the gradients are unscaled first and the step is the scaler's, which leaves out a step
        whose gradients have overflowed; so does everything here then. `scaler.update()` stays the caller's.
        """
        if scaler is not None:
            scaler.unscale_(optimizer)
            if not _finite(optimizer):
                scaler.step(optimizer)
                return
        if not self.masked:
            if self.score == "fisher":
                self.fisher.add(self.choices)
            self.pull.before(optimizer, self.steps, self.ramp)
        elif self.regrow and (share := self.regrow.share_at(self.steps - self.masked_at)):
            regrow_masks(self.model, share)
        optimizer.step() if scaler is None else scaler.step(optimizer)
        if self.masked:
            self._project(optimizer)
        else:
            self.pull.after(optimizer, self.steps, self.ramp)
        self.steps += 1

    def mask(self, optimizer: torch.optim.Optimizer | None = None) -> Report:
        """Chooses the masks from the present weights and projects onto them; the step-2 phase begins.

        With the optimizer given, its momentum is projected too (else the next step does it).
        """
        if self.masked:
            raise Error("NNCS.mask", "one call", "masks that are there already")
        if self.score == "fisher" and not self.fisher.count:
            next_step = "step() makes them in step 1, estimate(loader) at any time before mask()"
            raise Error("NNCS.mask", "gradients for the Fisher score", "none yet", next_step)
        assign(self.choices, self.report, self.budget, self.seed, self.fisher.mean if self.score == "fisher" else None, self.groups)
        distributed.require_equal("masks", {name: mask.keep for name, _, mask in masks.masked(self.model)})
        self.masked, self.masked_at = True, self.steps
        self.pull.release()
        self._project(optimizer)
        return count(self.model, self.example)

    def estimate(self, loader: Iterable, batches: int = 50) -> None:
        """Replaces what the Fisher score has gathered so far by an estimate from `batches` batches (x, labels) at the present weights."""
        self.fisher.restore(fisher(self.model, loader, batches, self.choices), batches, self.choices)

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
        masking = {"score": self.score, "group": self.grouped is not None, "regrow": self.regrow.settings() if self.regrow else None}
        groups = self.groups.settings() if self.groups else {}
        method = {"transform": self.transform, "block": self.block, **groups, **asdict(self.step1), **masking}
        return {"budget": self.budget.settings(), **method, "nncs_seed": self.seed}

    def state(self) -> State:
        """Masks, what choosing and moving them goes on from, and what step 1 carries, as a checkpoint holds them."""
        keep, layers = masks.to_tensors(self.model)
        mean, count = self.fisher.state()
        notes = {"steps": self.steps, "masked": self.masked, "layers": layers, "fisher_count": count, "masked_at": self.masked_at}
        return {"mask": keep, "fisher": mean, **self.pull.state()}, notes

    def restore(self, groups: Mapping[str, Mapping[str, torch.Tensor]], notes: Mapping[str, Any]) -> None:
        """Takes over what `state` gave; the weights are the caller's to restore."""
        masks.from_tensors(self.model, groups.get("mask", {}), notes["layers"])
        self.pull.restore(groups)
        self.fisher.restore(groups.get("fisher", {}), notes["fisher_count"], self.choices)
        self.steps, self.masked, self.masked_at = notes["steps"], notes["masked"], notes["masked_at"]

    def fit(self, train_loader: Iterable, val_loader: Iterable | None = None, epochs: tuple[int, int] = (1, 4), **options: Any) -> History:
        """The ready recipe: `epochs[0]` of step 1, the mask, `epochs[1]` of step 2. See `train.fit` for the options."""
        from cosparse.compress.train import fit

        return fit(self, train_loader, val_loader, epochs, **options)

    @torch.no_grad()
    def _cuts(self) -> dict[str, torch.Tensor]:
        """The norms at which the budget's rule would cut now."""
        felt = self.fisher.mean if self.fisher.count >= self.step1.refresh else None  # fewer gradients say little: energy until then
        return thresholds(self.choices, self.report, self.budget, self.seed, felt, self.groups)

    @torch.no_grad()
    def _project(self, optimizer: torch.optim.Optimizer | None) -> None:
        for _, module, mask in masks.masked(self.model):
            masks.project(module)
            state = optimizer.state.get(module.weight, {}) if optimizer is not None else {}
            for key in MOMENTA:
                if isinstance(state.get(key), torch.Tensor):
                    state[key].copy_(masks.keep_only(state[key], mask))


def _finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether no gradient has overflowed."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return not gradients or bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
