"""The orthonormal DCT-II: D_n[u,t] = a_u cos(pi (2t + 1) u / 2n), a_0 = sqrt(1/n), a_u = sqrt(2/n)."""

from __future__ import annotations

import numpy as np


def dct_matrix(n: int) -> np.ndarray:
    """D_n, float64 [n, n]: row u is the basis function of frequency u."""
    u, t = np.arange(n)[:, None], np.arange(n)[None, :]
    scale = np.full((n, 1), np.sqrt(2 / n))
    scale[0] = np.sqrt(1 / n)
    return scale * np.cos(np.pi * (2 * t + 1) * u / (2 * n))


def line_cost(n: int) -> float:
    """Multiply-add equivalents of one n-point DCT whose row scales are folded into the coefficients.

    With h = n // 2 mirrored pairs and m = n - h: 2h additions make sums and differences; the mean row adds m - 1 more; each of the other
    m - 1 even rows takes m - 1 multiply-adds and each of the h odd rows h - 1. An addition counts half a multiply-add. n = 3: 2.5.
    """
    h = n // 2
    m = n - h
    return h + (m - 1) / 2 + (m - 1) ** 2 + h * (h - 1)


def plane_cost(kernel: tuple[int, int], stride: tuple[int, int]) -> float:
    """Multiply-add equivalents of the two-dimensional DCT of R x S taps, per input channel and output pixel.

    The separable scheme: one direction first, whose results neighbouring output pixels share as far as the stride lets them, then the
    other direction on each of its maps; the cheaper order. 3x3 at stride 1: 16 additions and 4 doublings = 20 operations = 10
    multiply-add equivalents (12.5 at stride 2).
    """
    (rows, columns), (down, along) = kernel, stride
    vertical, horizontal = line_cost(rows), line_cost(columns)
    return min(min(along, columns) * vertical + rows * horizontal, min(down, rows) * horizontal + columns * vertical)
