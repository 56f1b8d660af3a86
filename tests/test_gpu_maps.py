"""The basis step on its own, and the product on what it wrote, against the float64 references; on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import contextlib
from typing import Any

import nodes
import numpy as np
import ptx
import pytest
import torch
from gpu_place import DEVICE

from cosparse.errors import UnsupportedError
from cosparse.kernels.basis import basis_step
from cosparse.kernels.conv import conv
from cosparse.kernels.gpu import maps as of_maps
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import coefficient_groups
from cosparse.kernels.gpu.maps import SCALES, MapMaker, Maps, supports
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Tile

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

WINDOWS: dict[str, dict[str, Any]] = {
    "same": {"pad": (1, 1, 1, 1)},
    "unlike": {"pad": (1, 1, 2, 3)},
    "stride": {"pad": (1, 1, 1, 1), "stride": (2, 2)},
    "dilated": {"pad": (2, 3, 2, 3), "dilation": (2, 3)},
    "unpadded": {},
    "uneven": {"pad": (0, 2, 1, 0), "stride": (1, 2)},
}


def given(node: Any, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Planes, np.ndarray]:
    x = torch.from_numpy(nodes.normal(np.random.default_rng(7), *shape)).to(dtype).to(DEVICE)
    return Planes.of(x), x.double().cpu().numpy()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("size", [(4, 8), (7, 7), (5, 36)])
@pytest.mark.parametrize("window", WINDOWS)
def test_maps_are_the_reference_s(window: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    if WINDOWS[window].get("dilation") and min(size) < 4:
        pytest.skip("the window does not fit")
    node = nodes.conv(np.random.default_rng(0), 20, 3, (3, 3), block=8, transform="dct", density=0.15, **WINDOWS[window])
    x, exact = given(node, (2, 3, *size), dtype)
    want_y = conv(node, exact)
    want = basis_step(node, exact, want_y.shape[2:]).reshape(2, 27, *want_y.shape[2:])
    groups = coefficient_groups(node, 16)
    layer = MapMaker(node, groups, dtype, DEVICE)
    used = np.unique(groups.columns)
    maps = Planes.of(torch.full((2, len(used), *want_y.shape[2:]), torch.nan, device=DEVICE), dtype)
    layer.make(x, maps)
    got = maps.nchw.double().cpu().numpy()
    want = want[:, used] / SCALES[used % 9, None, None]
    # At most six roundings, of numbers no larger than 9 max |x| but the last; the interpreter has one, and cuts bfloat16 off.
    assert np.all(np.abs(got - want) <= torch.finfo(dtype).eps * (1.01 * np.abs(want) + 9 * np.abs(exact).max()))


NEAR = [  # height, width, stride, the kernel
    (7, 6, 1, "strips"), (8, 4, 1, "strips"), (5, 2, 1, "strips"), (14, 8, 2, "strips"), (16, 4, 2, "strips"),
    (7, 7, 1, "flat"), (1, 1, 1, "flat"), (3, 1, 1, "flat"), (2, 5, 1, "flat"),
    (14, 14, 2, "halved"), (2, 2, 2, "halved"), (4, 6, 2, "halved"),
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dct", [False, True])
@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(("height", "width", "stride", "way"), NEAR)
def test_words(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, stride: int, way: str, tall: bool, dct: bool, packed: bool
) -> None:
    """Each kernel that reads words, with strips as high as they can be and with single rows; NaN behind the pixels gets nowhere."""
    monkeypatch.setattr(of_maps, "STRIPS", {0: (7, 4, 2, 1) if tall else (1,)})
    monkeypatch.setattr(of_maps, "LEAST", 0)
    transform = {"transform": "dct"} if dct else {}
    node = nodes.conv(np.random.default_rng(3), 16, 3, (3, 3), block=8, density=0.4, stride=(stride, stride), pad=(1, 1, 1, 1), **transform)
    x, exact = given(node, (3, 3, height, width), torch.float16)
    out = conv(node, exact).shape[2:]
    layer = MapMaker(node, coefficient_groups(node, 16), torch.float16, DEVICE)
    assert layer.way(x, out) == way
    layer.packed = packed
    used = np.unique(coefficient_groups(node, 16).columns)
    maps = Planes.of(torch.full((3, len(used), *out), torch.nan, device=DEVICE), torch.float16)
    with ptx.understood() if packed and dct and DEVICE == "cpu" else contextlib.nullcontext():
        layer.make(x, maps)
    padded = torch.nn.functional.pad(torch.from_numpy(exact), (1, 1, 1, 1))
    taps = torch.stack([padded[:, :, u : u + height : stride, v : v + width : stride] for u in range(3) for v in range(3)], 2).numpy()
    want = taps
    if dct:
        basis = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
        want = np.einsum("ui,vj,ncijhw->ncuvhw", basis, basis, taps.reshape(3, 3, 3, 3, *out)).reshape(3, 3, 9, *out)
    want = want.reshape(3, 27, *out)[:, used]
    bound = 2.0**-10 * (np.abs(want) + 9 * np.abs(exact).max()) if dct else 0
    assert np.all(np.abs(maps.nchw.double().cpu().numpy() - want) <= bound)


@pytest.mark.parametrize("shape", [(1, 6, 2, 2), (3, 6, 10, 6), (2, 6, 7, 6), (5, 6, 14, 14)])
def test_every_second_pixel(shape: tuple[int, ...]) -> None:
    node = nodes.conv(np.random.default_rng(2), 16, 6, (1, 1), block=8, density=0.5, stride=(2, 2))
    x, exact = given(node, shape, torch.float16)
    layer, want = MapMaker(node, coefficient_groups(node, 16), torch.float16, DEVICE), exact[:, :, ::2, ::2]
    assert layer.way(x, want.shape[2:]) == "points"
    used = np.unique(coefficient_groups(node, 16).columns)
    maps = Planes.of(torch.full((shape[0], len(used), *want.shape[2:]), torch.nan, device=DEVICE), torch.float16)
    layer.make(x, maps)
    assert np.array_equal(maps.nchw.double().cpu().numpy(), want[:, used])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_two_numbers_an_instruction(monkeypatch: pytest.MonkeyPatch, stride: int, dtype: torch.dtype) -> None:
    """The packed arithmetic, bit for bit what its roundings say: each of its additions in the dtype."""
    monkeypatch.setattr(of_maps, "LEAST", 0)
    node = nodes.conv(np.random.default_rng(4), 16, 3, (3, 3), transform="dct", stride=(stride, stride), pad=(1, 1, 1, 1))
    x, exact = given(node, (2, 3, 6, 8), dtype)
    layer = MapMaker(node, coefficient_groups(node, 16), dtype, DEVICE)
    layer.packed = True
    maps = Planes.of(torch.full((2, 27, 6 // stride, 8 // stride), torch.nan, device=DEVICE), dtype)
    with ptx.understood() if DEVICE == "cpu" else contextlib.nullcontext():
        layer.make(x, maps)
    padded = torch.nn.functional.pad(torch.from_numpy(exact), (1, 1, 1, 1)).to(dtype)
    rows = dct3([padded[..., v : v + 8 : stride] for v in range(3)])  # by frequency v: [2, 3, 8, columns]
    want = [dct3([row[..., u : u + 6 : stride, :] for u in range(3)]) for row in rows]  # [v][u]
    for u in range(3):
        for v in range(3):
            assert torch.equal(maps.nchw[:, 3 * u + v :: 9].cpu(), want[v][u])


def test_few_pixels_are_rounded_once() -> None:
    node = nodes.conv(np.random.default_rng(6), 16, 3, (3, 3), transform="dct", pad=(1, 1, 1, 1))
    x, exact = given(node, (2, 3, 6, 8), torch.float16)
    layer = MapMaker(node, coefficient_groups(node, 16), torch.float16, DEVICE)
    layer.packed = True  # what a GPU does with many
    maps = Planes.of(torch.full((2, 27, 6, 8), torch.nan, device=DEVICE), torch.float16)
    layer.make(x, maps)
    want = basis_step(node, exact, (6, 8)).reshape(2, 27, 6, 8) / SCALES[np.arange(27) % 9, None, None]
    assert np.all(np.abs(maps.nchw.double().cpu().numpy() - want) <= 2.0**-11 * np.abs(want) + 1e-5)


def dct3(taps: list[torch.Tensor]) -> list[torch.Tensor]:
    a, b, c = taps
    ends = a + c
    return [ends + b, a - c, (ends.double() - 2 * b.double()).to(a.dtype)]


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("window", WINDOWS)
def test_layers(window: str, density: float) -> None:
    """float16 alone, as in test_gpu_product.py."""
    node = nodes.conv(np.random.default_rng(1), 33, 6, (3, 3), block=8, transform="dct", density=density, **WINDOWS[window])
    check(node, (2, 6, 6, 10))


def test_taps_and_strided_points() -> None:
    rng = np.random.default_rng(2)
    check(nodes.conv(rng, 24, 7, (1, 1), block=8, stride=(2, 2)), (3, 7, 5, 6))
    check(nodes.conv(rng, 24, 7, (1, 1), stride=(2, 2)), (1, 7, 7, 7))
    check(nodes.conv(rng, 17, 4, (2, 3), block=8, pad=(1, 0, 0, 2), stride=(1, 2)), (2, 4, 5, 5))


def check(node: Any, shape: tuple[int, ...]) -> None:
    x, exact = given(node, shape, torch.float16)
    want = conv(node, exact)
    groups = coefficient_groups(node, 16)
    out = Planes.of(torch.full(want.shape, torch.nan, device=DEVICE), torch.float16)
    bias = torch.from_numpy(node.tensors["bias"]).to(DEVICE)
    Maps(node, groups, torch.float16, DEVICE)(x, out, Epilogue(bias), Tile(32, 16))
    size = 3 * np.abs(groups.dense()).sum(1).max(initial=0) * np.abs(exact).max() + 10  # maps are at most three times as large as x
    assert np.abs(out.nchw.double().cpu().numpy() - want).max() <= 3 * 2.0**-11 * size


def test_what_is_refused() -> None:
    rng = np.random.default_rng(3)
    assert supports(nodes.conv(rng, 8, 8, (5, 5), transform="dct"))
    assert not supports(nodes.conv(rng, 8, 8, (5, 5)))
    grouped = nodes.conv(rng, 8, 8, (3, 3), groups=2)
    with pytest.raises(UnsupportedError, match="one channel group"):
        Maps(grouped, coefficient_groups(nodes.conv(rng, 8, 4, (3, 3)), 16), torch.float16, DEVICE)
