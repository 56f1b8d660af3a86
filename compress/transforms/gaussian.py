"""A random orthonormal basis: the control of the fitted one and of the DCT.

Q of the QR decomposition of a seeded matrix of standard normals; each column's sign is that of R's diagonal, which makes Q uniform over all
orthonormal matrices and deterministic.
"""

from __future__ import annotations

import numpy as np


def random_basis(seed: int, count: int, points: int) -> np.ndarray:
    """`count` different bases, float64 [count, points, points]; equal seeds and sizes give equal bases."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((count, points, points)))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
