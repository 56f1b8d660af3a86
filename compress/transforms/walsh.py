"""The orthonormal Walsh-Hadamard transform in natural order, n a power of two: H[u,t] = (-1)^(ones in u & t) / sqrt(n)."""

from __future__ import annotations

import numpy as np


def walsh_matrix(n: int) -> np.ndarray:
    """H, float64 [n, n], by Sylvester's doubling."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(n)


def line_cost(n: int) -> float:
    """Multiply-add equivalents of one n-point transform: n additions in each of log2(n) rounds, and an addition counts half.

    The scale 1/sqrt(n) is folded into the coefficients. n = 16: 32.
    """
    return n * (n.bit_length() - 1) / 2
