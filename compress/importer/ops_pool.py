"""Pooling, padding."""

from __future__ import annotations

from typing import Any

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Value, size_of, stored
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
    return stored(padded(call, x, before, after, mode, float(call.arguments.get("value") or 0)), call.shape)


def padded(call: Call, x: Value, before: list[int], after: list[int], mode: str = "constant", number: float = 0.0) -> str:
    """The stored value x padded by so many channels, rows and columns; features are the channels of an image of one pixel."""
    attrs = {"before": before, "after": after, "mode": mode, "value": number}
    if len(x.shape) == 4:
        return call.emit("pad", [x.name], attrs)
    image = call.emit("reshape", [x.name], {"shape": [-1, 1, 1]}, suffix="before")
    return call.emit("reshape", [call.emit("pad", [image], attrs)], {"shape": [-1]}, suffix="after")
