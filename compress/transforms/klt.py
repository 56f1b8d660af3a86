"""The basis fitted to a layer's own weights (Karhunen-Loeve): the eigenvectors of their second-moment matrix.

    M = sum over all vectors w of w w^T       M = B^T diag(e) B,  e falling       S = B w

No other orthonormal basis puts more energy into the first coefficients. The largest entry of each row, the first of equals, is positive, so
that equal weights give the equal basis.
"""

from __future__ import annotations

import numpy as np

from cosparse.errors import Error


def taps_basis(weight: np.ndarray, about: str) -> np.ndarray:
    """The basis of the taps, float64 [R S, R S], over all filters and channels of weights [O, C, R, S]."""
    return _eigenbasis(weight.reshape(-1, int(np.prod(weight.shape[2:]))), about)


def tile_bases(weight: np.ndarray, points: int, about: str) -> np.ndarray:
    """A basis for each whole tile of `points` channels, float64 [C // points, points, points], over filters and taps of [O, C, ...]."""
    filters, channels = weight.shape[:2]
    by_channel = np.moveaxis(weight.reshape(filters, channels, -1), 1, 2).reshape(-1, channels)  # [O R S, C]
    starts = range(0, channels - points + 1, points)
    return np.stack([_eigenbasis(by_channel[:, start : start + points], about) for start in starts])


def _eigenbasis(vectors: np.ndarray, about: str) -> np.ndarray:
    """The basis [n, n] of vectors [count, n]; Error where they are not finite."""
    moment = vectors.T @ vectors
    if not np.isfinite(moment).all():
        raise Error(about, "finite values", "NaN or infinity")
    basis = np.linalg.eigh(moment)[1].T[::-1]  # eigh's eigenvalues rise
    largest = np.abs(basis).argmax(1)
    return basis * np.sign(basis[np.arange(len(basis)), largest])[:, None]
