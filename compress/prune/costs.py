"""What a network costs as a function of how many channels its groups keep: multiply-adds, parameters, microseconds on the engine.

Exact for the first two: a layer costs filters x input channels x the rest. Time is read from a table that was measured over widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from cosparse.compress.budget import Budget
from cosparse.compress.count import Report
from cosparse.compress.prune.coupling import ChannelGroup
from cosparse.compress.prune.cut import depthwise, width
from cosparse.compress.width_latency import WidthTable
from cosparse.errors import Error

AGAIN = "measure it with python -m cosparse.bench.width_table"


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs of widths, one for each of the groups that `costs` was given; `table` is needed for time alone.

    `sizes` [2, layers]: input channels and filters before; `taken` [2, layers, groups]: how many of them go with one channel of a group;
    `other` [groups]: parameters beside the weights that go with it; `deep` [layers]: depthwise, one input a filter whatever stays.
    """

    report: Report
    full: np.ndarray  # [groups]
    sizes: np.ndarray
    taken: np.ndarray
    other: np.ndarray
    deep: np.ndarray
    table: WidthTable | None = None

    def channels(self, widths: Sequence[int]) -> np.ndarray:
        """[2, layers]: input channels and filters of every layer where the groups keep so many."""
        return self.sizes - self.taken @ (self.full - np.asarray(widths))

    def _shares(self, widths: Sequence[int]) -> np.ndarray:
        """[layers]: weights left over weights before."""
        inputs, filters = self.channels(widths) / self.sizes
        return np.where(self.deep, 1.0, inputs) * filters

    def flops(self, widths: Sequence[int]) -> float:
        return float(self._shares(widths) @ [layer.flops_dense for layer in self.report.layers]) + self.report.flops_functional

    def params(self, widths: Sequence[int]) -> float:
        weights = self._shares(widths) @ [layer.params_dense for layer in self.report.layers]
        return float(weights) + self.report.params_other - float(self.other @ (self.full - np.asarray(widths)))

    def us(self, widths: Sequence[int]) -> float:
        if self.table is None:
            raise Error("latency", "a table of times over widths", "none", AGAIN)
        inputs, filters = self.channels(widths)
        layers = enumerate(self.report.layers)
        return self.table.other_us + sum(self.table.layers[one.name].at(inputs[i], filters[i]) for i, one in layers if one.calls)

    def over(self, budget: Budget, widths: Sequence[int]) -> float:
        """The largest of all costs over what the budget allows of them: at most 1 where it is met."""
        shares = []
        if budget.flops is not None:
            shares.append(self.flops(widths) / ((1 - budget.flops) * self.report.flops_dense))
        if budget.params is not None:
            shares.append(self.params(widths) / ((1 - budget.params) * self.report.params_dense))
        if budget.latency is not None:
            shares.append(self.us(widths) / budget.latency.bound_us)
        return max(shares)


def costs(model: nn.Module, report: Report, groups: Sequence[ChannelGroup], table: WidthTable | None = None) -> Costs:
    """The costs of a network whose `report` was counted, as a function of the widths of these groups."""
    modules = dict(model.named_modules())
    names = {layer.name: place for place, layer in enumerate(report.layers)}
    sizes = np.array([[width(modules[name], axis) for name in names] for axis in ("in", "out")], dtype=np.float64)
    taken, other = np.zeros((2, len(names), len(groups))), np.zeros(len(groups))
    for g, group in enumerate(groups):
        for member in group.members:
            module, each = modules[member.module], len(member.index) / group.channels
            if member.axis == "out":
                other[g] += each * _beside_weights(module)
            if member.module in names:
                taken[int(member.axis == "out"), names[member.module], g] += each
                if depthwise(module):
                    taken[0, names[member.module], g] += each
    deep = np.array([depthwise(modules[name]) for name in names])
    return Costs(report, np.array([group.channels for group in groups]), sizes, taken, other, deep, table)


def _beside_weights(module: nn.Module) -> int:
    """Parameters of a module that each channel has of its own, the weights of a counted layer left out."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        return int(module.bias is not None)
    return sum(p.numel() // max(1, len(p)) for p in module.parameters(recurse=False) if p.numel() > 1)
