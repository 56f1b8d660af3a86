"""Sliding windows, shared by convolution and pooling: `pad` is [top, left, bottom, right], pairs are [vertical, horizontal]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cosparse.kernels.contract import Array, Node, require


def output_size(size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil: bool = False) -> int:
    """Number of windows along one axis. With `ceil` a last, incomplete window counts if it starts inside the input or the leading pad."""
    spare = size + before + after - dilation * (kernel - 1) - 1
    if spare < 0 and not ceil:
        return 0
    count = (-(-spare // stride) if ceil else spare // stride) + 1
    if ceil and (count - 1) * stride >= size + before:
        count -= 1
    return count


def output_sizes(node: Node, x: Array, kernel: Sequence[int], dilation: Sequence[int], ceil: bool = False) -> tuple[int, int]:
    """(Ho, Wo) of the node's windows over x [N, C, H, W]; ShapeError where none fits."""
    require(x.ndim == 4, node, "an input [N, C, H, W]", x)
    pad, stride = node.attrs["pad"], node.attrs["stride"]
    ho, wo = (output_size(x.shape[2 + i], kernel[i], stride[i], dilation[i], pad[i], pad[2 + i], ceil) for i in (0, 1))
    window = f"{kernel[0]}x{kernel[1]} window (dilation {list(dilation)}, pad {list(pad)})"
    require(ho > 0 and wo > 0, node, f"an input that holds a {window}", x)
    return ho, wo


def padded(x: Array, pad: Sequence[int], value: float = 0.0) -> Array:
    top, left, bottom, right = pad
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def taps(
    x: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[int, int, Array]]:
    """Yields (u, v, what tap u, v of every window sees [N, C, Ho, Wo]) over the padded x; views, no copies."""
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            rows = slice(u * dilation[0], u * dilation[0] + (size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(v * dilation[1], v * dilation[1] + (size[1] - 1) * stride[1] + 1, stride[1])
            yield u, v, x[:, :, rows, columns]


def covering_pad(node: Node, source: Sequence[int], target: Sequence[int]) -> list[int]:
    """[top, left, bottom, right] with which exactly `target` [h, w] whole windows fit over `source`, for runtimes without a ceil rule."""
    a = node.attrs
    dilation = a.get("dilation", [1, 1])
    need = [(target[i] - 1) * a["stride"][i] + dilation[i] * (a["kernel"][i] - 1) + 1 for i in (0, 1)]
    top, left = a["pad"][:2]
    return [top, left, max(0, need[0] - source[0] - top), max(0, need[1] - source[1] - left)]


def divisors(node: Node, source: Sequence[int], target: Sequence[int]) -> np.ndarray:
    """What each average of an `avg_pool` is divided by, [h, w] float32 (docs/artifact.md)."""
    a = node.attrs
    if a["divisor"]:
        return np.full(tuple(target), a["divisor"], np.float32)
    along = []
    for i in (0, 1):
        before, after = (a["pad"][i], a["pad"][i + 2]) if a["count_pad"] else (0, 0)
        start = np.arange(target[i]) * a["stride"][i] - a["pad"][i]
        stop = start + a["kernel"][i]
        along.append(np.minimum(stop, source[i] + after) - np.maximum(start, -before))
    return np.maximum(np.outer(*along), 1).astype(np.float32)
