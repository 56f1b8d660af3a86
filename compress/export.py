"""From a torch model, with masks or without, to an artifact file that is known to compute the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosparse.compress import given
from cosparse.compress.count import Report, as_tuple, count
from cosparse.compress.importer import from_torch, known
from cosparse.compress.importer.ranges import MOST
from cosparse.compress.pack import Packed, pack
from cosparse.compress.verify import TOLERANCE, check_outputs, check_weights
from cosparse.engine import artifact
from cosparse.engine.graph import Graph


@dataclass(frozen=True)
class ExportReport:
    """What was written: the layers as stored, the counts, and the largest output difference from torch, relative to the largest output.

    `sizes`: the heights and widths that the artifact takes, and why no others, where torch takes more; else empty.
    """

    path: Path
    name: str
    bytes: int
    layers: tuple[Packed, ...]
    counts: Report
    difference: float
    sizes: str = ""

    def __str__(self) -> str:
        lines = [f"{'layer':32} {'op':7} {'stored as':14} {'density':>8} {'bytes dense':>12} {'bytes':>10}"]
        for layer in self.layers:
            form = "dense" if layer.block == 1 and layer.density == 1 else f"{layer.transform} {layer.block}x1"
            lines.append(f"{layer.name:32} {layer.op:7} {form:14} {layer.density:8.3f} {layer.bytes_dense:12,} {layer.bytes:10,}")
        lines += [self.sizes] * bool(self.sizes)
        lines.append(f"{self.path}: {self.bytes:,} bytes; outputs within {self.difference:.2g} of torch's largest")
        return "\n".join(lines)


def export(
    model: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> ExportReport:
    """Writes the model, in evaluation mode, as an artifact; the model itself is left as it was.

    `preprocessing` and `provenance` are JSON objects that the file keeps; the counts, the check and, where there are filter groups, the
    density of open columns by layer are added to the provenance.
    `tolerance`: largest output difference from torch relative to the largest output (default 1e-4). Nothing is written, and an older file
    stays, where a layer has weight outside its mask, an operator cannot be stored, or the packed network differs from torch: Error names
    the node.
    """
    inputs, model = as_tuple(example), given.taken(model)
    given.require_float32(model, inputs)
    bound = TOLERANCE if tolerance is None else tolerance
    with given.evaluating(model):
        counts = count(model, example)
        graph = from_torch(model, inputs, name or "")
        known.remember(model, inputs)
        packed, layers = pack(graph, model)
        check_weights(graph, packed)
        difference = check_outputs(packed, model, inputs, counts.flops_dense, bound)
    check = {"largest_relative_difference": difference, "tolerance": bound}
    opened = {"opened": counts.opened} if counts.opened else {}
    notes = {**packed.provenance, **counts.totals(), **opened, "check": check, **(provenance or {})}
    artifact.write(path, replace(packed, preprocessing=dict(preprocessing or {}), provenance=notes))
    return ExportReport(Path(path), packed.name, os.path.getsize(path), layers, counts, difference, _sizes(packed))


def _sizes(graph: Graph) -> str:
    """The sizes that the graph takes, in words; empty where the model takes no others."""
    why = str(graph.provenance["import"]["size"])
    if why == "free":
        return ""
    taken = [f"input {x.name!r}: " + " and ".join(map(_range, ("height", "width"), x.sizes)) for x in graph.inputs if x.sizes]
    return f"{', '.join(taken)}; {why}" if taken else ""


def _range(axis: str, limits: tuple[int, int]) -> str:
    low, high = limits
    if high == MOST:
        return f"any {axis}" if low == 1 else f"a {axis} of at least {low}"
    return f"a {axis} of {low}" if low == high else f"a {axis} from {low} to {high}"
