"""The gathered product in Triton against the float64 reference, on the CPU in Triton's interpreter.

Only in float16: the interpreter keeps bfloat16 as integers and multiplies those in `tl.dot`. On a GPU the suite runs both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nodes
import numpy as np
import pytest
import torch
from gpu_place import DEVICE

from cosparse.errors import UnsupportedError
from cosparse.kernels.conv import conv, linear
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import coefficient_groups, weight_groups
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Product, Tile

EPS = 2.0**-11  # float16, half a unit in the last place
SMALL = Tile(16, 16)


def check(node: Any, shape: tuple[int, ...], rows: int = 16, tile: Tile = SMALL, **more: Any) -> None:
    """`more`: residual (bool), act. Inputs are rounded first; what is left are the weights' rounding, the sums' and the output's."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(nodes.normal(rng, *shape)).half().to(DEVICE)
    reference = (linear if node.op == "linear" else conv)(node, x.double().cpu().numpy())
    groups = coefficient_groups(node, rows) if node.attrs["transform"] == "identity" else weight_groups(node, rows)
    four = reference.shape if reference.ndim == 4 else (*reference.shape, 1, 1)
    residual = torch.from_numpy(nodes.normal(rng, *four)).half().to(DEVICE) if more.get("residual") else None
    bias = torch.from_numpy(node.tensors["bias"]).to(DEVICE) if "bias" in node.tensors else None
    epilogue = Epilogue(bias, None if residual is None else Planes.of(residual), more.get("act", "none"))
    want = reference.reshape(four) + (0 if residual is None else residual.double().cpu().numpy())
    if more.get("act") == "relu":
        want = np.maximum(want, 0)
    size = np.abs(groups.dense()).sum(1).max(initial=0) * float(x.abs().max()) + 10  # no sum is larger
    layer = Product(node, groups, torch.float16, DEVICE)
    for ahead in (False, True) if layer.whole_rows else (False,):
        out = Planes.of(torch.full(four, torch.nan, device=DEVICE), torch.float16)
        layer(Planes.of(x), out, epilogue, replace(tile, ahead=ahead))
        got = out.nchw.double().cpu().numpy()
        assert np.abs(got - want).max() <= 3 * EPS * size, np.abs(got - want).max()


@pytest.mark.parametrize(
    ("filters", "channels", "shape", "rows"),
    [(1, 1, (1, 1), 16), (17, 5, (3, 5), 16), (16, 33, (7, 7), 32), (65, 16, (1, 17), 64), (33, 19, (4, 4), 16), (130, 31, (2, 3), 128)],
)
def test_rows(filters: int, channels: int, shape: tuple[int, int], rows: int) -> None:
    rng = np.random.default_rng(filters)
    node = nodes.conv(rng, filters, channels, (1, 1), block=8, density=0.4, extras=("bias", "scale"))
    check(node, (2, channels, *shape), rows)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("tile", [Tile(16, 32), Tile(64, 16), Tile(128, 64)])
def test_tiles_reach_over_images_and_rows(batch: int, tile: Tile) -> None:
    node = nodes.conv(np.random.default_rng(1), 20, 9, (1, 1), block=4)
    check(node, (batch, 9, 5, 5), tile=tile, residual=True, act="relu")


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full(density: float) -> None:
    node = nodes.conv(np.random.default_rng(2), 40, 6, (1, 1), block=8, density=density)
    check(node, (1, 6, 3, 3), residual=True)


def test_dense_format_and_linear() -> None:
    rng = np.random.default_rng(3)
    check(nodes.conv(rng, 10, 7, (1, 1)), (2, 7, 3, 3))
    values = nodes.normal(rng, 10, 37)
    attrs = {"filters": 10, "channels": 37, "transform": "identity", "format": "dense", "block": 1}
    node = nodes.FakeNode("fc", "linear", ("x",), attrs, {"values": values, "bias": nodes.normal(rng, 10)})
    for batch in (1, 5):
        check(node, (batch, 37))


