"""From pruning rates to channel counts that the device likes, and from counts that cost too little to counts that meet the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cosparse.compress.prune.coupling import ChannelGroup
from cosparse.errors import Error

MULTIPLES = {"cpu": 8, "cuda": 32}
"""Device -> filters that its kernels take at a time: the rows of a block, and half of a warp group's."""

Widths = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rounding:
    """`steps`: each group keeps a multiple of its own, or all of its channels."""

    groups: Sequence[ChannelGroup]
    steps: tuple[int, ...]

    @staticmethod
    def of(groups: Sequence[ChannelGroup], multiple: int) -> Rounding:
        """Multiples of `multiple` that also keep as many channels in each section."""
        if multiple < 1:
            raise Error("multiple", "at least 1", repr(multiple))
        return Rounding(tuple(groups), tuple(math.lcm(multiple, group.sections) for group in groups))

    @property
    def most(self) -> Widths:
        return tuple(group.channels for group in self.groups)

    def widths(self, rates: np.ndarray) -> Widths:
        """Channels that stay at these shares to remove, [groups]: the nearest multiple, at least one, at most all."""
        return tuple(_nearest(group, step, rate) for group, step, rate in zip(self.groups, self.steps, rates, strict=True))

    def filled(self, widths: Widths, over: Callable[[Widths], float]) -> Widths:
        """The widths with steps given back as long as `over` stays at most 1: each time the one that comes closest to 1."""
        while True:
            fitting = [(cost, more) for more in self._wider(widths) if (cost := over(more)) <= 1]
            if not fitting:
                return widths
            widths = max(fitting)[1]

    def _wider(self, widths: Widths) -> list[Widths]:
        return [
            (*widths[:i], min(group.channels, widths[i] + self.steps[i]), *widths[i + 1 :])
            for i, group in enumerate(self.groups)
            if widths[i] < group.channels
        ]


def least(group: ChannelGroup, step: int) -> int:
    """The fewest channels that the group can keep: a multiple, with room for one of each part."""
    return step * max(1, math.ceil(len(group.parts) / step))


def _nearest(group: ChannelGroup, step: int, rate: float) -> int:
    wanted, below = group.channels * (1 - rate), (group.channels - 1) // step * step
    if wanted > (below + group.channels) / 2:
        return group.channels
    return min(group.channels, max(least(group, step), step * math.floor(wanted / step + 0.5)))
