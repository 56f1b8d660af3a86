"""Clears a functional program of the copies that stand for in-place operations on parts of a tensor.

`y = x[:, :k]; y.relu_()` is exported as a slice, a relu, a slice_scatter that writes the result into a copy of x, and a second slice that
reads it back. Where nobody reads the rest of x, nothing but the relu is left: a part that is read where it was just written is what was
written. Slices and writes of everything, which indexing by `:` leaves, go too.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from cosparse.compress.importer.layout import Size, same, size_of
from cosparse.compress.importer.names import base
from cosparse.compress.importer.ops_slice import position

WRITES = {"slice": "slice_scatter", "select": "select_scatter"}

Range = tuple[int, Size, Size, Any]


def cleared(graph: fx.Graph) -> None:
    """Redirects the readers of such slices, selections and writes, in place; what nobody reads any longer is left for dead."""
    for node in graph.nodes:
        if node.op != "call_function" or base(node.target) not in (*WRITES, *WRITES.values()):
            continue
        source = node.args[0]
        operation, place = base(node.target), _range(node, source)
        if operation in WRITES and base(source.target) == WRITES[operation] and _equal(place, _range(source, source.args[0])):
            node.replace_all_uses_with(source.args[1])
        elif operation.startswith("slice") and _whole(place, source):
            node.replace_all_uses_with(node.args[1] if operation == "slice_scatter" else source)


def _range(node: fx.Node, tensor: fx.Node) -> Range:
    """Dimension, start, stop (of a selection: start), step."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    shape = tensor.meta["val"].shape
    dim = given.get("dim", 0) % len(shape)
    size = size_of(shape[dim])
    start, stop = (None if n is None else size_of(n.meta["val"] if isinstance(n, fx.Node) else n) for n in map(given.get, ("start", "end")))
    if "index" in given:
        index = given["index"]
        start = stop = size_of(index.meta["val"] if isinstance(index, fx.Node) else index)
    return dim, position(start, size, size_of(0)), position(stop, size, size), given.get("step", 1)


def _equal(a: Range, b: Range) -> bool:
    return a[0] == b[0] and a[3] == b[3] and same(a[1], b[1]) and same(a[2], b[2])


def _whole(place: Range, tensor: fx.Node) -> bool:
    dim, start, stop, step = place
    return step == 1 and same(start, size_of(0)) and same(stop, size_of(tensor.meta["val"].shape[dim]))
