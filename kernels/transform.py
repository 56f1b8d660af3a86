"""Transforms of a conv or linear node's weights: S = T W with T orthonormal, one matrix along each of up to three axes.

    taps       S[o,c,(u,v)] = sum over i,j of D_R[u,i] D_S[v,j] W[o,c,(i,j)]   (dct), or of basis[(u,v),(i,j)] W[o,c,(i,j)]   (matrix)
    channels   S[o,(n,u),.] = sum over t of M_n[u,t] W[o,(n,t),.]       M_n: DCT-II, Walsh-Hadamard, or tiles[n]   (matrix)
    filters    S[(m,u),c,.] = sum over t of M[u,t] W[(m,t),c,.]         M: DCT-II or Walsh-Hadamard

    basis  [R S, R S]    float32; orthonormal within 1e-4; its transpose is taken for its inverse
    tiles  [T, b, b]     float32; one matrix for each whole tile of b consecutive channels, T = C // b

Tile n holds the indices n b .. n b + b - 1; what is left over after the last whole tile stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosparse.kernels.contract import Array, Node


def dct_matrix(n: int) -> Array:
    """The orthonormal DCT-II [n, n]: row u is the basis vector of frequency u."""
    u, t = np.arange(n)[:, None], np.arange(n)[None, :]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (2 * t + 1) * u / (2 * n))
    matrix[0] = np.sqrt(1 / n)
    return matrix


def walsh_matrix(n: int) -> Array:
    """The orthonormal Walsh-Hadamard matrix [n, n] in natural order, n a power of two: (-1)^(number of ones in u & t) / sqrt(n)."""
    common = np.arange(n)[:, None] & np.arange(n)[None, :]
    ones = sum((common >> bit) & 1 for bit in range(n.bit_length()))
    return np.asarray(np.where(ones % 2 == 1, -1.0, 1.0) / np.sqrt(n), dtype=np.float64)


def taps_matrix(node: Node) -> Array:
    """The matrix from flattened taps to coefficients, [R S, R S]; the identity for linear."""
    r, s = node.attrs.get("kernel", (1, 1))
    if node.attrs["transform"] == "matrix":
        return node.tensors["basis"].astype(np.float64)
    if node.attrs["transform"] == "dct":
        return np.asarray(np.kron(dct_matrix(r), dct_matrix(s)), dtype=np.float64)
    return np.eye(r * s)


def tile_matrices(node: Node, axis: str) -> Array | None:
    """The matrices along `axis` ("channels", "filters"), one for each whole tile, [T, b, b]; None where the axis is not transformed."""
    if f"{axis}_tile" not in node.attrs:
        return None
    kind, points = node.attrs[f"{axis}_transform"], int(node.attrs[f"{axis}_tile"])
    if kind == "matrix":
        return node.tensors["tiles"].astype(np.float64)
    matrix = walsh_matrix(points) if kind == "walsh" else dct_matrix(points)
    return np.broadcast_to(matrix, (node.attrs[axis] // points, points, points))


def along(x: Array, matrices: Array | None, axis: int) -> Array:
    """x with each whole tile along `axis` multiplied by its matrix [T, b, b]; x itself where there are none."""
    if matrices is None:
        return x
    tiles, points, _ = matrices.shape
    moved = np.moveaxis(x, axis, 0)
    whole = moved[: tiles * points].reshape(tiles, points, -1)
    done = (matrices @ whole).reshape(-1, *moved.shape[1:])
    return np.moveaxis(np.concatenate([done, moved[tiles * points :]]), 0, axis)


def undone(node: Node, s: Array) -> Array:
    """Weights W of the coefficients S, both [O, C/G, R, S] float64: every matrix transposed. `scale` is not the transform's business."""
    w = (s.reshape(*s.shape[:2], -1) @ taps_matrix(node)).reshape(s.shape)
    for axis, name in enumerate(("filters", "channels")):
        matrices = tile_matrices(node, name)
        w = along(w, None if matrices is None else matrices.transpose(0, 2, 1), axis)
    return w


def name_of(attrs: Mapping[str, Any]) -> str:
    """The transform that attributes state: "identity", "dct", "dct+walsh:16", "two-sided-walsh:8", "matrix:16" (of channels), ..."""
    words = [attrs["transform"]] if attrs["transform"] != "identity" else []
    channels, filters = ((attrs.get(f"{axis}_transform"), attrs.get(f"{axis}_tile")) for axis in ("channels", "filters"))
    if channels == filters != (None, None):
        words.append(f"two-sided-{channels[0]}:{channels[1]}")
    else:
        words += [f"{'dct-channels' if channels[0] == 'dct' else channels[0]}:{channels[1]}"] if channels[0] else []
        words += [f"{filters[0]}-filters:{filters[1]}"] if filters[0] else []
    return "+".join(words) or "identity"


OPTIONAL = ("channels_transform", "channels_tile", "filters_transform", "filters_tile")
"""Attributes that a conv or linear node has only where these axes are transformed (docs/artifact.md, version 2)."""


def plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the same layer with dense, untransformed weights."""
    kept = {key: value for key, value in attrs.items() if key not in OPTIONAL}
    return {**kept, "transform": "identity", "format": "dense", "block": 1}
