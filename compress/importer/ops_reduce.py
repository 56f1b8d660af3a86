"""Means, sums, largest numbers, norms and variances over whole axes of a tensor."""

from __future__ import annotations

from dataclasses import replace

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import ONE, Value, axes_of, product, size_of, whole
from cosparse.compress.importer.ops_arithmetic import combined, pairwise
from cosparse.compress.importer.ops_pointwise import FLOAT32_MAX, activation, affine
from cosparse.compress.importer.ops_slice import part, without
from cosparse.compress.importer.table import handles

MOST_PARTS = 16
"""Parts of an axis that are summed one by one."""
WORDS = {"mean": "a mean", "sum": "a sum", "amax": "a maximum"}


@handles("mean", "sum", "amax", "amin")
def reduction(call: Call) -> Value:
    op = "amax" if call.op == "amin" else call.op
    return _signed(call, op, call.value(), _dims(call, call.value()), bool(call.arguments.get("keepdim")), least=call.op == "amin")


@handles("max", "min")
def largest(call: Call) -> Value | tuple[Value, ...]:
    """Of two tensors, or over one dimension with the places, which nothing may read."""
    if "other" in call.arguments:
        return _of_two(call)
    if "dim" not in call.arguments:
        raise Unsupported(f"{WORDS['amax']} over the batch")
    x = call.value()
    return (_signed(call, "amax", x, [call.dim()], call.flag("keepdim"), least=call.op == "min"),)


@handles("maximum", "minimum")
def of_two(call: Call) -> Value:
    return _of_two(call)


def _of_two(call: Call) -> Value:
    op = {"max": "maximum", "min": "minimum"}.get(call.op, call.op)
    return combined(call, op, call.get("self"), call.get("other"))


@handles("linalg_vector_norm", "norm")
def norm(call: Call) -> Value:
    """The root of the sum of squares, the sum or the largest of the magnitudes."""
    x, order = call.value(), call.arguments.get("ord", call.arguments.get("p"))
    dims, keep = _dims(call, x), bool(call.arguments.get("keepdim"))
    match 2 if order is None else order:
        case 2:
            return activation(call, "sqrt", x=reduced(call, "sum", _square(call, x), dims, keep))
        case 1:
            return reduced(call, "sum", activation(call, "abs", x=x), dims, keep)
        case order if order == float("inf"):
            return reduced(call, "amax", activation(call, "abs", x=x), dims, keep)
    raise Unsupported("a norm other than 1, 2 and infinity")


@handles("cosine_similarity")
def cosine_similarity(call: Call) -> Value:
    """x y / (max(|x|, eps) max(|y|, eps)), each a sum over one dimension."""
    x, y = call.value("x1"), call.value("x2")
    dims = [call.dim(rank=len(x.shape))]
    floor = call.number("eps")

    def length(v: Value) -> Value:
        squares = reduced(call, "sum", _square(call, v), dims, False)
        return activation(call, "clip", floor, FLOAT32_MAX, x=activation(call, "sqrt", x=squares))

    dot = reduced(call, "sum", pairwise(call, "mul", x, y, "product", x.shape), dims, False)
    return pairwise(call, "div", pairwise(call, "div", dot, length(x)), length(y))


@handles("var", "std")
def variance(call: Call) -> Value:
    x = call.value()
    dims, keep = _dims(call, x), bool(call.arguments.get("keepdim"))
    unbiased = call.arguments.get("unbiased")
    correction = call.arguments.get("correction")
    less = float(unbiased) if unbiased is not None else 1.0 if correction is None else float(correction)
    away = pairwise(call, "sub", x, reduced(call, "mean", x, dims, True), shape=x.shape)
    result = reduced(call, "mean", _square(call, away), dims, keep)
    if less:
        count = call.fixed(product(x.shape[i] for i in dims), "a variance that is not biased")
        if count <= less:
            raise Unsupported(f"a variance of {count} numbers with a correction of {less:g}")
        result = affine(call, result, count / (count - less), 0, "unbiased")
    return activation(call, "sqrt", x=result) if call.op == "std" else result