@pytest.mark.parametrize("channels", [1, 15, 16, 33])
def test_columns_in_their_order_are_not_looked_up(channels: int) -> None:
    rng = np.random.default_rng(channels)
    for rows, tile in ((128, Tile(128, 32, 8, 5)), (64, SMALL), (16, Tile(16, 64))):
        node = nodes.conv(rng, rows + 2, channels, (1, 1))
        check(node, (2, channels, 9, 8), rows, tile, residual=True, act="relu")
        assert Product(node, coefficient_groups(node, rows), torch.float16, DEVICE).every
    sparse = nodes.conv(rng, 128, 40, (1, 1), block=64, density=0.5)
    assert not Product(sparse, coefficient_groups(sparse, 64), torch.float16, DEVICE).every


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pad", "shape"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (5, 7)),
        ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1), (7, 8)),
        ((3, 3), (1, 1), (2, 3), (2, 3, 2, 3), (6, 9)),
        ((7, 7), (2, 2), (1, 1), (3, 3, 3, 3), (9, 9)),
        ((1, 1), (2, 2), (1, 1), (0, 0, 0, 0), (5, 5)),
        ((1, 1), (1, 1), (1, 1), (1, 0, 0, 2), (2, 3)),
        ((2, 3), (1, 2), (1, 1), (0, 1, 1, 2), (1, 1)),
    ],
)
def test_taps(kernel: Any, stride: Any, dilation: Any, pad: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    more = {"stride": stride, "dilation": dilation, "pad": pad}
    check(nodes.conv(rng, 18, 3, kernel, block=8, **more), (2, 3, *shape), residual=True)
    check(nodes.conv(rng, 5, 4, kernel, block=8, transform="dct", **more), (1, 4, *shape))


@pytest.mark.parametrize(
    ("size", "tile"), [((2, 2), SMALL), ((6, 4), SMALL), ((4, 8), SMALL), ((2, 16), Tile(64, 32)), ((6, 32), Tile(64, 16))]
)
@pytest.mark.parametrize("act", ["none", "relu", "silu"])
def test_pooled_in_its_tiles(size: tuple[int, int], tile: Tile, act: str) -> None:
    """The very numbers that a pool behind it gives: rounding keeps the order. NaN stays in its window."""
    rng = np.random.default_rng(7)
    (h, w), node = size, nodes.conv(rng, 40, 9, (1, 1), block=8, density=0.6, extras=("bias",))
    x = torch.from_numpy(nodes.normal(rng, 3, 9, h, w)).half()
    x[1, :, 1, 0] = torch.nan
    bias = torch.from_numpy(node.tensors["bias"]).to(DEVICE)
    for rows, every in ((16, False), (32, True)):
        groups = weight_groups(node, rows, every)
        layer = Product(node, groups, torch.float16, DEVICE)
        for ahead in (False, True):
            cut, planes = replace(tile, ahead=ahead), Planes.of(x.to(DEVICE))
            whole = Planes.of(torch.full((3, 40, h, w), torch.nan, device=DEVICE), torch.float16)
            out = Planes.of(torch.full((3, 40, h // 2, w // 2), 7.0, device=DEVICE), torch.float16)
            layer(planes, whole, Epilogue(bias, None, act), cut)
            layer(planes, out, Epilogue(bias, None, act), cut, pooled=True)
            want = torch.nn.functional.max_pool2d(whole.nchw.float().cpu(), 2)
            assert want.isnan().sum() == 40
            assert torch.equal(out.nchw.float().cpu().nan_to_num(nan=9e4), want.nan_to_num(nan=9e4))


def test_what_a_pool_in_tiles_is_refused_for() -> None:
    node = nodes.conv(np.random.default_rng(8), 16, 4, (1, 1))
    layer = Product(node, coefficient_groups(node, 16), torch.float16, DEVICE)

    def planes(*shape: int) -> Planes:
        return Planes.of(torch.zeros(shape, device=DEVICE), torch.float16)

    for x, out, residual in (
        (planes(1, 4, 4, 12), planes(1, 16, 2, 6), None),
        (planes(1, 4, 4, 8), planes(1, 16, 2, 8), None),
        (planes(1, 4, 4, 8), planes(1, 16, 2, 4), planes(1, 16, 2, 4)),
    ):
        with pytest.raises(UnsupportedError, match="pairs of whole rows"):
            layer(x, out, Epilogue(residual=residual), SMALL, pooled=True)


def test_grouped_channels_are_refused() -> None:
    node = nodes.conv(np.random.default_rng(5), 8, 8, (1, 1), groups=2)
    with pytest.raises(UnsupportedError, match="one channel group"):
        Product(node, coefficient_groups(node, 16), torch.float16, DEVICE)
