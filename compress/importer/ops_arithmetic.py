"""Sums, differences, products and quotients of tensors, and of tensors with constants."""

from __future__ import annotations

import math
from typing import Any

import numpy
from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Filled, Size, Value, alike, axis_of, collapsed, lifted, permuted, same, size_of
from cosparse.compress.importer.ops_pointwise import FLOAT32_MAX, activation, affine
from cosparse.compress.importer.ops_slice import part
from cosparse.compress.importer.regroup import alongside
from cosparse.compress.importer.stored_constant import beside, for_image, narrowed
from cosparse.compress.importer.table import handles

MOST_PRODUCTS = 16  # powers up to this are products


@handles("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide")
def arithmetic(call: Call) -> Value:
    if call.arguments.get("rounding_mode") is not None:
        raise Unsupported("a division that rounds")
    op = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div"}.get(call.op, call.op)
    return combined(call, op, call.get("self"), _scaled(call, call.get("other")))


@handles("rsub")
def rsub(call: Call) -> Value:
    return combined(call, "sub", call.get("other"), _scaled(call, call.get("self")))


@handles("neg", "negative")
def neg(call: Call) -> Value:
    return affine(call, call.value(), -1, 0)


@handles("reciprocal")
def reciprocal(call: Call) -> Value:
    return combined(call, "div", 1.0, call.value())


@handles("rsqrt")
def rsqrt(call: Call) -> Value:
    return combined(call, "div", 1.0, activation(call, "sqrt"))


@handles("square", "pow")
def power(call: Call) -> Value:
    """Whole powers by multiplication, which is as exact as it gets and takes negative numbers; roots; others as e^(p log x)."""
    x, exponent = call.value(), 2 if call.op == "square" else call.get("exponent")
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = exponent.item()
    if not isinstance(exponent, int | float) or exponent == 0 or not math.isfinite(exponent):
        raise Unsupported("a power that is computed, or 0")
    size = abs(exponent)
    if size == 0.5:
        y = activation(call, "sqrt", x=x)
    elif size == int(size) and size <= MOST_PRODUCTS:
        y = _whole_power(call, x, int(size))
    else:
        return activation(call, "pow", float(exponent), x=x)
    return y if exponent > 0 else combined(call, "div", 1.0, y)


def _whole_power(call: Call, x: Value, exponent: int) -> Value:
    """x^n from the squares of x."""
    result, square = None, x
    while True:
        if exponent % 2:
            result = square if result is None else pairwise(call, "mul", result, square)
        exponent //= 2
        if not exponent:
            return result  # type: ignore[return-value]
        square = pairwise(call, "mul", square, square)


@handles("glu")
def glu(call: Call) -> Value:
    """The first half times the sigmoid of the second."""
    x, dim = call.value(), call.dim()
    half = x.shape[dim] / 2
    first, second = (part(call, x, dim, *limits) for limits in ((size_of(0), half), (half, x.shape[dim])))
    return pairwise(call, "mul", first, activation(call, "sigmoid", x=second))


@handles("zeros_like", "ones_like", "full_like", "empty_like")
def filled(call: Call) -> Value:
    value = {"ones_like": 1.0, "full_like": None}.get(call.op, 0.0)
    return affine(call, call.value(), 0, call.number("fill_value") if value is None else value)


