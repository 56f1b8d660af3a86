"""Winograd's form of a 3x3 convolution at stride 1, F(4x4, 3x3): tiles of 4x4 output pixels by 36 multiplications a channel instead of 144.

    y = A^T [ sum over c of (G w[c] G^T) * (B^T d[c] B) ] A     for one tile; * place by place
    d [6, 6]  the source pixels under the tile;  w [3, 3] taps;  y [4, 4]

Along one axis that is Toom and Cook's product of two polynomials, transposed: both are evaluated at the points p = 0, 3/4, -3/4, 3/2, -3/2
and infinity, M_p(z) is the product of z - q over the other finite points q, and M(z) over all five.

    A [6, 4]  row p: 1, p, p^2, p^3            infinity: 0, 0, 0, 1
    G [6, 3]  row p: (1, p, p^2) / M_p(p)      infinity: 0, 0, 1
    B^T [6, 6]  row p: coefficients of M_p, the constant first;  infinity: those of M

Which points are taken decides how much rounding is amplified. With these the error of float32 is about twice that of a plain sum (0, 1, -1,
2, -2, the usual ones: five times), and their squares and products are exact. Source: Winograd, Arithmetic Complexity of Computations, 1980;
Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, section 4. csrc/kernels/winograd.h is the fast kernel.
"""

from __future__ import annotations

import numpy as np

from cosparse.kernels.contract import Array

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
TILE, TAPS = 4, 3
PLACES = TILE + TAPS - 1


def matrices() -> tuple[Array, Array, Array]:
    """A [6, 4], B [6, 6] and G [6, 3]."""
    finite = np.array(POINTS)
    others = [np.delete(finite, i) for i in range(len(finite))]
    distances = np.array([np.prod(p - q) for p, q in zip(finite, others, strict=True)])
    a, g = np.zeros((PLACES, TILE)), np.zeros((PLACES, TAPS))
    a[:-1], a[-1, -1] = finite[:, None] ** np.arange(TILE), 1
    g[:-1], g[-1, -1] = finite[:, None] ** np.arange(TAPS) / distances[:, None], 1
    b = np.zeros((PLACES, PLACES))
    for i, q in enumerate([*others, finite]):
        b[: len(q) + 1, i] = np.poly(q)[::-1]
    return a, b, g


def correlate(x: Array, w: Array) -> Array:
    """x [N, C, H, W], padded, with w [O, C, 3, 3] -> [N, O, H - 2, W - 2], float64, by tiles."""
    return _by_tiles(x, w, *matrices())


def magnitude(x: Array, w: Array) -> Array:
    """What the rounding errors of such a product are relative to, [N, O, H - 2, W - 2]: the same sums of absolute values throughout."""
    return _by_tiles(np.abs(x), np.abs(w), *(np.abs(m) for m in matrices()))


def _by_tiles(x: Array, w: Array, a: Array, b: Array, g: Array) -> Array:
    batch, channels, height, width = x.shape
    down, along = (-(-(size - TAPS + 1) // TILE) for size in (height, width))
    whole = np.zeros((batch, channels, down * TILE + TAPS - 1, along * TILE + TAPS - 1))
    whole[:, :, :height, :width] = x
    places = np.einsum("pi,ocij,qj->ocpq", g, w, g)
    y = np.zeros((batch, len(w), down * TILE, along * TILE))
    for top in range(0, down * TILE, TILE):
        for left in range(0, along * TILE, TILE):
            d = whole[:, :, top : top + PLACES, left : left + PLACES]
            product = np.einsum("ocpq,ncpq->nopq", places, np.einsum("ip,ncij,jq->ncpq", b, d, b))
            y[:, :, top : top + TILE, left : left + TILE] = np.einsum("pi,nopq,qj->noij", a, product, a)
    return y[:, :, : height - TAPS + 1, : width - TAPS + 1]
