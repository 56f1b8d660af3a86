"""Heights and widths for which an imported graph is the model's.

torch.export follows one way through the model's code and says for which sizes that way holds. Its lower bounds are cautious: they exclude
planes of a single row or column, which are a case of their own to it. So what lies right below a bound is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from cosparse.compress import given
from cosparse.compress.importer.layout import size_of
from cosparse.engine.graph import Graph
from cosparse.errors import Error
from cosparse.kernels import reference

MOST = 2**31 - 1  # an axis of an artifact
CLOSE = 1e-3  # of the largest value: another way through the code gives another shape or differs by far more

Range = tuple[int, int]


def traced(node: fx.Node, exported: ExportedProgram) -> tuple[Range, Range] | None:
    """Least and greatest height and width of an input for which the traced way holds; None for an input without them."""
    shape = node.meta["val"].shape
    if len(shape) != 4:
        return None
    height, width = (_range(size_of(size), exported) for size in shape[2:])
    return height, width


def _range(size: Any, exported: ExportedProgram) -> Range:
    if size.is_Integer:
        return int(size), int(size)
    known = exported.range_constraints.get(size)
    if known is None:
        return 1, MOST
    return 1 if known.lower <= 2 else int(known.lower), int(min(known.upper, MOST))  # 2 is where it begins to count


def settled(graph: Graph, model: nn.Module, inputs: Sequence[Tensor]) -> Graph:
    """The graph without lower bounds that the model does not have; ranges that allow everything are left out."""
    cautious = [i for i, value in enumerate(graph.inputs) if value.sizes and any(1 < low < high for low, high in value.sizes)]
    if cautious and _holds(graph, model, [_below(x, graph, i) for i, x in enumerate(inputs)]):
        graph = replace(graph, inputs=tuple(replace(v, sizes=_without_least(v.sizes)) for v in graph.inputs))
    everything = ((1, MOST), (1, MOST))
    return replace(graph, inputs=tuple(replace(v, sizes=None) if v.sizes == everything else v for v in graph.inputs))


def _without_least(sizes: tuple[Range, Range] | None) -> tuple[Range, Range] | None:
    if sizes is None:
        return None
    height, width = ((low if low == high else 1, high) for low, high in sizes)
    return height, width


def _below(x: Tensor, graph: Graph, place: int) -> Tensor:
    """A normal random input, one row or column below each bound that may be a cautious one."""
    sizes = graph.inputs[place].sizes
    shape = list(x.shape)
    for axis, (low, high) in enumerate(sizes or (), 2):
        shape[axis] = low - 1 if 1 < low < high else shape[axis]
    return torch.randn(shape, generator=torch.Generator().manual_seed(place)).to(x)


def _holds(graph: Graph, model: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether model and graph agree on these inputs; not where the model does not take them."""
    try:
        with given.evaluating(model):
            wanted = given.outputs(model, tuple(inputs))
        got = reference.run(graph, *(x.float().cpu().numpy() for x in inputs))
    except Error:
        return False
    if [y.shape for y in got] != [y.shape for y in wanted]:
        return False
    pairs = zip(got, wanted, strict=True)
    return all(float(np.abs(y - z).max(initial=0.0)) <= CLOSE * float(np.abs(z).max(initial=0.0)) for y, z in pairs)