def _square(call: Call, x: Value) -> Value:
    return pairwise(call, "mul", x, x, "square", x.shape)


def _signed(call: Call, op: str, x: Value, dims: list[int], keep: bool, *, least: bool) -> Value:
    """The least is the largest of the negatives, negative."""
    if not least:
        return reduced(call, op, x, dims, keep)
    return affine(call, reduced(call, op, affine(call, x, -1, 0, "minus"), dims, keep), -1, 0, "minus")


def reduced(call: Call, op: str, x: Value, dims: list[int], keep: bool) -> Value:
    """`op` (mean, sum, amax) over the dimensions `dims`, each of whole axes other than the batch."""
    axes = axes_of(x, dims)
    if axes is None and (dim := _parted(x, dims)) is not None:
        return _by_parts(call, op, x, dims, dim, keep)
    if axes is None or 0 in axes or x.expanded:
        raise Unsupported(f"{WORDS[op]} over the batch or over part of an axis")
    left = tuple(() if i in dims else dim for i, dim in enumerate(x.dims) if keep or i not in dims)
    shape = tuple(ONE if i in dims else size for i, size in enumerate(x.shape) if keep or i not in dims)
    if not axes:  # of single numbers
        return Value(x.name, x.sizes, left, shape, x.origin)
    sizes = tuple(ONE if axis in axes else size for axis, size in enumerate(x.sizes))
    if len(x.sizes) == 2:
        image = call.emit("reshape", [x.name], {"shape": [-1, 1, 1]}, suffix="image")
        row = call.emit("reshape", [call.emit(op, [image], {"axes": [1], "keep": 1})], {"shape": [-1]}, suffix="row")
        return Value(row, sizes, left, shape)
    if op == "amax" and axes == [2, 3]:
        return Value(call.emit("adaptive_max_pool", [x.name], {"size": [1, 1]}), sizes, left, shape)
    if axes == [2, 3] and left == (whole(0, x.sizes[0]), whole(1, x.sizes[1])):
        return Value(call.emit(op, [x.name], {"axes": axes, "keep": 0}), x.sizes[:2], left, shape)
    return Value(call.emit(op, [x.name], {"axes": axes, "keep": 1}), sizes, left, shape)


def _parted(x: Value, dims: list[int]) -> int | None:
    """The first of the dimensions that runs over a few parts of an axis other than the batch, as those of `stack` and `view` do."""
    for dim in dims:
        parts = x.shape[dim]
        if not x.expanded and parts.is_Integer and 1 < parts <= MOST_PARTS and {atom.axis for atom in x.dims[dim]} != {0}:
            return dim
    return None


def _by_parts(call: Call, op: str, x: Value, dims: list[int], dim: int, keep: bool) -> Value:
    """The parts along `dim`, one after the other; then the other dimensions."""
    count = int(x.shape[dim])
    parts = [without(part(call, x, dim, size_of(i), size_of(i + 1)), dim) for i in range(count)]
    result = parts[0]
    for i, other in enumerate(parts[1:], 1):
        result = pairwise(call, "maximum" if op == "amax" else "add", result, other, f"part{i}", parts[0].shape)
    if op == "mean":
        result = affine(call, result, 1 / count, 0, "share")
    others = [d - (d > dim) for d in dims if d != dim]
    if keep:
        result = replace(result, dims=(*result.dims[:dim], (), *result.dims[dim:]), shape=(*result.shape[:dim], ONE, *result.shape[dim:]))
        others = [d for d in dims if d != dim]
    return reduced(call, op, result, others, keep) if others else result


def _dims(call: Call, x: Value) -> list[int]:
    """The dimensions that a reduction removes; all where none are given."""
    rank = len(x.dims)
    if not call.arguments.get("dim") and call.arguments.get("dim") != 0:
        return list(range(rank))
    return [dim % rank for dim in call.integers("dim", 1)]
