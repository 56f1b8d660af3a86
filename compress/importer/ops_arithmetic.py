"""Sums, differences, products and quotients of tensors, and of tensors with constants."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Value, alike, collapsed, lifted, same, size_of
from cosparse.compress.importer.ops_pointwise import affine
from cosparse.compress.importer.regroup import alongside
from cosparse.compress.importer.table import handles


@handles("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide")
def arithmetic(call: Call) -> Value:
    if call.arguments.get("rounding_mode") is not None:
        raise Unsupported("a division that rounds")
    op = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div"}.get(call.op, call.op)
    return _combined(call, op, call.get("self"), _scaled(call, call.get("other")))


@handles("rsub")
def rsub(call: Call) -> Value:
    return _combined(call, "sub", call.get("other"), _scaled(call, call.get("self")))


@handles("neg", "negative")
def neg(call: Call) -> Value:
    return affine(call, call.value(), -1, 0)


@handles("reciprocal")
def reciprocal(call: Call) -> Value:
    return _combined(call, "div", 1.0, call.value())


@handles("square", "pow")
def power(call: Call) -> Value:
    exponent = 2 if call.op == "square" else call.get("exponent")
    match exponent:
        case 1:
            return call.value()
        case 2:
            return pairwise(call, "mul", call.value(), call.value())
        case -1:
            return _combined(call, "div", 1.0, call.value())
    raise Unsupported("a power other than 1, 2 and -1")


@handles("zeros_like", "ones_like", "full_like")
def filled(call: Call) -> Value:
    value = {"zeros_like": 0.0, "ones_like": 1.0}.get(call.op)
    return affine(call, call.value(), 0, call.number("fill_value") if value is None else value)


def pairwise(call: Call, op: str, a: Value, b: Value) -> Value:
    """`op` of two tensors under broadcasting; rearranged first where their layouts differ."""
    rank = max(len(a.dims), len(b.dims))
    a, b = (collapsed(lifted(x, rank)) for x in (a, b))
    if not alike(a, b):
        a, b = alongside(call, a, b)
    one = size_of(1)
    sizes = tuple(y if same(x, one) else x for x, y in zip(a.sizes, b.sizes, strict=True))
    dims = tuple(p or q for p, q in zip(a.dims, b.dims, strict=True))
    return Value(call.emit(op, [a.name, b.name]), sizes, dims, call.shape)


def _scaled(call: Call, operand: Any) -> Any:
    """The operand times the argument alpha."""
    alpha = call.number("alpha") if "alpha" in call.arguments else 1.0
    if alpha == 1:
        return operand
    return affine(call, operand, alpha, 0, "alpha") if isinstance(operand, Value) else operand * alpha


def _combined(call: Call, op: str, a: Any, b: Any) -> Value:
    """`op` of two operands of which at least one is a tensor that the inputs decide."""
    if isinstance(a, Value) and isinstance(b, Value):
        return pairwise(call, op, a, b)
    x = a if isinstance(a, Value) else b
    x = lifted(x, len(call.shape))
    c = _by_channel(call, x, b if isinstance(a, Value) else a)
    if op == "add":
        return affine(call, x, 1, c)
    if op == "mul":
        return affine(call, x, c, 0)
    if op == "sub":
        return affine(call, x, 1, -c) if isinstance(a, Value) else affine(call, x, -1, c)
    if isinstance(a, Value):
        return affine(call, x, 1 / c, 0)
    return pairwise(call, "div", affine(call, x, 0, c, "numerator"), x)


def _by_channel(call: Call, x: Value, constant: Any) -> numpy.ndarray:
    """The constant as float64 numbers, one a stored channel of `x` (lifted to the result's rank)."""
    if not isinstance(constant, Tensor | int | float):
        raise Unsupported("an operand depends on the input's size")
    numbers = torch.as_tensor(constant, dtype=torch.float64).numpy()
    numbers = numbers.reshape((1,) * (len(x.dims) - numbers.ndim) + numbers.shape)
    parts: list[int] = []
    atoms = []
    for dim, size, wanted in zip(x.dims, numbers.shape, x.shape, strict=True):
        if size > 1 and (any(a.axis != 1 for a in dim) or not dim or not same(wanted, size_of(size))):
            raise Unsupported("a constant that varies over batch, height or width, or has more channels than the tensor")
        channels = [a for a in dim if a.axis == 1]
        parts += [int(a.size) if size > 1 else 1 for a in channels]
        atoms += channels
    spread = numpy.broadcast_to(numbers.reshape(parts), [int(a.size) for a in atoms])
    return spread.transpose(sorted(range(len(atoms)), key=lambda i: -atoms[i].stride)).reshape(-1)
