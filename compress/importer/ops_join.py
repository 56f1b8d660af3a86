"""Concatenations and stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import ONE, Atom, Filled, Size, Value, in_order, product, same, size_of, stored
from cosparse.compress.importer.ops_pool import padded
from cosparse.compress.importer.regroup import laid
from cosparse.compress.importer.stored_constant import for_image, laid_as
from cosparse.compress.importer.table import handles


def with_filled(call: Call, tensors: Sequence[Value | Filled], dim: int) -> Value:
    """The concatenation of values with tensors of one number before, between or behind them: padding."""
    places = [i for i, t in enumerate(tensors) if isinstance(t, Value)]
    if dim == 0 or not places:
        raise Unsupported("a concatenation of batches")
    first, last = places[0], places[-1]
    inner: list[Value] = []
    for t in tensors[first : last + 1]:
        if isinstance(t, Value):
            inner.append(t)
        else:
            inner[-1] = _padded(call, inner[-1], t, dim, front=False)
    x = joined(call, inner, dim, _beside(inner, dim), "values")
    for filled, front in [*((t, True) for t in reversed(tensors[:first])), *((t, False) for t in tensors[last + 1 :])]:
        x = _padded(call, x, filled, dim, front=front)  # type: ignore[arg-type]
    return x


def _beside(tensors: Sequence[Value | Filled], dim: int) -> tuple[Size, ...]:
    """The shape of their concatenation."""
    return tuple(sum(t.shape[dim] for t in tensors) if i == dim else size for i, size in enumerate(tensors[0].shape))


def _padded(call: Call, x: Value, filled: Filled, dim: int, *, front: bool) -> Value:
    """`x` with the tensor of one number before it (`front`) or behind it."""
    amount = [call.fixed(filled.shape[dim], "a number of constants") if i == dim else 0 for i in (1, 2, 3)]
    before, after = (amount, [0] * 3) if front else ([0] * 3, amount)
    return stored(padded(call, call.as_stored(x), before, after, number=filled.number), _beside([x, filled], dim))


def _tensors(call: Call, dim: int) -> list[Value | Tensor]:
    """What is to be joined along `dim`: values, and constants as their numbers for an image."""
    tensors = call.get("tensors")
    if dim == 0 and not all(isinstance(t, Value) for t in tensors):
        raise Unsupported("a concatenation of batches")
    rank = len(next(t.shape for t in tensors if isinstance(t, Value)))
    return [t if isinstance(t, Value) else for_image(t, rank) for t in tensors]


@handles("cat", "concat", "concatenate")
def cat(call: Call) -> Value:
    dim = call.dim(rank=len(call.shape))
    if _pads(call.get("tensors"), len(call.shape)):
        return with_filled(call, call.get("tensors"), dim)
    tensors = _tensors(call, dim)
    if len(call.shape) not in (2, 4) and all(_single(t, dim) for t in tensors):
        return _stacked(call, tensors, dim, dim + 1)
    return joined(call, _neighbours(tensors, dim), dim, call.shape)


def _neighbours(parts: Sequence[Value | Tensor], dim: int) -> list[Value | Tensor]:
    """The parts, constants that stand together as one."""
    found: list[Value | Tensor] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Tensor) and isinstance(last, Tensor):
            found[-1] = torch.cat([last, part], dim)
        else:
            found.append(part)
    return found


def _pads(tensors: Sequence[Any], rank: int) -> bool:
    """Whether all but values are tensors of one number, of a rank that can be padded."""
    return rank in (2, 4) and {type(t) for t in tensors} == {Value, Filled}


def _single(tensor: Value | Tensor, dim: int) -> bool:
    """Whether its dimension `dim` has size 1."""
    return tensor.shape[dim] == 1 if isinstance(tensor, Tensor) else not tensor.dims[dim] and same(tensor.shape[dim], ONE)


def joined(call: Call, parts: Sequence[Value | Tensor], dim: int, shape: Sequence[Size], suffix: str = "") -> Value:
    """The concatenation of shape `shape` along dimension `dim`, without a node where there is one tensor alone.

    Tensors among the values, of which there is one at least, are constants: their numbers for an image.
    """
    tensors = [part for part in parts if isinstance(part, Value)]
    if len(parts) == 1:
        return tensors[0]
    if (place := _joint(tensors, dim)) is None:
        if dim == 0:
            raise Unsupported("a concatenation of batches")
        tensors = _side_by_side(call, tensors, dim)
        place = _joint(tensors, dim) or (_free_axis(tensors[0], dim), 1)
    axis, stride = place
    if axis == 0:
        raise Unsupported("a concatenation of batches")
    values = iter(tensors)
    tensors = [next(values) if isinstance(part, Value) else _resized(call, tensors[0], dim, place, part) for part in parts]
    name = _concat(call, tensors, axis, suffix)
    sizes = tuple(shape[dim] * stride if i == axis else size for i, size in enumerate(tensors[0].sizes))
    new = () if same(shape[dim], size_of(1)) else (Atom(axis, shape[dim], stride),)
    dims = tuple(new if i == dim else d for i, d in enumerate(tensors[0].dims))
    return Value(name, sizes, dims, tuple(shape[dim] if i == dim else size for i, size in enumerate(tensors[0].shape)))


def _free_axis(x: Value, dim: int) -> int:
    """A stored axis for a dimension of size 1 that is to grow."""
    return dim if len(x.shape) in (2, 4) else next((axis for axis in (1, 2, 3) if same(x.sizes[axis], ONE)), dim)


def _resized(call: Call, like: Value, dim: int, place: tuple[int, int], numbers: Tensor) -> Value:
    """The constant as `like` lies, but for the size of `dim`, the slowest factor of the axis and of the stride at `place`."""
    axis, stride = place
    size = size_of(numbers.shape[dim])
    sizes = tuple(size * stride if i == axis else s for i, s in enumerate(like.sizes))
    dims = tuple((() if same(size, ONE) else (Atom(axis, size, stride),)) if i == dim else d for i, d in enumerate(like.dims))
    return laid_as(call, replace(like, sizes=sizes, dims=dims), numbers)


def _joint(tensors: Sequence[Value], dim: int) -> tuple[int, int] | None:
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


def _side_by_side(call: Call, tensors: Sequence[Value], dim: int) -> list[Value]:
    """The tensors stored so that `dim` is an axis of its own, and all other dimensions lie alike."""
    rank = len(tensors[0].shape)
    if rank in (2, 4):
        return [call.as_stored(t) for t in tensors]
    outer, inner = range(1, dim), range(dim + 1, rank)
    groups: tuple[Sequence[int], ...] = outer, [dim], inner
    if not inner:
        groups = outer, [], [dim]
    elif not outer and all(in_order(replace(t, dims=(t.dims[0], *(t.dims[i] for i in inner), t.dims[dim]))) for t in tensors):
        groups = inner, [], [dim]
    return [laid(call, t, *groups) for t in tensors]


def _concat(call: Call, tensors: Sequence[Value], axis: int, suffix: str = "") -> str:
    name = call.emit("concat", [t.name for t in tensors], {"axis": axis}, suffix=suffix)
    call.draft.pieces[name] = (axis, [(t.name, t.sizes[axis]) for t in tensors])
    return name


@handles("stack")
def stack(call: Call) -> Value:
    dim = call.dim(rank=len(call.shape))
    return _stacked(call, _tensors(call, dim), dim, dim)


def _stacked(call: Call, parts: Sequence[Value | Tensor], dim: int, behind: int) -> Value:
    """A concatenation of channels whose slowest factor is dimension `dim` of the result, before dimension `behind` of the tensors."""
    tensors = [part for part in parts if isinstance(part, Value)]
    first = tensors[0]
    if any(t.expanded or t.dims != first.dims or not all(map(same, t.sizes, first.sizes)) for t in tensors):
        if len(first.shape) not in (2, 4):
            raise Unsupported("a stack of tensors with different layouts")
        tensors = [call.as_stored(t) for t in tensors]
        first = tensors[0]
    values = iter(tensors)
    tensors = [next(values) if isinstance(part, Value) else laid_as(call, first, part) for part in parts]
    channels = call.fixed(first.sizes[1], "channels")
    name = _concat(call, tensors, 1) if len(tensors) > 1 else first.name
    sizes = (first.sizes[0], size_of(channels * len(tensors)), *first.sizes[2:])
    new = (Atom(1, size_of(len(tensors)), channels),) if len(tensors) > 1 else ()
    return Value(name, sizes, (*first.dims[:dim], new, *first.dims[behind:]), call.shape, call.node)
