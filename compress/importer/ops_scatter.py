"""What torch.export makes of in-place operations on parts of a tensor: a part is computed, then written into a copy of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Filled, OfBatch, Size, Value, lifted, same, size_of
from cosparse.compress.importer.ops_arithmetic import numbers_by_channel
from cosparse.compress.importer.ops_join import joined, with_filled
from cosparse.compress.importer.ops_pointwise import affine
from cosparse.compress.importer.ops_slice import part, position
from cosparse.compress.importer.stored_constant import for_image, laid_as
from cosparse.compress.importer.table import handles


@handles("copy", "fill")
def copy(call: Call) -> Value:
    """The second argument in the shape of the first."""
    source = call.get("src" if call.op == "copy" else "value")
    if isinstance(source, Value):
        return replace(lifted(source, len(call.shape)), shape=call.shape, origin=call.node)
    return _spread(call, call.value("self"), source)


@handles("slice_scatter")
def slice_scatter(call: Call) -> Value:
    x, dim = call.get("self"), call.dim(rank=len(call.shape))
    size = call.shape[dim]
    if call.integer("step") != 1:
        raise Unsupported("a write to every second place or fewer")
    start, stop = (None if (n := call.arguments[name]) is None else call.size(n) for name in ("start", "end"))
    return _written(call, x, dim, position(start, size, size_of(0)), position(stop, size, size), call.get("src"))


@handles("select_scatter")
def select_scatter(call: Call) -> Value:
    x, dim, source = call.get("self"), call.dim(rank=len(call.shape)), call.get("src")
    start = position(call.size(call.arguments["index"]), call.shape[dim], size_of(0))
    if isinstance(source, Value):
        shape = (*source.shape[:dim], size_of(1), *source.shape[dim:])
        source = replace(source, dims=(*source.dims[:dim], (), *source.dims[dim:]), shape=shape)
    elif isinstance(source, Tensor | OfBatch):
        source = for_image(source, len(call.shape) - 1).unsqueeze(dim)
    return _written(call, x, dim, start, start + 1, source)


def _written(call: Call, x: Any, dim: int, start: Size, stop: Size, source: Any) -> Value:
    """x with [start:stop] along `dim` replaced: what lies before, the source, what lies behind, joined."""
    if isinstance(x, Filled) and isinstance(source, Value):
        ends = [(size_of(0), start), (stop, x.shape[dim])]
        before, behind = ([replace(x, shape=_resized(x.shape, dim, b - a))] if not same(a, b) else [] for a, b in ends)
        return with_filled(call, [*before, source, *behind], dim)
    if isinstance(x, Tensor | OfBatch) and isinstance(source, Value):
        numbers, stops = for_image(x, len(call.shape)), [call.fixed(n, "a bound") for n in (start, stop)]
        parts = numbers.tensor_split(stops, dim)
        return joined(call, [p for p in (parts[0], source, parts[2]) if isinstance(p, Value) or p.shape[dim]], dim, call.shape)
    x = call.value("self")
    if any(atom.axis == 0 for atom in x.dims[dim]):
        raise Unsupported("a write to a part of the batch")
    if not isinstance(source, Value):
        source = _spread(call, part(call, x, dim, start, stop), source)
    pieces = [source]
    if not same(start, size_of(0)):
        pieces.insert(0, part(call, x, dim, size_of(0), start, suffix="before"))
    if not same(stop, x.shape[dim]):
        pieces.append(part(call, x, dim, stop, x.shape[dim], suffix="behind"))
    return joined(call, pieces, dim, call.shape)


def _resized(shape: tuple[Size, ...], dim: int, size: Size) -> tuple[Size, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _spread(call: Call, like: Value, source: Any) -> Value:
    """A constant in the shape of `like`."""
    numbers = for_image(source, len(like.shape))
    by_channel = numbers_by_channel(like, numbers)
    return laid_as(call, like, numbers) if by_channel is None else affine(call, like, 0, by_channel)
