"""Parts of tensors: slices, splits, selections."""

from __future__ import annotations

from dataclasses import replace

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Atom, Dim, Size, Value, axis_of, same, size_of
from cosparse.compress.importer.regroup import apart
from cosparse.compress.importer.table import handles

END = 2**31 - 1


def part(call: Call, x: Value, dim: int, start: Size, stop: Size, step: int = 1, suffix: str = "") -> Value:
    """x[start:stop:step] along `dim`, 0 <= start <= stop <= size, where start or stop may count on from the symbolic size."""
    size = x.shape[dim]
    if same(start, size_of(0)) and same(stop, size) and step == 1:
        return x
    if axis_of(x, dim) is None and not _splits_off(x, dim, stop - start, step):
        x = apart(call, x, dim)
    if any(atom.axis == 0 for atom in x.dims[dim]):
        raise Unsupported("a part of the batch")
    count = (stop - start + step - 1) // step
    if x.expanded or not x.dims[dim]:
        raise Unsupported("a part of a dimension of size 1")
    atom = x.dims[dim][0]
    axis, whole_axis = atom.axis, axis_of(x, dim) is not None
    if whole_axis:
        new: Dim = (Atom(axis, count),)
        name, total, scaled = _cut(call, x.name, axis, (start, stop, size, step), suffix), count, 1
    elif same(atom.size * atom.stride, x.sizes[axis]):
        new = (Atom(axis, count, atom.stride),)
        limits = (start * atom.stride, stop * atom.stride, x.sizes[axis], 1)
        name, total, scaled = _cut(call, x.name, axis, limits, suffix), count * atom.stride, 1
    else:
        scaled, new = call.fixed(atom.size, "size"), ()
        attrs = {"axis": axis, "start": call.fixed(start, "start"), "stop": END, "step": scaled}
        name, total = call.emit("slice", [x.name], attrs, suffix=suffix), x.sizes[axis] / scaled
    sizes = tuple(total if i == axis else s for i, s in enumerate(x.sizes))
    shape = tuple(count if i == dim else s for i, s in enumerate(x.shape))
    dims = tuple(
        (() if same(count, size_of(1)) else new) if i == dim else tuple(_scaled(a, axis, scaled) for a in d) for i, d in enumerate(x.dims)
    )
    return Value(name, sizes, dims, shape, x.origin)


def _cut(call: Call, name: str, axis: int, limits: tuple[Size, Size, Size, int], suffix: str) -> str:
    """The stored value that is [start:stop:step] of `name` along `axis`, of which it has `size`: of a concatenation, what went in."""
    start, stop, size, step = limits
    along, pieces = call.draft.pieces.get(name, (0, []))
    at = size_of(0)
    for piece, length in pieces if along == axis and step == 1 else []:
        end = at + length
        if same(at, start) and same(end, stop):
            return piece
        if all(bound.is_Integer for bound in (at, start, stop, end)) and at <= start and stop <= end:
            return _cut(call, piece, axis, (start - at, stop - at, length, step), suffix)
        at = end
    attrs = {"axis": axis, "start": _bound(call, start, size, 0), "stop": _bound(call, stop, size, END), "step": step}
    return call.emit("slice", [name], attrs, suffix=suffix)


def _scaled(atom: Atom, axis: int, factor: int) -> Atom:
    return replace(atom, stride=atom.stride // factor) if atom.axis == axis and factor > 1 else atom


def _splits_off(x: Value, dim: int, length: Size, step: int) -> bool:
    """Whether one slice of the stored axis takes the part: the slowest factor of an axis, or one index of the fastest."""
    if len(x.dims[dim]) != 1:
        return False
    atom = x.dims[dim][0]
    slowest = same(atom.size * atom.stride, x.sizes[atom.axis]) and step == 1
    return slowest or (atom.stride == 1 and same(length, size_of(1)))


def _bound(call: Call, bound: Size, size: Size, at_end: int) -> int:
    """A bound as the artifact states it: from the end where only its distance to the end is known."""
    if same(bound, size):
        return END if at_end else call.fixed(bound, "start")
    if bound.is_Integer:
        return int(bound)
    return -call.fixed(size - bound, "a slice's bound")


def position(bound: Size | None, size: Size, default: Size) -> Size:
    """A bound counted from the start, clamped to 0..size."""
    if bound is None:
        return default
    if bound.is_Integer:
        if bound < 0:
            bound = size + bound
            return size_of(0) if bound.is_Integer and bound < 0 else bound
        if int(bound) >= END or (size.is_Integer and bound > size):
            return size
    return bound


@handles("slice")
def slice_(call: Call) -> Value:
    x, dim, step = call.value(), call.dim(), call.integer("step")
    size = x.shape[dim]
    start, stop = (None if (n := call.arguments[name]) is None else call.size(n) for name in ("start", "end"))
    first, last = position(start, size, size_of(0)), position(stop, size, size)
    return replace(part(call, x, dim, first, last, step), origin=call.node)


@handles("narrow")
def narrow(call: Call) -> Value:
    x, dim = call.value(), call.dim()
    start = position(call.size(call.arguments["start"]), x.shape[dim], size_of(0))
    return part(call, x, dim, start, start + call.size(call.arguments["length"]))


@handles("select")
def select(call: Call) -> Value:
    x, dim = call.value(), call.dim()
    start = position(call.size(call.arguments["index"]), x.shape[dim], size_of(0))
    return without(part(call, x, dim, start, start + 1), dim)


def without(x: Value, dim: int) -> Value:
    return replace(x, dims=x.dims[:dim] + x.dims[dim + 1 :], shape=x.shape[:dim] + x.shape[dim + 1 :])


@handles("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> tuple[Value, ...]:
    """Pieces as long as torch's own results are."""
    x, dim = call.value(), call.dim()
    start, pieces = size_of(0), []
    for piece in call.node.meta["val"]:
        stop = start + size_of(piece.shape[dim])
        pieces.append((start, stop))
        start = stop
    if not same(start, x.shape[dim]):
        raise Unsupported("the pieces of a split")
    return tuple(part(call, x, dim, first, last) for first, last in pieces)


@handles("unbind")
def unbind(call: Call) -> tuple[Value, ...]:
    x, dim = call.value(), call.dim()
    count = call.fixed(x.shape[dim], "the number of tensors")
    return tuple(without(part(call, x, dim, size_of(i), size_of(i + 1)), dim) for i in range(count))
