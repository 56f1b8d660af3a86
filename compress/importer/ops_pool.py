"""Pooling, means, padding."""

from __future__ import annotations

from typing import Any

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Value, axes_of, size_of, whole
from cosparse.compress.importer.ops_slice import part
from cosparse.compress.importer.table import handles


@handles("max_pool2d", "max_pool2d_with_indices")
def max_pool2d(call: Call) -> Value | tuple[Value, ...]:
    attrs = {**_window(call), "dilation": call.integers("dilation"), "ceil": int(call.flag("ceil_mode"))}
    if attrs["dilation"] == [1, 1] and _global(call, attrs):
        result = _pixel(call, "adaptive_max_pool")
        return result if call.op == "max_pool2d" else (result,)
    result = call.result(call.emit("max_pool", [call.plain()], attrs))
    return result if call.op == "max_pool2d" else (result,)


@handles("avg_pool2d")
def avg_pool2d(call: Call) -> Value:
    divisor = 0 if call.arguments["divisor_override"] is None else call.integer("divisor_override")
    count = int(call.flag("count_include_pad"))
    if not divisor and _global(call, _window(call)):
        return _pixel(call, "adaptive_avg_pool")
    attrs = {**_window(call), "ceil": int(call.flag("ceil_mode")), "count_pad": count, "divisor": divisor}
    return call.result(call.emit("avg_pool", [call.plain()], attrs))


def _window(call: Call) -> dict[str, Any]:
    kernel = call.integers("kernel_size")
    return {"kernel": kernel, "stride": call.integers("stride") or kernel, "pad": call.integers("padding") * 2}


def _global(call: Call, window: dict[str, Any]) -> bool:
    """Whether the window is the whole map, at other sizes too: the code has taken it from there (trace.py)."""
    return bool(call.node.meta.get("whole")) and not any(window["pad"])


def _pixel(call: Call, op: str) -> Value:
    """A pool to one pixel."""
    return call.result(call.emit(op, [call.plain()], {"size": [1, 1]}))


@handles("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool2d(call: Call) -> Value | tuple[Value, ...]:
    op = "adaptive_max_pool" if call.op == "adaptive_max_pool2d" else "adaptive_avg_pool"
    result = call.result(call.emit(op, [call.plain()], {"size": call.integers("output_size")}))
    return (result,) if op == "adaptive_max_pool" else result


@handles("mean")
def mean(call: Call) -> Value:
    x = call.value()
    dims = _reduced(call, x)
    axes = axes_of(x, dims)
    if axes is None or 0 in axes or x.expanded or len(x.sizes) != 4:
        raise Unsupported("a mean over the batch or over part of an axis")
    if not axes:
        raise Unsupported("a mean over dimensions of size 1")
    keep = bool(call.arguments.get("keepdim"))
    rest = [dim for i, dim in enumerate(x.dims) if i not in dims]
    rank2 = axes == [2, 3] and not keep and rest == [whole(0, x.sizes[0]), whole(1, x.sizes[1])]
    name = call.emit("mean", [x.name], {"axes": axes, "keep": int(not rank2)})
    if rank2:
        return call.result(name)
    sizes = tuple(size_of(1) if axis in axes else size for axis, size in enumerate(x.sizes))
    left = tuple(() if i in dims else dim for i, dim in enumerate(x.dims)) if keep else tuple(rest)
    return Value(name, sizes, left, call.shape)


@handles("amax")
def amax(call: Call) -> Value:
    """Over height and width: an adaptive pool to one pixel."""
    x = call.value()
    dims = _reduced(call, x)
    if axes_of(x, dims) != [2, 3] or x.expanded:
        raise Unsupported("a maximum over other dimensions than height and width")
    name = call.emit("adaptive_max_pool", [x.name], {"size": [1, 1]})
    kept = tuple(() if i in dims else dim for i, dim in enumerate(x.dims) if call.flag("keepdim") or i not in dims)
    return Value(name, (*x.sizes[:2], size_of(1), size_of(1)), kept, call.shape)


def _reduced(call: Call, x: Value) -> list[int]:
    """The dimensions that a reduction removes; all where none are given."""
    rank = len(x.dims)
    if not call.arguments.get("dim") and call.arguments.get("dim") != 0:
        return list(range(rank))
    return [dim % rank for dim in call.integers("dim", 1)]


@handles("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(call: Call) -> Value:
    mode = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}.get(call.op, call.arguments.get("mode", "constant"))
    if mode not in ("constant", "reflect", "replicate"):
        raise Unsupported(f"padding of mode {mode}")
    x = call.as_stored(call.value())
    amounts = call.integers("padding" if "padding" in call.arguments else "pad", 1)
    rank = len(x.shape)
    before, after = [0] * 4, [0] * 4
    for i in range(len(amounts) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    if before[0] or after[0]:
        raise Unsupported("padding of the batch")
    for axis in range(1, rank):
        if before[axis] < 0 or after[axis] < 0:
            start, cut = max(0, -before[axis]), max(0, -after[axis])
            x = part(call, x, axis, size_of(start), x.shape[axis] - cut, 1, "crop")
    before, after = [max(0, n) for n in before[1:]], [max(0, n) for n in after[1:]]
    if not any(before + after):
        return x
    value = call.arguments.get("value") or 0
    attrs = {"before": before, "after": after, "mode": mode, "value": float(value)}
    if rank == 4:
        return call.result(call.emit("pad", [x.name], attrs))
    image = call.emit("reshape", [x.name], {"shape": [-1, 1, 1]}, suffix="before")
    return call.result(call.emit("reshape", [call.emit("pad", [image], attrs)], {"shape": [-1]}, suffix="after"))
