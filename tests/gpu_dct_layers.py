"""3x3 layers in the DCT's domain for the tests of the CUDA kernels that run them: made, run, compared with the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cuda_kernels import EPS, guarded
from nodes import FakeNode, conv, kept_blocks, normal

from cosparse.kernels.activation import KINDS
from cosparse.kernels.basis import conv_by_basis
from cosparse.kernels.conv import coefficients
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import Groups, coefficient_groups
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.transform import dct_matrix
from cosparse.kernels.window import padded, taps

Run = Callable[[Groups, Planes, Planes, Epilogue, bool], None]
"""Packs groups of 64 filters for a kernel and launches it on x, out, an epilogue, from the last pixels to the first or not."""


def magnitude(node: FakeNode, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sum over k of |S[o,k]| a[k,p], where a is a map of |x| by the absolute basis: what roundings are relative to."""
    seen = np.zeros((len(x), x.shape[1], 9, size[0] * size[1]))
    for i, j, tap in taps(padded(np.abs(x), node.attrs["pad"]), (3, 3), node.attrs["stride"], node.attrs["dilation"], size):
        seen[:, :, 3 * i + j] = tap.reshape(*x.shape[:2], -1)
    maps = np.abs(np.kron(dct_matrix(3), dct_matrix(3))) @ seen
    weights = np.abs(coefficients(node)).reshape(node.attrs["filters"], -1)
    return (weights @ maps.reshape(len(x), -1, size[0] * size[1])).reshape(len(x), -1, *size)


def compared(
    device: str,
    node: FakeNode,
    size: tuple[int, int, int],
    dtype: Any,
    run: Run,
    *,
    residual: bool = False,
    act: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    gain: float = 1.0,
    x: np.ndarray | None = None,
) -> np.ndarray:
    """Runs a node on [N, H, W] pixels, whose outputs are poisoned, and compares; `gain` is the activation's steepest slope. The result."""
    rng = np.random.default_rng(3)
    n, h, w = size
    x = normal(rng, n, node.attrs["channels"], h, w) if x is None else x
    rounded = torch.from_numpy(x).to(dtype)
    exact = rounded.double().numpy()
    want = conv_by_basis(node, exact)
    bias = node.tensors.get("bias")
    planes, _ = guarded(tuple(exact.shape), dtype, device)
    planes.nchw.copy_(rounded)
    out, everything = guarded(want.shape, dtype, device)
    added = None
    if residual:
        added, _ = guarded(want.shape, dtype, device)
        added.nchw.copy_(torch.from_numpy(normal(rng, *want.shape)))
        want = want + added.nchw.double().cpu().numpy()
    bias = None if bias is None else torch.from_numpy(bias).to(device)
    run(coefficient_groups(node, 64), planes, out, Epilogue(bias, added, act, alpha, beta), n % 2 == 0)
    got = out.nchw.double().cpu().numpy()
    assert bool(torch.isnan(everything[[0, -1]]).all()), "wrote outside its planes"
    # Two roundings an axis and one of the weight, then float32 sums, which tensor cores truncate rather than round, then one of y.
    before = np.abs(want)
    want = KINDS[act](want, alpha, beta) if act != "none" else want
    terms = node.attrs["channels"] * 9 + 4
    bound = gain * ((6 * EPS[dtype] + terms * 2.0**-23) * magnitude(node, exact, want.shape[2:]) + 2.0**-22 * before)
    bound += 1.01 * EPS[dtype] * (np.abs(want) + bound) + 2.0**-24
    fine = np.isfinite(want)
    error = np.where(fine, np.abs(got - want) - bound, 0)
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
    assert error[worst] <= 0, f"at {tuple(map(int, worst))}: got {got[worst]}, wanted {want[worst]}, bound {bound[worst]}"
    return np.asarray(got)


def layer(filters: int, channels: int, **more: Any) -> FakeNode:
    options: dict[str, Any] = {"pad": (1, 1, 1, 1), "transform": "dct", "block": 8} | more
    return conv(np.random.default_rng(filters), filters, channels, (3, 3), **options)


def with_empty_groups() -> FakeNode:
    """200 filters of which the second 64 have no column, and 17 channels of which some are nobody's."""
    rng = np.random.default_rng(5)
    keep = rng.random((25, 17 * 9)) < 0.3
    keep[8:16] = False
    keep[:, 5 * 9 : 11 * 9] = False
    node = layer(200, 17, density=0.0)
    return replace(node, tensors=node.tensors | kept_blocks(rng, 200, keep, 8))


def nan_stays_where_it_is_seen(run: Callable[[FakeNode, tuple[int, int, int], np.ndarray], np.ndarray], size: tuple[int, int, int]) -> None:
    """NaN, all over the second image and in a corner of the first one, reaches the pixels whose windows hold it, and no other."""
    x = normal(np.random.default_rng(1), size[0], 4, *size[1:])
    x[1] = np.nan
    x[0, :, 0, 0] = np.nan
    reached = np.isnan(run(layer(3, 4, density=1.0), size, x))
    expected = np.zeros_like(reached)
    expected[1] = expected[0, :, :2, :2] = True
    assert (reached == expected).all()


SHAPES = [
    (1, 1, 1), (3, 1, 1), (2, 1, 5), (2, 3, 1), (3, 2, 2), (1, 4, 3), (2, 7, 7), (3, 8, 8), (2, 9, 9), (1, 5, 12), (2, 6, 10), (1, 17, 19),
    (2, 5, 4), (3, 3, 16), (1, 5, 32),
]  # fmt: skip
