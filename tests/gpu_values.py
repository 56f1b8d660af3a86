"""Values on the device for the tests of GPU kernels: made from arrays, poisoned, compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gpu_place import DEVICE
from nodes import FakeNode

from cosparse.kernels.gpu.launches import LAUNCHES
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.reference import run_node

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def image(*shape: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).normal(size=shape)


def planes(x: np.ndarray, dtype: torch.dtype) -> Planes:
    return Planes.of(torch.from_numpy(np.asarray(x, np.float64)).to(DEVICE), dtype)


def poisoned(shape: Sequence[int], dtype: torch.dtype) -> Planes:
    """An output with NaN everywhere: what a kernel forgets to write shows."""
    made = Planes.empty((*shape, 1, 1)[:4], dtype, DEVICE)  # type: ignore[arg-type]
    made.data.fill_(torch.nan)
    return made


def exact(x: Planes, rank: int) -> np.ndarray:
    y = x.nchw.double().cpu().numpy()
    return y if rank == 4 else y[:, :, 0, 0]


def assert_rounded(got: np.ndarray, want: np.ndarray, dtype: torch.dtype, slack: float) -> None:
    """One rounding to the dtype, and `slack` for the float32 in between. The interpreter cuts bfloat16 off: eps where a GPU has eps / 2."""
    eps = torch.finfo(dtype).eps
    assert got.shape == want.shape
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error, bound = np.abs(got - want), eps * (0.51 if dtype == torch.float16 else 1.01) * np.abs(want) + slack
    bad = ~same & ~(error <= bound)
    assert not bad.any(), f"{bad.sum()} of {bad.size}; at {np.argwhere(bad)[0]}: got {got[bad][0]}, wanted {want[bad][0]}, {bound[bad][0]=}"


def check(n: FakeNode, *arrays: np.ndarray, dtype: torch.dtype, slack: float = 1e-6) -> Planes:
    """The launch's output is the reference's for the inputs as the dtype holds them."""
    inputs = [planes(x, dtype) for x in arrays]
    want = run_node(n, *(exact(x, a.ndim) for x, a in zip(inputs, arrays, strict=True)))
    out = poisoned(want.shape, dtype)
    LAUNCHES[n.op](n, inputs, out)
    assert_rounded(exact(out, want.ndim), want, dtype, slack)
    return out
