"""max_pool, avg_pool, adaptive_avg_pool, adaptive_max_pool, mean, sum, amax: one number for each window of a plane.

    x  [N, C, H, W]    any float
    y  [N, C, Ho, Wo]  float64; mean, sum, amax with keep = 0: [N, C]

max_pool pads with minus infinity, avg_pool with zeros. `ceil` = 1 adds a last window that sticks out (window.output_size).
avg_pool divides by `divisor`, or where that is 0 by the number of pixels of the window that lie inside the image (count_pad = 0) or inside
the image and its padding (count_pad = 1); a window with no such pixel gives 0.
adaptive pools: cell i of n along an axis of size H covers floor(i H / n) up to ceil((i + 1) H / n).

Refused (ShapeError): rank 2; a window that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, require
from cosparse.kernels.window import output_sizes, padded, taps


def _covered(x: Array, node: Node, dilation: tuple[int, int], size: tuple[int, int], value: float) -> Array:
    """x with its padding, extended so that windows which stick out read `value`."""
    kernel, stride = node.attrs["kernel"], node.attrs["stride"]
    top, left, bottom, right = node.attrs["pad"]
    need = [(size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    bottom = max(bottom, need[0] - x.shape[2] - top)
    right = max(right, need[1] - x.shape[3] - left)
    return padded(x, (top, left, bottom, right), value)


def max_pool(node: Node, x: Array) -> Array:
    attrs = node.attrs
    dilation = tuple(attrs["dilation"])
    size = output_sizes(node, x, attrs["kernel"], dilation, ceil=bool(attrs["ceil"]))
    y = np.full((*x.shape[:2], *size), -np.inf)
    for _, _, seen in taps(_covered(x, node, dilation, size, -np.inf), attrs["kernel"], attrs["stride"], dilation, size):
        np.maximum(y, seen, out=y)
    return y


def avg_pool(node: Node, x: Array) -> Array:
    attrs = node.attrs
    size = output_sizes(node, x, attrs["kernel"], (1, 1), ceil=bool(attrs["ceil"]))
    inside = np.ones((1, 1, *x.shape[2:]))
    counted = padded(inside, attrs["pad"], 1.0) if attrs["count_pad"] else padded(inside, attrs["pad"])
    total, count = np.zeros((*x.shape[:2], *size)), np.zeros((1, 1, *size))
    for _, _, seen in taps(_covered(x, node, (1, 1), size, 0.0), attrs["kernel"], attrs["stride"], (1, 1), size):
        total += seen
    missing = [(size[i] - 1) * attrs["stride"][i] + attrs["kernel"][i] - counted.shape[2 + i] for i in (0, 1)]
    counted = padded(counted, (0, 0, max(missing[0], 0), max(missing[1], 0)))
    for _, _, seen in taps(counted, attrs["kernel"], attrs["stride"], (1, 1), size):
        count += seen
    return total / (attrs["divisor"] or np.maximum(count, 1))


def _adaptive(node: Node, x: Array, reduce: Callable[..., Array]) -> Array:
    require(x.ndim == 4, node, "an input [N, C, H, W]", x)
    for axis, cells in zip((2, 3), node.attrs["size"], strict=True):
        length = x.shape[axis]
        bounds = [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]
        x = np.stack([reduce(x.take(range(start, stop), axis), axis=axis) for start, stop in bounds], axis)
    return x


def adaptive_avg_pool(node: Node, x: Array) -> Array:
    return _adaptive(node, x, np.mean)


def adaptive_max_pool(node: Node, x: Array) -> Array:
    return _adaptive(node, x, np.max)


def _over_axes(reduce: Callable[..., Array]) -> Reference:
    def reference(node: Node, x: Array) -> Array:
        require(x.ndim == 4, node, "an input [N, C, H, W]", x)
        return reduce(x, axis=tuple(node.attrs["axes"]), keepdims=bool(node.attrs["keep"]))

    return reference


REFERENCES: dict[str, Reference] = {
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": adaptive_avg_pool,
    "adaptive_max_pool": adaptive_max_pool,
    "mean": _over_axes(np.mean),
    "sum": _over_axes(np.sum),
    "amax": _over_axes(np.max),
}
