"""conv, linear: y[n,o,p] = bias[o] + sum over c,i,j of W[o,c,i,j] x[n, g(o) C/G + c, p stride + (i,j) dilation - pad].

    x        [N, C, H, W]                any float; planes in channel order; zeros outside the image
    y        [N, O, Ho, Wo]              float64; Ho = (H + top + bottom - dilation (R - 1) - 1) // stride + 1
    values   [O, C/G, R, S] or [B, r]    float32; coefficients S: W[o] = scale[o] (T^-1 S)[o], T as in kernels/transform.py
    columns  [B]                         uint16 or uint32; k = (c R + u) S + v; rows [ceil(O/r) + 1] uint32; format block only
    scale, bias  [O]                     float32; both may be missing
    linear: x [N, F] is C = F, H = W = 1; y [N, O]

Refused (ShapeError): another rank or channel count; a window that does not fit. Transposed convolution is conv + depth_to_space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, per_channel, require
from cosparse.kernels.transform import undone
from cosparse.kernels.window import output_sizes, padded, taps


def weight_shape(node: Node) -> tuple[int, int, int, int]:
    """(O, C/G, R, S) of a conv or linear node."""
    if node.op == "linear":
        return node.attrs["filters"], node.attrs["channels"], 1, 1
    r, s = node.attrs["kernel"]
    return node.attrs["filters"], node.attrs["channels"] // node.attrs["groups"], r, s


def stored(node: Node) -> Array:
    """The node's coefficients S as they are stored, without `scale`, dense, [O, C/G, R, S] float64."""
    shape = weight_shape(node)
    values = node.tensors["values"].astype(np.float64)
    if node.attrs["format"] == "block":
        values = scatter_blocks(values, node.tensors["columns"], node.tensors["rows"], columns_total=int(np.prod(shape[1:])))[: shape[0]]
    return values.reshape(shape)


def scaled(node: Node, weights: Array) -> Array:
    """Weights [O, ...] with `scale` multiplied in."""
    scale = node.tensors.get("scale")
    return weights if scale is None else weights * scale.astype(np.float64)[:, None, None, None]


def coefficients(node: Node) -> Array:
    """The coefficients with `scale` multiplied in, [O, C/G, R, S] float64: those of W unless filters are transformed."""
    return scaled(node, stored(node))


def scatter_blocks(values: Array, columns: np.ndarray, rows: np.ndarray, columns_total: int) -> Array:
    """The dense matrix [block rows * r, K] of the blocks: values [B, r], columns [B], rows [block rows + 1]."""
    block_rows, r = len(rows) - 1, values.shape[1]
    dense = np.zeros((block_rows, columns_total, r))
    dense[np.repeat(np.arange(block_rows), np.diff(rows.astype(np.intp)).astype(np.intp)), columns] = values
    return dense.transpose(0, 2, 1).reshape(block_rows * r, columns_total)


def unpack(node: Node) -> Array:
    """The dense spatial weights W that the node stands for, [O, C/G, R, S] float64: blocks expanded, transform undone, `scale` included."""
    return scaled(node, undone(node, stored(node)))


def add_bias(node: Node, y: Array) -> Array:
    bias = node.tensors.get("bias")
    return y if bias is None else y + per_channel(bias, y)


def correlate(x: Array, w: Array, stride: Sequence[int], dilation: Sequence[int], size: tuple[int, int]) -> Array:
    """Correlates the padded x [N, C, H', W'] with w [O, C/G, R, S] -> [N, O, Ho, Wo]; G follows from the channel counts."""
    filters, per_group, r, s = w.shape
    batch, groups, pixels = len(x), x.shape[1] // per_group, size[0] * size[1]
    y = np.zeros((batch, groups, filters // groups, pixels))
    for u, v, seen in taps(x, (r, s), stride, dilation, size):
        y += w[:, :, u, v].reshape(groups, filters // groups, per_group) @ seen.reshape(batch, groups, per_group, pixels)
    return y.reshape(batch, filters, *size)


def conv(node: Node, x: Array) -> Array:
    attrs = node.attrs
    require(x.ndim == 4 and x.shape[1] == attrs["channels"], node, f"an input [N, {attrs['channels']}, H, W]", x)
    size = output_sizes(node, x, attrs["kernel"], attrs["dilation"])
    return add_bias(node, correlate(padded(x, attrs["pad"]), unpack(node), attrs["stride"], attrs["dilation"], size))


def linear(node: Node, x: Array) -> Array:
    require(x.ndim == 2 and x.shape[1] == node.attrs["channels"], node, f"an input [N, {node.attrs['channels']}]", x)
    return add_bias(node, x @ unpack(node)[:, :, 0, 0].T)


REFERENCES: dict[str, Reference] = {"conv": conv, "linear": linear}
