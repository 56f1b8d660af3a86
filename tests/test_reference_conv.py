"""conv and linear against PyTorch in float64; the DCT matrix; the basis step algebra against the plain definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from nodes import FakeNode, conv, node, normal, random_blocks

from cosparse.errors import ShapeError
from cosparse.kernels.basis import conv_by_basis
from cosparse.kernels.conv import coefficients, unpack
from cosparse.kernels.reference import run_node
from cosparse.kernels.transform import dct_matrix

GEOMETRIES = {
    "1x1": dict(kernel=(1, 1)),
    "1x1_stride2": dict(kernel=(1, 1), stride=(2, 2)),
    "3x3_same": dict(kernel=(3, 3), pad=(1, 1, 1, 1)),
    "3x3_stride2": dict(kernel=(3, 3), stride=(2, 2), pad=(1, 1, 1, 1)),
    "3x3_stride2_asymmetric": dict(kernel=(3, 3), stride=(2, 2), pad=(0, 0, 1, 1)),
    "3x3_stride_beyond_kernel": dict(kernel=(3, 3), stride=(5, 4)),
    "3x3_dilation": dict(kernel=(3, 3), dilation=(2, 3), pad=(2, 3, 2, 3)),
    "1x7": dict(kernel=(1, 7), pad=(0, 3, 0, 3)),
    "7x1_stride": dict(kernel=(7, 1), stride=(1, 3), pad=(3, 0, 2, 0)),
    "2x4_all_uneven": dict(kernel=(2, 4), stride=(2, 1), dilation=(3, 2), pad=(1, 4, 3, 0)),
    "7x7_pad_beyond": dict(kernel=(7, 7), stride=(2, 2), pad=(8, 8, 8, 8)),
}
WEIGHTS = {
    "dense": {},
    "dense_dct": dict(transform="dct"),
    "dense_scale_nobias": dict(transform="dct", extras=("scale",)),
    "block1": dict(block=1),
    "block2_dct": dict(block=2, transform="dct", extras=("scale", "bias")),
    "block8_dct": dict(block=8, transform="dct"),
    "block64_one_row": dict(block=64, extras=()),
    "block4_empty": dict(block=4, density=0.0),
    "block4_full": dict(block=4, density=1.0, transform="dct"),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def scatter(n: FakeNode) -> np.ndarray:
    """The coefficients [O, C/G, R, S], element by element as docs/artifact.md words it."""
    a, t = n.attrs, n.tensors
    r, s = a.get("kernel", (1, 1))
    per_group = a["channels"] // a.get("groups", 1)
    dense = np.zeros((a["filters"], per_group, r, s))
    if a["format"] == "dense":
        dense[:] = t["values"].reshape(dense.shape)
    else:
        for b in range(len(t["rows"]) - 1):
            for position in range(t["rows"][b], t["rows"][b + 1]):
                k = int(t["columns"][position])
                for i in range(a["block"]):
                    if b * a["block"] + i < a["filters"]:
                        dense[b * a["block"] + i, k // (r * s), k // s % r, k % s] = t["values"][position, i]
    return dense * t["scale"].astype(np.float64)[:, None, None, None] if "scale" in t else dense


def cosine(n: int, u: int, t: int) -> float:
    return float(np.sqrt((1 if u == 0 else 2) / n) * np.cos(np.pi * (2 * t + 1) * u / (2 * n)))


def by_torch(n: FakeNode, x: np.ndarray) -> np.ndarray:
    """F.conv2d in float64; the inverse transform is a sum over outer products of cosines, written out."""
    a = n.attrs
    w = scatter(n)
    if a["transform"] == "dct":
        cosines = [np.array([[cosine(size, u, t) for t in range(size)] for u in range(size)]) for size in a["kernel"]]
        w = np.einsum("ocuv,ui,vj->ocij", w, *cosines)
    top, left, bottom, right = a["pad"]
    bias = torch.from_numpy(n.tensors["bias"]).double() if "bias" in n.tensors else None
    seen = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    y = F.conv2d(seen, torch.from_numpy(w), bias, tuple(a["stride"]), 0, tuple(a["dilation"]), a["groups"])
    return y.numpy()


def bound(n: FakeNode, x: np.ndarray) -> dict[str, float]:
    """K products and a bias below 4; the transform adds R S terms to each weight on either side, and makes it R S times larger at most."""
    taps = n.attrs["kernel"][0] * n.attrs["kernel"][1]
    k = n.attrs["channels"] // n.attrs["groups"] * taps
    return {"terms": k + 2 * taps + 1, "scale": float(4 + np.abs(x).max() * np.abs(scatter(n)).max() * taps)}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8])
def test_dct_matrix_is_orthonormal_with_a_constant_first_row(n: int) -> None:
    d = dct_matrix(n)
    assert_close(d @ d.T, np.eye(n), terms=n, scale=1.0)
    assert_close(d[0], np.full(n, n**-0.5), terms=1, scale=1.0)


def test_dct_matrix_of_three_points_has_the_published_taps() -> None:
    d = dct_matrix(3)
    assert_close(d * np.sqrt([[3], [2], [6]]), np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], float), terms=3, scale=1.0)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_conv_is_torchs_and_the_basis_step_gives_the_same(geometry: dict, weights: dict, rng: np.random.Generator) -> None:
    n = conv(rng, 13, 5, **geometry, **weights)
    x = rng.normal(size=(3, 5, 11, 9))
    want = by_torch(n, x)
    assert_close(run_node(n, x), want, **bound(n, x))
    assert_close(conv_by_basis(n, x), want, **bound(n, x))


@pytest.mark.parametrize(
    ("filters", "channels", "groups", "block"),
    [(6, 6, 6, 0), (12, 6, 6, 0), (12, 6, 6, 2), (24, 12, 3, 8), (24, 12, 3, 4), (8, 4, 2, 1)],
    ids=["depthwise", "depthwise_multiplier", "depthwise_block2", "three_groups_block8", "three_groups_block4", "two_groups_block1"],
)
@pytest.mark.parametrize("transform", ["identity", "dct"])
def test_grouped_conv(filters: int, channels: int, groups: int, block: int, transform: str, rng: np.random.Generator) -> None:
    n = conv(rng, filters, channels, (3, 3), stride=(2, 1), pad=(1, 1, 0, 1), groups=groups, block=block, transform=transform)
    x = rng.normal(size=(2, channels, 7, 6))
    want = by_torch(n, x)
    assert_close(run_node(n, x), want, **bound(n, x))
    assert_close(conv_by_basis(n, x), want, **bound(n, x))


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_conv_batch_and_single_pixel(batch: int, rng: np.random.Generator) -> None:
    n = conv(rng, 8, 3, (3, 3), pad=(1, 1, 1, 1), block=8, transform="dct")
    x = rng.normal(size=(batch, 3, 1, 1))
    y = run_node(n, x)
    assert y.shape == (batch, 8, 1, 1)
    if batch:
        assert_close(y, by_torch(n, x), **bound(n, x))


def test_wide_columns(rng: np.random.Generator) -> None:
    n = conv(rng, 4, 66000, (1, 1), block=2, density=0.01)
    assert n.tensors["columns"].dtype == np.uint32
    x = rng.normal(size=(1, 66000, 1, 2))
    assert_close(run_node(n, x), by_torch(n, x), **bound(n, x))


@pytest.mark.parametrize("block", [0, 1, 8, 32])
@pytest.mark.parametrize("extras", [(), ("scale",), ("bias",), ("scale", "bias")], ids=lambda e: "_".join(e) or "plain")
def test_linear(block: int, extras: tuple[str, ...], rng: np.random.Generator) -> None:
    tensors = random_blocks(rng, 10, 37, block, 0.4) if block else {"values": normal(rng, 10, 37, 1, 1)}
    tensors |= {role: normal(rng, 10) for role in extras}
    n = node("linear", tensors, filters=10, channels=37, transform="identity", format="block" if block else "dense", block=block or 1)
    x = rng.normal(size=(5, 37))
    w = torch.from_numpy(scatter(n)[:, :, 0, 0])
    want = F.linear(torch.from_numpy(x), w, torch.from_numpy(tensors["bias"]).double() if "bias" in tensors else None)
    assert_close(run_node(n, x), want.numpy(), terms=38, scale=1 + float(np.abs(x).max() * w.abs().max()))


def test_unpack_undoes_the_transform_and_includes_the_scale(rng: np.random.Generator) -> None:
    n = conv(rng, 6, 2, (3, 5), transform="dct", extras=("scale",))
    w = unpack(n)
    assert w.dtype == np.float64
    back = dct_matrix(3) @ w @ dct_matrix(5).T
    assert_close(back, coefficients(n), terms=15, scale=float(np.abs(w).max()))
    assert_close(coefficients(n), scatter(n), terms=1, scale=float(np.abs(w).max()))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 9, 9), r"node a_conv \(conv\): expected an input \[N, 3, H, W\], got \(1, 4, 9, 9\)"),
        ((1, 3), r"node a_conv \(conv\): expected an input \[N, 3, H, W\], got \(1, 3\)"),
        ((1, 3, 2, 9), r"expected an input that holds a 3x3 window \(dilation \[1, 1\], pad \[0, 0, 0, 0\]\), got \(1, 3, 2, 9\)"),
    ],
    ids=["channels", "rank", "too_small"],
)
def test_conv_refuses_what_does_not_fit(shape: tuple[int, ...], message: str, rng: np.random.Generator) -> None:
    with pytest.raises(ShapeError, match=message):
        run_node(conv(rng, 4, 3, (3, 3)), np.zeros(shape))


def test_linear_refuses_another_feature_count() -> None:
    n = node("linear", {"values": np.ones((2, 5), np.float32)}, filters=2, channels=5, transform="identity", format="dense", block=1)
    with pytest.raises(ShapeError, match=r"expected an input \[N, 5\], got \(1, 6\)"):
        run_node(n, np.zeros((1, 6)))
