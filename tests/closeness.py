"""Comparison with a bound that follows from the arithmetic, and a message that shows the worst element."""

from __future__ import annotations

import numpy as np


def assert_close(got: np.ndarray, want: np.ndarray, *, terms: int, scale: float, eps: float = float(np.finfo(np.float64).eps)) -> None:
    """|got - want| <= 4 eps terms scale everywhere: `terms` roundings a result, none larger than eps `scale`; NaN equals NaN only.

    4: two roundings a term (product and sum) on both sides of the comparison.
    """
    assert got.shape == want.shape, f"shape {got.shape}, wanted {want.shape}"
    if not want.size:
        return
    bound = 4 * eps * terms * scale
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    error = np.zeros(want.shape)
    error[~same] = np.nan_to_num(np.abs(got[~same] - want[~same]), nan=np.inf)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    assert error[worst] <= bound, f"at {tuple(map(int, worst))}: got {got[worst]!r}, wanted {want[worst]!r}, bound {bound:.3g}"
