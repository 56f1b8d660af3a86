"""Constants that meet values: their numbers for an image, in the layout of the value that they meet, as a `constant` node.

A constant is stored as small as broadcasting allows: along a stored axis on which none of its dimensions varies it has size 1.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy
import torch
from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import ONE, Dim, Filled, OfBatch, Size, Value, collapsed, same, size_of, whole
from cosparse.compress.importer.regroup import laid

FREE = "a constant that varies over an axis whose size depends on the input's"


def for_image(constant: Any, rank: int) -> Tensor:
    """The numbers in float64 for one image, [1, ...] of rank `rank`, those of a number or a smaller tensor after broadcasting to it.

    Raises Unsupported where they are not the same for all images.
    """
    if isinstance(constant, OfBatch):
        tensors = constant.results
        if any(t.ndim != rank or len(t) < 2 or not torch.equal(t, tensors[0][:1].expand_as(t)) for t in tensors):
            raise Unsupported("a constant that varies over the batch")
        constant = tensors[0][:1]
    if isinstance(constant, Filled):
        shape = [ONE if len(constant.shape) - i == rank else size for i, size in enumerate(constant.shape)]
        if not all(size.is_Integer for size in shape):
            raise Unsupported(FREE)
        constant = torch.full([int(size) for size in shape], constant.number)
    if not isinstance(constant, Tensor | int | float):
        raise Unsupported("an operand that depends on the input's size")
    numbers = torch.as_tensor(constant).detach().to(torch.float64)
    numbers = numbers.reshape((1,) * (rank - numbers.ndim) + tuple(numbers.shape))
    if rank and len(numbers) != 1:
        raise Unsupported("a constant that varies over the batch")
    return numbers


def narrowed(numbers: Tensor, x: Value) -> Tensor:
    """The constant, of the rank of `x`, of size 1 along the dimensions that `x` has as large and along which it does not vary."""
    for dim, size in enumerate(x.shape):
        first = numbers.narrow(dim, 0, 1)
        if same(size, size_of(numbers.shape[dim])) and bool((numbers == first).all()):
            numbers = first
    return numbers


def beside(call: Call, x: Value, numbers: Tensor) -> tuple[Value, Value]:
    """`x` and the constant, of its rank, in one layout, for an operator that broadcasts."""
    if (constant := in_layout(call, x, numbers)) is not None:
        return x, constant
    x = collapsed(x)
    match len(x.dims):
        case 2 | 4:
            x = call.as_stored(x)
            axes: tuple[int, ...] = tuple(range(len(x.dims)))
        case 3:
            x = laid(call, x, [1], [], [2])
            axes = (0, 1, 3)
        case rank:
            raise Unsupported(f"a constant of rank {rank} that is larger than the tensor")
    own = [size_of(n) for n in numbers.shape]
    sizes = [x.sizes[0], *[ONE] * (len(x.sizes) - 1)]
    for axis, size in list(zip(axes, own, strict=True))[1:]:
        sizes[axis] = size
    dims = ((), *(whole(axis, size) for axis, size in list(zip(axes, own, strict=True))[1:]))
    like = Value("", tuple(sizes), dims, tuple(own))
    return x, _emitted(call, _arranged(numbers.numpy(), like, full=False), like, x)


def in_layout(call: Call, x: Value, numbers: Tensor) -> Value | None:
    """The constant as a value that lies as `x` does, of size 1 along axes where it does not vary; None where it is larger than `x`."""
    if any(n > 1 and not dim for dim, n in zip(x.dims, numbers.shape, strict=True)):
        return None
    return _emitted(call, _arranged(numbers.numpy(), x, full=False), x, x)


def laid_as(call: Call, x: Value, numbers: Tensor) -> Value:
    """The constant, whose shape `x` has or which broadcasts to it, as a value that lies as `x` does and is as large."""
    return _emitted(call, _arranged(numbers.numpy(), x, full=True), x, x)


def _arranged(numbers: numpy.ndarray, like: Value, *, full: bool) -> numpy.ndarray:
    """The numbers, of the rank of `like`, as its stored value has them: [C, H, W] or [F], of size 1 along axes where they do not vary."""
    axes = range(1, len(like.sizes))
    varying = set(axes) if full else {a.axis for dim, n in zip(like.dims, numbers.shape, strict=True) if n > 1 for a in dim}
    while more := {a.axis for dim in like.dims[1:] if varying & {a.axis for a in dim} for a in dim} - varying:
        varying |= more
    if any(not like.sizes[axis].is_Integer for axis in varying) or any(a.axis == 0 for dim in like.dims[1:] for a in dim):
        raise Unsupported(FREE)
    parts: list[int] = []
    spread: list[int] = [1]
    atoms = []
    for dim in like.dims[1:]:
        own = [a for a in dim if a.axis in varying]
        spread.append(math.prod(int(a.size) for a in own))
        parts += [int(a.size) for a in own]
        atoms += own
    split = numpy.broadcast_to(numbers, spread).reshape(parts)
    if any(math.prod(int(a.size) for a in atoms if a.axis == axis) != like.sizes[axis] for axis in varying):
        raise Unsupported("a constant beside a part of a stored axis")
    order = sorted(range(len(atoms)), key=lambda i: (atoms[i].axis, -atoms[i].stride))
    return split.transpose(order).reshape([int(like.sizes[axis]) if axis in varying else 1 for axis in axes])


def _emitted(call: Call, array: numpy.ndarray, like: Value, x: Value) -> Value:
    """The constant's node, one for equal numbers, as a value with the dimensions of `like` and the batch of `x`."""
    with numpy.errstate(over="ignore"):
        if not numpy.isfinite(array.astype(numpy.float32)).all():
            raise Unsupported("a constant that float32 holds no finite number for")
    array = numpy.ascontiguousarray(array)
    key = (array.shape, hashlib.blake2b(array.tobytes()).digest())
    if key not in call.draft.constants:
        call.draft.constants[key] = call.emit("constant", [call.draft.input], {}, {"values": array}, suffix="constant")
    sizes = (x.sizes[0], *map(size_of, array.shape))
    dims = (whole(0, x.sizes[0]), *(tuple(a for a in dim if not same(sizes[a.axis], ONE)) for dim in like.dims[1:]))
    shape = (x.shape[0], *(_product(dim) for dim in dims[1:]))
    return Value(call.draft.constants[key], sizes, dims, shape)


def _product(dim: Dim) -> Size:
    return size_of(math.prod(int(a.size) for a in dim))
