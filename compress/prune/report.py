"""Every layer before and after pruning, and the reason where it was left as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cosparse.compress.count import Report
from cosparse.compress.prune.coupling import ChannelGroup


@dataclass(frozen=True)
class LayerChange:
    """One layer: [inputs, filters] before and after, multiply-adds before and after, and `why` its filters were left alone, else ""."""

    name: str
    kind: str
    before: tuple[int, int]
    after: tuple[int, int]
    flops_before: float
    flops_after: float
    why: str


@dataclass(frozen=True)
class PruneReport:
    """The network before and after, layer by layer; `search` is what was searched for and found, as plain data."""

    before: Report
    after: Report
    layers: tuple[LayerChange, ...]
    search: Mapping[str, Any]

    @property
    def flops_reduction(self) -> float:
        """Share of the dense network's multiply-adds that is gone."""
        return 1 - self.after.flops_dense / self.before.flops_dense

    @property
    def params_reduction(self) -> float:
        return 1 - self.after.params_dense / self.before.params_dense

    def totals(self) -> dict[str, float]:
        return {
            "params_before": self.before.params_dense,
            "params_after": self.after.params_dense,
            "params_reduction": self.params_reduction,
            "flops_before": self.before.flops_dense,
            "flops_after": self.after.flops_dense,
            "flops_reduction": self.flops_reduction,
        }

    def to_json(self) -> str:
        return json.dumps({**self.totals(), "search": dict(self.search), "layers": [asdict(layer) for layer in self.layers]}, indent=1)

    def __str__(self) -> str:
        rows = [("layer", "kind", "inputs", "filters", "MFLOP before", "after", "left alone because")]
        for layer in self.layers:
            inputs, filters = (_arrow(a, b) for a, b in zip(layer.before, layer.after, strict=True))
            flops = (f"{layer.flops_before / 1e6:.3f}", f"{layer.flops_after / 1e6:.3f}")
            rows.append((layer.name, layer.kind, inputs, filters, *flops, layer.why))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) if i in (0, 1, 6) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        total = (
            f"parameters {self.before.params_dense:,} -> {self.after.params_dense:,} (-{self.params_reduction:.2%}); "
            f"MFLOP {self.before.flops_dense / 1e6:.2f} -> {self.after.flops_dense / 1e6:.2f} (-{self.flops_reduction:.2%})"
        )
        return "\n".join([*(line.rstrip() for line in lines), total])


def _arrow(before: int, after: int) -> str:
    return str(before) if before == after else f"{before} -> {after}"


def report(
    before: Report, after: Report, groups: Sequence[ChannelGroup], left: Mapping[str, str], search: Mapping[str, Any]
) -> PruneReport:
    """`left`: group name -> why it was not searched."""
    reasons = {member.module: left.get(group.name, "") for group in groups for member in group.on("out")}
    then = {layer.name: layer for layer in after.layers}
    layers = []
    for layer in before.layers:
        now = then[layer.name]
        filters, smaller = _sizes(layer.kind, layer.shape), _sizes(now.kind, now.shape)
        why = reasons.get(layer.name, "" if layer.calls else "never runs on the example")
        if not why and filters[1] == smaller[1]:
            why = "the search kept all of its filters" if layer.name in reasons else "no group holds its filters"
        layers.append(LayerChange(layer.name, layer.kind, filters, smaller, layer.flops_dense, now.flops_dense, why))
    return PruneReport(before, after, tuple(layers), dict(search))


def _sizes(kind: str, shape: Sequence[int]) -> tuple[int, int]:
    """(inputs, filters) of a weight; a grouped convolution's inputs are those of one part."""
    return (shape[0], shape[1]) if kind == "ConvTranspose2d" else (shape[1], shape[0])
