"""Tensors of any rank, stored with the dimension that an operator works along on an axis of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Atom, Dim, Value, joined, product, same, size_of, whole


def laid(call: Call, x: Value, *groups: Sequence[int]) -> Value:
    """`x` itself, stored as [N, g, g, g]: each of three groups of its dimensions is one axis. Raises Unsupported where no operator can."""
    if x.expanded:
        raise Unsupported("an expanded tensor")
    dims = (x.dims[0], *(joined(atom for d in group for atom in x.dims[d]) for group in groups))
    made = call.as_stored(Value(x.name, x.sizes, dims, (x.shape[0], *(product(x.shape[d] for d in group) for group in groups)), x.origin))
    new: dict[int, Dim] = {0: made.dims[0]}
    for axis, group in enumerate(groups, 1):
        if len(group) == 1:  # of any size: those of several need strides
            new[group[0]] = whole(axis, made.sizes[axis])
            continue
        stride = 1
        for d in reversed(group):
            new[d] = () if same(x.shape[d], size_of(1)) else (Atom(axis, x.shape[d], stride),)
            stride *= call.fixed(x.shape[d], "a dimension") if d != group[0] else 1
    return Value(made.name, made.sizes, tuple(new[d] for d in range(len(x.dims))), x.shape, x.origin)


def apart(call: Call, x: Value, dim: int) -> Value:
    """`x` stored so that one slice takes a part of `dim`: as it stands, as the slowest factor of the channels, or on its own axis."""
    rank = len(x.dims)
    if rank in (2, 4):
        return call.as_stored(x)
    return _slowest_channels(call, x, dim) or laid(call, x, range(1, dim), [dim], range(dim + 1, rank))


def ahead(call: Call, x: Value, dim: int) -> Value:
    """`x` stored with dimension `dim` as its channels."""
    rest = [d for d in range(1, len(x.dims)) if d != dim]
    if dim == 0:
        raise Unsupported("a softmax over the batch")
    return call.as_stored(x) if len(x.dims) == 2 else laid(call, x, [dim], rest[:-1], rest[-1:])


def alongside(call: Call, a: Value, b: Value) -> tuple[Value, Value]:
    """Two tensors of equal rank, which broadcast, in one layout."""
    rank = len(a.dims)
    if rank == 3:
        return laid(call, a, [1], [], [2]), laid(call, b, [1], [], [2])
    if rank > 4 and all(map(same, a.shape, b.shape)):
        groups = [1], range(2, rank - 1), [rank - 1]
        return laid(call, a, *groups), laid(call, b, *groups)
    return call.as_stored(a), call.as_stored(b)


def _slowest_channels(call: Call, x: Value, dim: int) -> Value | None:
    """The channels turned so that `dim` is their slowest factor, height and width as they are: their sizes may be free."""
    front = list(x.dims[dim])
    behind = sorted((a for i, d in enumerate(x.dims) if i != dim for a in d if a.axis == 1), key=lambda a: -a.stride)
    if len(x.sizes) != 4 or x.expanded or not front or any(a.axis != 1 or not a.size.is_Integer for a in front + behind):
        return None
    channels = joined([*front, *behind])
    made = call.as_stored(Value(x.name, x.sizes, (whole(0, x.sizes[0]), channels, *map(whole, (2, 3), x.sizes[2:])), x.sizes, x.origin))
    moved, stride = {}, 1
    for atom in reversed([*front, *behind]):
        moved[atom] = replace(atom, stride=stride)
        stride *= int(atom.size)
    return Value(made.name, made.sizes, tuple(joined(moved.get(a, a) for a in d) for d in x.dims), x.shape, x.origin)
