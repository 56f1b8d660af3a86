"""Orthonormal transforms along the taps of a filter, and what the transform of the activations costs at run time.

    S[o,c] = D_R W[o,c] D_S^T      W[o,c] = D_R^T S[o,c] D_S      D_n[u,t] = a_u cos(pi (2t + 1) u / 2n)

With the taps flattened row by row this is one matrix, B = kron(D_R, D_S): s = B w, w = B^T s. A 1x1 filter has nothing to transform.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch

from cosparse.errors import Error

TRANSFORMS = ("identity", "dct")

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II of n points, float64 [n, n]: row u is the basis function of frequency u."""
    u, t = np.arange(n)[:, None], np.arange(n)[None, :]
    scale = np.full((n, 1), np.sqrt(2 / n))
    scale[0] = np.sqrt(1 / n)
    return scale * np.cos(np.pi * (2 * t + 1) * u / (2 * n))


@lru_cache(maxsize=64)
def basis(transform: str, kernel: tuple[int, int]) -> np.ndarray:
    """The matrix that maps R S flattened taps to R S coefficients, float64 [R S, R S], read-only."""
    if transform not in TRANSFORMS:
        raise Error("transform", f"one of {', '.join(TRANSFORMS)}", repr(transform))
    matrix = np.kron(dct_matrix(kernel[0]), dct_matrix(kernel[1])) if transform == "dct" else np.eye(kernel[0] * kernel[1])
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=64)
def _torch_basis(transform: str, kernel: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(basis(transform, kernel), dtype=dtype, device=device)


def _apply(weight: Array, transform: str, backward: bool) -> Array:
    kernel = (int(weight.shape[2]), int(weight.shape[3])) if weight.ndim == 4 else (1, 1)
    matrix = basis(transform, kernel)
    if transform == "identity" or kernel == (1, 1):
        return weight
    if isinstance(weight, torch.Tensor):
        turn = _torch_basis(transform, kernel, weight.dtype, weight.device)
        return (weight.reshape(-1, kernel[0] * kernel[1]) @ (turn if backward else turn.T)).reshape(weight.shape)
    return (weight.reshape(-1, kernel[0] * kernel[1]) @ (matrix if backward else matrix.T)).reshape(weight.shape)


def forward(weight: Array, transform: str) -> Array:
    """Coefficients S of weights W, same shape ([O, C, R, S], or [O, F] which is left as it is) and kind (numpy or torch)."""
    return _apply(weight, transform, backward=False)


def inverse(coefficients: Array, transform: str) -> Array:
    """Weights W of coefficients S: the transpose of `forward`, which is its inverse."""
    return _apply(coefficients, transform, backward=True)


def _line_cost(n: int) -> float:
    """Multiply-add equivalents of one n-point DCT whose row scales are folded into the coefficients.

    With h = n // 2 mirrored pairs and m = n - h: 2h additions make sums and differences; the mean row adds m - 1 more; each of the other
    m - 1 even rows takes m - 1 multiply-adds and each of the h odd rows h - 1. An addition counts half a multiply-add. n = 3: 2.5.
    """
    h = n // 2
    m = n - h
    return h + (m - 1) / 2 + (m - 1) ** 2 + h * (h - 1)


def basis_cost(transform: str, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> float:
    """Multiply-add equivalents of the basis step, per input channel and output pixel.

    Counting rule: the separable scheme. One direction first, whose results neighbouring output pixels share as far as the stride lets
    them, then the other direction on each of its maps; the cheaper order. dct 3x3 at stride 1: 16 additions and 4 doublings = 20
    operations = 10 multiply-add equivalents (12.5 at stride 2). Identity and 1x1: 0.
    """
    if transform == "identity" or kernel == (1, 1):
        return 0.0
    basis(transform, kernel)
    (rows, columns), (down, along) = kernel, stride
    vertical, horizontal = _line_cost(rows), _line_cost(columns)
    return min(min(along, columns) * vertical + rows * horizontal, min(down, rows) * horizontal + columns * vertical)
