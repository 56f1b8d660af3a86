"""Views, permutations, concatenation: what moves numbers without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Atom, Size, Value, in_order, lifted, permuted, product, same, size_of, viewed
from cosparse.compress.importer.regroup import laid
from cosparse.compress.importer.table import handles


@handles("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def view(call: Call) -> Value:
    x = call.value()
    if x.expanded:
        x = call.as_stored(x)
    result = viewed(x, _written(call), call.node)
    if result is None:
        raise Unsupported("a view that splits an axis unevenly or by a size that depends on the input's")
    return result


def _written(call: Call) -> tuple[Size, ...]:
    """The result's sizes, as numbers where the program has numbers: torch may give what -1 leaves beside them as a quotient of symbols."""
    sizes = call.arguments.get("size", call.arguments.get("shape")) if call.op in ("view", "reshape", "_unsafe_view") else None
    if not isinstance(sizes, list | tuple) or len(sizes) != len(call.shape):
        return call.shape
    return tuple(size_of(n) if type(n) is int and n > 0 else size for n, size in zip(sizes, call.shape, strict=True))


@handles("permute")
def permute(call: Call) -> Value:
    x = call.value()
    return permuted(x, [dim % len(x.dims) for dim in call.integers("dims", 1)], call.node)


@handles("transpose", "swapaxes", "swapdims", "t")
def transpose(call: Call) -> Value:
    x = call.value()
    order = list(range(len(x.dims)))
    names = {"transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1"), "swapdims": ("dim0", "dim1")}.get(call.op)
    a, b = (call.dim(name) for name in names) if names else (0, len(order) - 1)
    order[a], order[b] = b, a
    return permuted(x, order, call.node)


@handles("movedim", "moveaxis")
def movedim(call: Call) -> Value:
    x = call.value()
    rank = len(x.dims)
    source, target = ([dim % rank for dim in call.integers(name, 1)] for name in ("source", "destination"))
    rest = [dim for dim in range(rank) if dim not in source]
    moved = dict(zip(target, source, strict=True))
    return permuted(x, [moved[i] if i in moved else rest.pop(0) for i in range(rank)], call.node)


@handles("expand", "expand_as")
def expand(call: Call) -> Value:
    return replace(lifted(call.value(), len(call.shape)), shape=call.shape, origin=call.node)


@handles("pixel_shuffle")
def pixel_shuffle(call: Call) -> Value:
    attrs = {"block": [call.integer("upscale_factor")] * 2, "order": "crd", "crop": [0, 0, 0, 0]}
    return call.result(call.emit("depth_to_space", [call.plain()], attrs))


@handles("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Value:
    return call.result(call.emit("channel_shuffle", [call.plain()], {"groups": call.integer("groups")}))


def _tensors(call: Call) -> list[Value]:
    tensors = call.get("tensors")
    if not all(isinstance(t, Value) for t in tensors):
        raise Unsupported("a constant among the tensors")
    return list(tensors)


@handles("cat", "concat", "concatenate")
def cat(call: Call) -> Value:
    tensors, dim = _tensors(call), call.dim(rank=len(call.shape))
    if len(tensors) == 1:
        return tensors[0]
    if (place := _joint(tensors, dim)) is None:
        if dim == 0:
            raise Unsupported("a concatenation of batches")
        tensors = _side_by_side(call, tensors, dim)
        place = _joint(tensors, dim) or (dim, 1)
    axis, stride = place
    if axis == 0:
        raise Unsupported("a concatenation of batches")
    name = call.emit("concat", [t.name for t in tensors], {"axis": axis})
    sizes = tuple(call.shape[dim] * stride if i == axis else size for i, size in enumerate(tensors[0].sizes))
    dims, shape = list(tensors[0].dims), list(tensors[0].shape)
    dims[dim], shape[dim] = (Atom(axis, call.shape[dim], stride),), call.shape[dim]
    return Value(name, sizes, tuple(dims), tuple(shape))


def _joint(tensors: list[Value], dim: int) -> tuple[int, int] | None:
    """The stored axis of which `dim` is the slowest factor in all tensors, and its stride there; None where they do not lie alike."""
    axis, stride = next(((d[0].axis, d[0].stride) for t in tensors if len(d := t.dims[dim]) == 1), (0, 0))
    others = [d for i, d in enumerate(tensors[0].dims) if i != dim]
    for t in tensors:
        size = product(atom.size for atom in t.dims[dim])
        if t.expanded or len(t.sizes) != len(tensors[0].sizes) or [d for i, d in enumerate(t.dims) if i != dim] != others:
            return None
        if not stride or len(t.dims[dim]) > 1 or not same(size * stride, t.sizes[axis]):
            return None
        if t.dims[dim] and (t.dims[dim][0].axis, t.dims[dim][0].stride) != (axis, stride):
            return None
    return axis, stride


def _side_by_side(call: Call, tensors: list[Value], dim: int) -> list[Value]:
    """The tensors stored so that `dim` is an axis of its own, and all other dimensions lie alike."""
    rank = len(call.shape)
    if rank in (2, 4):
        return [call.as_stored(t) for t in tensors]
    outer, inner = range(1, dim), range(dim + 1, rank)
    groups: tuple[Sequence[int], ...] = outer, [dim], inner
    if not inner:
        groups = outer, [], [dim]
    elif not outer and all(in_order(replace(t, dims=(t.dims[0], *(t.dims[i] for i in inner), t.dims[dim]))) for t in tensors):
        groups = inner, [], [dim]
    return [laid(call, t, *groups) for t in tensors]


@handles("stack")
def stack(call: Call) -> Value:
    """A concatenation of channels whose slowest factor is the new dimension."""
    tensors, dim = _tensors(call), call.dim(rank=len(call.shape))
    first = tensors[0]
    if any(t.expanded or t.dims != first.dims or not all(map(same, t.sizes, first.sizes)) for t in tensors):
        raise Unsupported("a stack of tensors with different layouts")
    channels = call.fixed(first.sizes[1], "channels")
    name = call.emit("concat", [t.name for t in tensors], {"axis": 1}) if len(tensors) > 1 else first.name
    sizes = (first.sizes[0], size_of(channels * len(tensors)), *first.sizes[2:])
    new = (Atom(1, size_of(len(tensors)), channels),) if len(tensors) > 1 else ()
    return Value(name, sizes, (*first.dims[:dim], new, *first.dims[dim:]), call.shape, call.node)