@handles("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def constant_of_a_size(call: Call) -> Filled:
    """What joins it with values pads them."""
    number = {"zeros": 0.0, "ones": 1.0}.get(call.op.removeprefix("new_"))
    return Filled(call.shape, call.number("fill_value") if number is None else number)


def pairwise(call: Call, op: str, a: Value, b: Value, suffix: str = "", shape: tuple[Size, ...] | None = None) -> Value:
    """`op` of two tensors under broadcasting; rearranged first where their layouts differ. `shape`: the result's, if not the call's."""
    rank = max(len(a.dims), len(b.dims))
    a, b = (collapsed(lifted(x, rank)) for x in (a, b))
    if not alike(a, b):
        a, b = alongside(call, a, b)
    one = size_of(1)
    sizes = tuple(y if same(x, one) else x for x, y in zip(a.sizes, b.sizes, strict=True))
    dims = tuple(p or q for p, q in zip(a.dims, b.dims, strict=True))
    return Value(call.emit(op, [a.name, b.name], suffix=suffix), sizes, dims, call.shape if shape is None else shape)


def _scaled(call: Call, operand: Any) -> Any:
    """The operand times the argument alpha."""
    alpha = call.number("alpha") if "alpha" in call.arguments else 1.0
    if alpha == 1:
        return operand
    if isinstance(operand, Value):
        return affine(call, operand, alpha, 0, "alpha")
    return alpha * (operand if isinstance(operand, int | float) else for_image(operand, len(call.shape)))


def combined(call: Call, op: str, a: Any, b: Any) -> Value:
    """`op` of two operands of which at least one is a tensor that the inputs decide."""
    if isinstance(a, Value) and isinstance(b, Value):
        return pairwise(call, op, a, b)
    x, constant = (a, b) if isinstance(a, Value) else (b, a)
    numbers = for_image(_of_one_number(constant, x), len(call.shape))
    x = lifted(x, len(call.shape))
    numbers = narrowed(numbers, x)
    x = _over_channels(call, x, numbers)
    c = numbers_by_channel(x, numbers)
    if c is None or (op in ("maximum", "minimum") and c.min() < c.max()):
        x, other = beside(call, x, numbers)
        return pairwise(call, op, x, other) if isinstance(a, Value) else pairwise(call, op, other, x)
    if op in ("maximum", "minimum"):
        bounds = (float(c[0]), FLOAT32_MAX) if op == "maximum" else (-FLOAT32_MAX, float(c[0]))
        return activation(call, "clip", *bounds, x=x)
    if op == "add":
        return affine(call, x, 1, c)
    if op == "mul":
        return affine(call, x, c, 0)
    if op == "sub":
        return affine(call, x, 1, -c) if isinstance(a, Value) else affine(call, x, -1, c)
    if isinstance(a, Value):
        return affine(call, x, 1 / c, 0)
    return pairwise(call, "div", affine(call, x, 0, c, "numerator"), x)


def _of_one_number(constant: Any, x: Value) -> Any:
    """The number of a tensor of one number that makes `x` no larger."""
    if not isinstance(constant, Filled) or len(constant.shape) > len(x.shape):
        return constant
    sizes = zip(reversed(constant.shape), reversed(x.shape), strict=False)
    return constant.number if all(same(n, size_of(1)) or same(n, size) for n, size in sizes) else constant


def _over_channels(call: Call, x: Value, numbers: Tensor) -> Value:
    """x with a dimension over its channels where the constant varies along one alone, which runs over the stored width: N, H, W, C."""
    along = [dim for dim, size in enumerate(numbers.shape) if size > 1]
    if len(along) != 1 or numbers.ndim != 4 or x.expanded or axis_of(x, along[0]) != 3:
        return x
    order = [0, along[0], *(dim for dim in (1, 2, 3) if dim != along[0])]
    stored = call.as_stored(permuted(x, order, x.origin or call.node))
    return permuted(stored, [order.index(dim) for dim in range(4)], call.node)


def numbers_by_channel(x: Value, constant: Tensor) -> numpy.ndarray | None:
    """The constant [1, ...], of the rank of `x`, as numbers, one a stored channel of `x`; None where it varies along other axes."""
    numbers = constant.numpy()
    parts: list[int] = []
    atoms = []
    for dim, size, wanted in zip(x.dims, numbers.shape, x.shape, strict=True):
        if size > 1 and (any(a.axis != 1 for a in dim) or not dim or not same(wanted, size_of(size))):
            return None
        channels = [a for a in dim if a.axis == 1]
        if not all(a.size.is_Integer for a in channels):
            return None
        parts += [int(a.size) if size > 1 else 1 for a in channels]
        atoms += channels
    spread = numpy.broadcast_to(numbers.reshape(parts), [int(a.size) for a in atoms])
    return spread.transpose(sorted(range(len(atoms)), key=lambda i: -atoms[i].stride)).reshape(-1)
