"""Stems by words of two pixels against the float64 reference, on the CPU in Triton's interpreter; in float16, as in test_gpu_product.py."""

from __future__ import annotations

from typing import Any

import nodes
import numpy as np
import pytest
import torch
from gpu_place import DEVICE

from cosparse.errors import UnsupportedError
from cosparse.kernels.conv import conv, unpack
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.pairs import Pairs, supports
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Tile

EPS = 2.0**-11  # float16, half a unit in the last place
SMALL = Tile(16, 8, 4, 1)


def check(node: Any, shape: tuple[int, ...], rows: int = 16, tile: Tile = SMALL, holes: bool = False, **more: Any) -> None:
    """`more`: residual (bool), act; `holes`: NaN at some pixels. Inputs are rounded first, then weights, sums and output."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(nodes.normal(rng, *shape)).half().to(DEVICE)
    if holes:
        x.view(-1)[:: x.numel() // 2 + 1] = torch.nan
    want = conv(node, x.double().cpu().numpy())
    residual = torch.from_numpy(nodes.normal(rng, *want.shape)).half().to(DEVICE) if more.get("residual") else None
    out = Planes.of(torch.full(want.shape, torch.inf, device=DEVICE), torch.float16)
    bias = torch.from_numpy(node.tensors["bias"]).to(DEVICE) if "bias" in node.tensors else None
    epilogue = Epilogue(bias, None if residual is None else Planes.of(residual), more.get("act", "none"))
    Pairs(node, torch.float16, DEVICE, rows)(Planes.of(x), out, epilogue, tile)
    want = want + (0 if residual is None else residual.double().cpu().numpy())
    if more.get("act") == "relu":
        want = np.maximum(want, 0)
    size = np.abs(unpack(node)).sum((1, 2, 3)).max() * float(x.nan_to_num().abs().max()) + 10  # no sum is larger
    got = out.nchw.double().cpu().numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert np.nanmax(np.abs(got - want), initial=0) <= 3 * EPS * size


def stem(filters: int, channels: int, kernel: tuple[int, int], left: int, **more: Any) -> Any:
    pad = (kernel[0] // 2, left, kernel[0] // 2, kernel[1] // 2)
    return nodes.conv(np.random.default_rng(filters), filters, channels, kernel, **{"stride": (2, 2), "pad": pad} | more)


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_windows(width: int, left: int) -> None:
    """Windows that begin at even and odd pixels, and inside, at and outside the image's edge."""
    check(stem(3, 2, (9 - width, width), left), (2, 2, 9, 10))


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("tile", [SMALL, Tile(64, 16, 4, 1), Tile(32, 32, 4, 1)])
def test_tiles_reach_over_images(batch: int, tile: Tile) -> None:
    check(stem(20, 3, (3, 3), 1, extras=("bias", "scale")), (batch, 3, 7, 8), tile=tile, residual=True, act="relu")


@pytest.mark.parametrize(("filters", "rows"), [(1, 16), (64, 64), (65, 64), (65, 32), (130, 128)])
def test_groups_of_filters(filters: int, rows: int) -> None:
    check(stem(filters, 3, (7, 7), 3), (1, 3, 9, 12), rows, Tile(32, 32, 4, 1), residual=True, act="relu")


@pytest.mark.parametrize("stride_h", [1, 2, 3])
def test_strides_and_many_channels(stride_h: int) -> None:
    """More rows of taps than become straight code; also of blocks, which are multiplied whole."""
    node = stem(9, 25, (3, 2), 0, stride=(stride_h, 2), block=4, density=0.4)
    check(node, (2, 25, 5, 6))


def test_nan_reaches_its_own_windows_alone() -> None:
    """Not those that lie beside it in a word."""
    for left in (0, 1):
        check(stem(2, 1, (1, 1), left), (1, 1, 4, 16), holes=True)
        check(stem(2, 2, (3, 3), left), (2, 2, 8, 16), holes=True)


def test_refusals() -> None:
    plain = stem(4, 2, (3, 3), 1)
    assert supports(plain, 8)
    assert not supports(plain, 7)
    for node in (stem(4, 2, (3, 3), 1, stride=(2, 1)), stem(4, 2, (1, 9), 1), stem(4, 2, (3, 3), 1, groups=2)):
        assert not supports(node, 8)
        with pytest.raises(UnsupportedError, match="one channel group, kernels up to 8, stride 2"):
            Pairs(node, torch.float16, DEVICE)
    x = Planes.empty((1, 2, 6, 7), torch.float16, DEVICE)
    with pytest.raises(UnsupportedError, match="an even width, got 7"):
        Pairs(plain, torch.float16, DEVICE)(x, Planes.empty((1, 4, 3, 4), torch.float16, DEVICE), Epilogue(), SMALL)
