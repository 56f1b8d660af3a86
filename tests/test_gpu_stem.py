"""The CUDA kernel of a stem and its max pool against float64: its source compiled for the CPU, and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cuda_kernels import DTYPES, EPS, guarded
from nodes import FakeNode, conv, node, normal
from torch.nn import functional as F

from cosparse.errors import UnsupportedError
from cosparse.kernels.gpu import stem
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.stem import Stem, supports

POOL = node("max_pool", kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], ceil=0)
EVEN, UNEVEN, SHORT, LEFT = (3, 3, 3, 3), (2, 3, 1, 2), (0, 1, 0, 3), (7, 7, 4, 7)
"""Paddings. With SHORT and LEFT the convolved width is odd."""


def layer(filters: int, channels: int, pad: tuple[int, ...] = EVEN, **more: Any) -> FakeNode:
    return conv(np.random.default_rng(filters), filters, channels, (7, 7), **{"stride": (2, 2), "pad": pad} | more)


def pooled(z: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(z, 3, 2, 1)


def check(
    device: str,
    n: FakeNode,
    size: tuple[int, int, int],
    dtype: torch.dtype,
    rows: int = 8,
    act: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    x: np.ndarray | None = None,
) -> np.ndarray:
    """Runs it on [N, H, W] pixels and compares with what float64 makes of the rounded pixels and weights. The result, float64."""
    images, height, width = size
    assert supports(n, POOL, width) == ""
    x = normal(np.random.default_rng(3), images, n.attrs["channels"], height, width) if x is None else x
    planes, _ = guarded(x.shape, dtype, device)
    planes.nchw.copy_(torch.from_numpy(x))
    top, left, bottom, right = n.attrs["pad"]
    exact = F.pad(planes.nchw.double().cpu(), (left, right, top, bottom))
    taps = torch.from_numpy(n.tensors["values"]).to(dtype).double()
    bias = torch.from_numpy(n.tensors["bias"]) if "bias" in n.tensors else None
    z = F.conv2d(exact, taps, None if bias is None else bias.double(), stride=2)
    want = pooled(z)
    out, everything = guarded(tuple(want.shape), dtype, device)
    Stem.of(n, dtype, device)(planes, out, Epilogue(None if bias is None else bias.to(device), None, act, alpha, beta), rows)
    got = out.nchw.double().cpu()
    assert bool(torch.isnan(everything[[0, -1]]).all()), "wrote outside its planes"
    assert bool(torch.isnan(everything[1:-1, out.pixels :]).all()), "wrote behind its pixels"
    # Sums in float32, which tensor cores truncate rather than round, then one rounding; no maximum errs by more than what it is of.
    added = 0 if bias is None else bias.double().abs()[:, None, None]
    terms = 49 * n.attrs["channels"] + 2
    bound = pooled(terms * 2.0**-23 * (F.conv2d(exact.nan_to_num().abs(), taps.abs(), stride=2) + added))
    want = want.clamp(0) if act == "relu" else want.clamp(alpha, beta) if act == "clip" else want
    bound += 1.01 * EPS[dtype] * (want.abs() + bound) + 2.0**-24
    error = torch.where(want.isfinite(), (got - want).abs() - bound, 0).nan_to_num(nan=torch.inf).numpy()
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    assert error[worst] <= 0, f"{rows} rows at {tuple(map(int, worst))}: got {got[worst]}, wanted {want[worst]}, bound {bound[worst]}"
    return np.asarray(got.numpy())


SHAPES = [
    (1, 4, 8), (2, 9, 16), (3, 7, 24), (1, 17, 32), (2, 5, 40), (1, 23, 48), (1, 11, 56), (1, 13, 64), (2, 15, 72), (1, 33, 8),
]  # fmt: skip
"""The last warps of 56 and 64 pixels have one column and none."""


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_every_size(on_host: str, size: tuple[int, int, int]) -> None:
    acts: list[tuple[str, float, float]] = [("none", 0, 0), ("relu", 0, 0), ("clip", -0.5, 2.5)]
    layers = [(5, 3, EVEN), (64, 1, UNEVEN), (70, 2, EVEN), (5, 4, UNEVEN)]
    for i, ((filters, channels, pad), rows) in enumerate(zip(layers, (8, 4, 2, 1), strict=True)):
        act, alpha, beta = acts[(i + size[2] // 8) % 3]
        check(on_host, layer(filters, channels, pad), size, list(EPS)[i % 2], rows, act, alpha, beta)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [8, 4, 2, 1])
def test_rows_of_a_block(on_host: str, rows: int, dtype: torch.dtype) -> None:
    check(on_host, layer(6, 3), (2, 37, 24), dtype, rows, "relu")
    check(on_host, layer(6, 1, UNEVEN, extras=()), (1, 36, 16), dtype, rows)


@pytest.mark.parametrize("pad", [SHORT, LEFT, (6, 5, 7, 6), (0, 3, 1, 3)], ids=str)
def test_paddings(on_host: str, pad: tuple[int, ...]) -> None:
    widths = [width for width in range(8, 73, 8) if supports(layer(1, 1, pad), POOL, width) == ""]
    assert widths
    for width in widths:
        check(on_host, layer(3, 2, pad), (2, 15, width), torch.float16, 2)


def test_weights_in_blocks_and_scales(on_host: str) -> None:
    plain = layer(6, 3, extras=("bias", "scale"))
    x = Planes.of(torch.from_numpy(normal(np.random.default_rng(0), 1, 3, 9, 16)), torch.float16)
    scaled = plain.tensors["values"] * plain.tensors["scale"][:, None, None, None]
    other = replace(plain, tensors={"values": scaled, "bias": plain.tensors["bias"]})
    results = []
    for one in (plain, other):
        out = Planes.empty((1, 6, 3, 4), torch.float16, "cpu")
        Stem.of(one, torch.float16, "cpu")(x, out, Epilogue())
        results.append(out.nchw)
    assert torch.equal(*results)
    empty = Stem.of(layer(6, 3, block=2, density=0.0, extras=()), torch.float16, "cpu")
    assert not empty.weights.any()


@pytest.mark.parametrize("at", [(0, 0), (6, 6), (7, 9), (9, 12), (18, 23), (7, 11)], ids=str)
def test_nan_reaches_its_own_windows_alone(on_host: str, at: tuple[int, int]) -> None:
    x = normal(np.random.default_rng(1), 2, 3, 19, 24)
    x[1, 1, at[0], at[1]] = np.nan
    n = layer(3, 3)
    seen = torch.from_numpy(np.isnan(x)).double().amax(1, keepdim=True)
    reached = F.max_pool2d(F.conv2d(seen, torch.ones(1, 1, 7, 7).double(), stride=2, padding=3), 3, 2, 1)
    for rows in (8, 2):
        got = np.isnan(check(on_host, n, (2, 19, 24), torch.float16, rows, "relu", x=x))
        assert (got == (reached.numpy() > 0)).all()


def test_no_pixel_beside_the_image_counts(on_host: str) -> None:
    """Where every sum is negative, a zero or another row would be the largest."""
    n = replace(layer(3, 1), tensors={"values": np.full((3, 1, 7, 7), -0.1, np.float32), "bias": np.full(3, -5, np.float32)})
    for size in ((1, 9, 24), (2, 13, 72)):
        got = check(on_host, n, size, torch.float16, x=np.ones((size[0], 1, *size[1:]), np.float32))
        assert got.max() < -5


def test_images_that_are_too_wide(on_host: str) -> None:
    """`widest` is what the kernel itself allows."""
    for channels, rows in ((3, 8), (1, 2), (20, 2)):
        width = stem.widest(channels, rows, torch.device("cpu"))
        assert width > 0
        check(on_host, layer(1, channels), (1, 2, width // 8 * 8), torch.float16, rows)
        with pytest.raises(UnsupportedError, match=f"{rows} rows"):
            check(on_host, layer(1, channels), (1, 2, width // 8 * 8 + 8), torch.float16, rows)
    assert stem.widest(40, 2, torch.device("cpu")) <= 0


def test_what_is_refused(on_host: str) -> None:
    made = Stem.of(layer(5, 3), torch.float16, "cpu")
    x, out = Planes.empty((2, 3, 9, 16), torch.float16, "cpu"), Planes.empty((2, 5, 3, 4), torch.float16, "cpu")

    def launch(x: Planes = x, out: Planes = out, epilogue: Epilogue = Epilogue(), rows: int = 8) -> None:  # noqa: B008
        made(x, out, epilogue, rows)

    launch()
    with pytest.raises(UnsupportedError, match="gelu"):
        launch(epilogue=Epilogue(act="gelu"))
    with pytest.raises(UnsupportedError, match="no residual"):
        launch(epilogue=Epilogue(residual=out))
    with pytest.raises(UnsupportedError, match="3 channels"):
        launch(x=Planes.empty((2, 4, 9, 16), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match=r"an output \(2, 5, 3, 4\)"):
        launch(out=Planes.empty((2, 5, 5, 8), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match="planes of torch"):
        launch(x=Planes.empty((2, 3, 9, 16), torch.bfloat16, "cpu"))
    with pytest.raises(UnsupportedError, match="float16 and torch"):
        launch(out=Planes.empty((2, 5, 3, 4), torch.bfloat16, "cpu"))
    with pytest.raises(UnsupportedError, match="start on 16 bytes"):
        launch(x=Planes.empty((2, 3, 9, 12), torch.float16, "cpu"), out=Planes.empty((2, 5, 3, 3), torch.float16, "cpu"))
    with pytest.raises(UnsupportedError, match="no kernel was compiled"):
        launch(rows=0)


def test_which_nodes_are_supported() -> None:
    fine = layer(8, 3)
    assert supports(fine, POOL, 224) == ""
    for other in (
        conv(np.random.default_rng(0), 8, 3, (5, 5), stride=(2, 2)),
        layer(8, 4, groups=2),
        node("linear", filters=8, channels=3),
    ):
        assert "7x7" in supports(other, POOL, 224)
    for window in ({"stride": (2, 1)}, {"stride": (1, 1)}, {"dilation": (1, 2)}):
        assert "stride" in supports(layer(8, 3, **window), POOL, 224)
    assert "transformed" in supports(replace(fine, attrs=fine.attrs | {"filters_tile": 4, "filters_transform": "walsh"}), POOL, 224)
    assert "even padding" in supports(layer(8, 3, (3, 2, 3, 3)), POOL, 224)
    for pad in ((3, 9, 3, 3), (3, 3, 3, 20)):
        assert "wider than the window" in supports(layer(8, 3, pad), POOL, 224)
    for attrs in ({"kernel": [2, 2]}, {"stride": [1, 1]}, {"pad": [0, 0, 0, 0]}, {"dilation": [2, 2]}, {"ceil": 1}):
        assert "max pool" in supports(fine, replace(POOL, attrs=POOL.attrs | attrs), 224)
    assert "max pool" in supports(fine, replace(POOL, op="avg_pool"), 224)
    assert "8" in supports(fine, POOL, 220)
    assert "2" in supports(layer(8, 3, (3, 3, 3, 7)), POOL, 224)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu(on_gpu: str, dtype: torch.dtype) -> None:
    for rows in (8, 4, 2, 1):
        for size in SHAPES:
            check(on_gpu, layer(70, 3, UNEVEN), size, dtype, rows, "clip", -0.5, 2.5)
        check(on_gpu, layer(5, 4, LEFT), (3, 19, 48), dtype, rows)
        check(on_gpu, layer(64, 3), (9, 224, 224), dtype, rows, "relu")
    check(on_gpu, layer(3, 1), (1, 19, stem.widest(1, 2, torch.device("cuda")) // 8 * 8), dtype, 2)
