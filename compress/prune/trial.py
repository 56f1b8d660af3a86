"""One candidate of a search, made and scored: pruned by importance, folded, batch norm estimated anew, the loss on images held out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cosparse.compress.prune.coupling import ChannelGroup, Kept
from cosparse.compress.prune.cut import cut
from cosparse.compress.prune.moments import Moments, fold
from cosparse.compress.prune.order import kept
from cosparse.compress.prune.rounding import Rounding, Widths
from cosparse.compress.prune.statistics import reestimate
from cosparse.compress.score import evaluate

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Trial:
    """The fitness of widths, one for each of `groups`: the cross-entropy on `scoring` of the network that keeps so many channels.

    Everything random or measured is in here, so that equal widths give equal networks, in whichever process. `order`: group -> channels,
    the first to go first. `moments`: None leaves out the fold. `calibration`: inputs for the running statistics. `precision`: what products
    are computed in, as in `Recipe`.
    """

    model: nn.Module
    groups: Sequence[ChannelGroup]
    order: Mapping[str, np.ndarray]
    moments: Moments | None
    calibration: Sequence[torch.Tensor]
    scoring: Sequence[Batch]
    precision: str = "float32"

    def __call__(self, widths: Widths) -> float:
        network = self.network(widths)
        with self._cast():
            return evaluate(network, self.scoring).loss

    def kept(self, widths: Widths) -> Kept:
        """Group -> the channels that stay; groups that stay whole are left out."""
        pairs = zip(self.groups, widths, strict=True)
        return {group.name: kept(group, self.order[group.name], width) for group, width in pairs if width < group.channels}

    def network(self, widths: Widths) -> nn.Module:
        """The smaller network, in evaluation mode."""
        stays = self.kept(widths)
        model = self.model
        if self.moments is not None and stays:
            model = copy.deepcopy(model)
            fold(model, self.groups, stays, self.moments)
        small = cut(model, self.groups, stays).eval()
        if stays:
            with self._cast():
                reestimate(small, self.calibration)
        return small

    def _cast(self) -> AbstractContextManager:
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, dtype=getattr(torch, self.precision), enabled=self.precision != "float32")


@dataclass(frozen=True, eq=False)
class Filled:
    """The fitness of the widths that the budget has room for (`Rounding.filled`): what a candidate becomes in the end is what is scored."""

    trial: Trial
    rounding: Rounding
    over: Callable[[Widths], float]

    def __call__(self, widths: Widths) -> float:
        return self.trial(self.rounding.filled(widths, self.over))
