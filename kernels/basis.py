"""conv, the way the fast kernels do it: the inverse transform moves from the weights to the activations.

    basis step      xhat[n,c,u,v,p] = sum over i,j of D_R[u,i] D_S[v,j] x[n, c, p stride + (i,j) dilation - pad], or the node's other matrix
                    along the taps; then, where channels are transformed, their matrices along c
    block product   z[n,o,p] = sum over the blocks (o,k) of S[o,k] xhat[n,k,p]                             k = (c R + u) S + v
    output step     y[n,o,p] = bias[o] + scale[o] z[n,o,p], after the inverse along o where filters are transformed

    x      [N, C, H, W]          any float
    xhat   [N, C, R, S, P]       float64; P = Ho Wo; for the identity these are the plain taps
    y      [N, O, Ho, Wo]        float64; equal to conv.conv up to rounding, since W = T^-1 S and T is orthonormal (kernels/transform.py)

The basis step knows no filter; stride, padding and dilation are its business alone. The product touches the blocks that exist, no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from cosparse.kernels.contract import Array, Node, per_channel
from cosparse.kernels.conv import add_bias, weight_shape
from cosparse.kernels.transform import along, taps_matrix, tile_matrices
from cosparse.kernels.window import output_sizes, padded, taps


def basis_step(node: Node, x: Array, size: tuple[int, int]) -> Array:
    """xhat [N, C, R, S, P] of a conv node for x [N, C, H, W]; `size` is (Ho, Wo)."""
    attrs = node.attrs
    r, s = attrs["kernel"]
    seen = np.empty((*x.shape[:2], r, s, size[0] * size[1]))
    for i, j, tap in taps(padded(x, attrs["pad"]), (r, s), attrs["stride"], attrs["dilation"], size):
        seen[:, :, i, j] = tap.reshape(*x.shape[:2], -1)
    xhat = taps_matrix(node) @ seen.reshape(*x.shape[:2], r * s, -1)
    return along(xhat, tile_matrices(node, "channels"), axis=1).reshape(seen.shape)


def block_rows(node: Node) -> Iterator[tuple[int, np.ndarray, Array]]:
    """Yields (first filter, columns [b], values [b, filters]) for each block row; a dense node is one row of all columns per filter."""
    filters, *rest = weight_shape(node)
    values = node.tensors["values"].astype(np.float64)
    if node.attrs["format"] == "dense":
        for o, row in enumerate(values.reshape(filters, -1)):
            yield o, np.arange(int(np.prod(rest))), row[:, None]
        return
    rows, columns, r = node.tensors["rows"], node.tensors["columns"], node.attrs["block"]
    for b, (start, stop) in enumerate(pairwise(rows.tolist())):
        yield b * r, columns[start:stop], values[start:stop, : filters - b * r]


def conv_by_basis(node: Node, x: Array) -> Array:
    """The same as conv.conv, [N, O, Ho, Wo]."""
    attrs = node.attrs
    filters, groups = attrs["filters"], attrs["groups"]
    size = output_sizes(node, x, attrs["kernel"], attrs["dilation"])
    xhat = basis_step(node, x, size).reshape(len(x), groups, -1, size[0] * size[1])  # [N, G, K, P]
    y = np.zeros((len(x), filters, size[0] * size[1]))
    for first, columns, values in block_rows(node):
        maps = xhat[:, first * groups // filters, columns]  # [N, b, P]
        y[:, first : first + values.shape[1]] = values.T @ maps
    matrices = tile_matrices(node, "filters")
    y = along(y, None if matrices is None else matrices.transpose(0, 2, 1), axis=1)
    scale = node.tensors.get("scale")
    if scale is not None:
        y *= per_channel(scale, y)
    return add_bias(node, y.reshape(len(x), filters, *size))
