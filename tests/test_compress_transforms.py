"""Transforms: orthonormal, exact inverses, one meaning in numpy, torch and the interpreter, and convolutions on transformed activations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from scipy.fft import dctn
from scipy.linalg import hadamard
from torch.nn import functional

from cosparse.compress import transforms
from cosparse.compress.transforms.klt import taps_basis
from cosparse.errors import Error
from cosparse.kernels.conv import unpack

EPS = float(np.finfo(np.float64).eps)
KERNELS = [(1, 1), (1, 7), (2, 2), (3, 3), (3, 5), (5, 5), (7, 7), (11, 11)]
NAMES = ["identity", "dct", "walsh:4", "walsh:16", "dct-channels:5", "dct+walsh:8", "walsh-filters:8", "two-sided-dct:7"]
NAMES += ["dct+two-sided-walsh:4", "dct+dct-channels:6+walsh-filters:4", "klt", "klt:5", "random:3", "random:3:6"]


def weights(filters: int, channels: int, kernel: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((filters, channels, *kernel))


def points(transform: transforms.Transform, kernel: tuple[int, ...]) -> int:
    """Terms of a coefficient: a bound on the roundings behind it."""
    return math.prod(kernel) * max(1, transform.channels_tile) * max(1, transform.filters_tile)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 11])
def test_dct_matrix_is_orthonormal(n: int) -> None:
    matrix = transforms.dct_matrix(n)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), rtol=0, atol=8 * n * EPS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dct_is_scipys(kernel: tuple[int, int]) -> None:
    weight = weights(5, 3, kernel)
    bound = 8 * kernel[0] * kernel[1] * EPS * np.abs(weight).max()
    np.testing.assert_allclose(transforms.forward(weight, "dct"), dctn(weight, axes=(2, 3), norm="ortho"), rtol=0, atol=bound)


@pytest.mark.parametrize("size", [4, 8, 16, 32, 64])
def test_walsh_is_scipys_hadamard_on_whole_tiles(size: int) -> None:
    """Two whole tiles and three channels left over; filters stay."""
    weight = weights(3, 2 * size + 3, (1, 1))
    wanted = weight.copy()
    for tile in range(2):
        part = slice(tile * size, (tile + 1) * size)
        wanted[:, part] = np.einsum("ut,otij->ouij", hadamard(size) / math.sqrt(size), weight[:, part])
    assert_close(transforms.forward(weight, f"walsh:{size}"), wanted, terms=size, scale=float(np.abs(weight).max()))


def test_two_sided_is_the_matrix_on_either_side() -> None:
    """W [8, 8] of a linear layer: S = D W D^T."""
    weight, d = weights(8, 8, ()), transforms.dct_matrix(8)
    assert_close(transforms.forward(weight, "two-sided-dct:8"), d @ weight @ d.T, terms=64, scale=float(np.abs(weight).max()))


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 5), (7, 7)])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("filters", "channels"), [(13, 19), (1, 5)])
def test_inverse_undoes_forward_and_energy_stays(name: str, kernel: tuple[int, int], filters: int, channels: int) -> None:
    weight = weights(filters, channels, kernel)
    transform = transforms.parse(name).fitted(weight)
    coefficients = transforms.forward(weight, transform)
    bounds = {"terms": 2 * points(transform, kernel), "scale": float(np.abs(weight).max()) * math.sqrt(points(transform, kernel))}
    assert_close(transforms.inverse(coefficients, transform), weight, **bounds)
    assert float((coefficients**2).sum()) == pytest.approx(float((weight**2).sum()), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_numpy_agree_whatever_the_memory_format(name: str) -> None:
    weight = torch.randn(10, 21, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    transform = transforms.parse(name).fitted(weight)
    assert transform == transforms.parse(name).fitted(weight.numpy())
    for backward, apply in ((False, transforms.forward), (True, transforms.inverse)):
        ours = apply(weight.contiguous(memory_format=torch.channels_last), transform).numpy()
        assert_close(ours, apply(weight.numpy(), transform), terms=points(transform, (3, 5)), scale=4.0 + backward)


@pytest.mark.parametrize("name", NAMES)
def test_linear_weights_are_those_of_a_1x1_layer(name: str) -> None:
    weight = weights(9, 18, ())
    transform = transforms.parse(name).fitted(weight)
    assert transform == transforms.parse(name).fitted(weight[:, :, None, None])
    wanted = transforms.forward(weight[:, :, None, None], transform)[:, :, 0, 0]
    assert np.array_equal(transforms.forward(weight, transform), wanted)


@pytest.mark.parametrize("geometry", ["plain", "stride", "dilation", "same", "uneven"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 5), (5, 5), (7, 7)])
@pytest.mark.parametrize("name", ["dct", "walsh:16", "dct-channels:5", "two-sided-dct:7", "dct+two-sided-walsh:4", "klt:5", "random:3"])
def test_convolution_on_transformed_activations(name: str, kernel: tuple[int, int], geometry: str) -> None:
    """conv(x, W) = apply(x, T W), with channels and filters left over."""
    rows, columns = kernel
    options = {
        "plain": {},
        "stride": {"stride": (2, 2), "pad": (rows // 2, columns // 2) * 2},
        "dilation": {"dilation": (2, 2), "pad": (rows - 1, columns - 1) * 2},
        "same": {"pad": (rows // 2, columns // 2) * 2},
        "uneven": {"stride": (2, 1), "pad": (0, 1, 3, 2)},
    }[geometry]
    x = torch.randn(2, 18, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.from_numpy(weights(11, 18, kernel))
    transform = transforms.parse(name).fitted(weight)
    top, left, bottom, right = options.get("pad", (0, 0, 0, 0))
    padded = functional.pad(x, (left, right, top, bottom))
    wanted = functional.conv2d(padded, weight, stride=options.get("stride", 1), dilation=options.get("dilation", 1))
    got = transforms.apply(transform, transforms.forward(weight, transform), x, **options)
    terms = 18 * rows * columns + 3 * points(transform, kernel)
    assert_close(got.numpy(), wanted.numpy(), terms=terms, scale=float(x.abs().max() * weight.abs().max()) * points(transform, kernel))


@pytest.mark.parametrize("name", [name for name in NAMES if "random" not in name and "klt" not in name])
def test_coefficients_mean_what_the_artifact_says(name: str) -> None:
    """The interpreter's inverse and this one are written apart and must agree."""
    from cosparse.engine.graph import Node

    values = weights(14, 17, (3, 3), 2).astype(np.float32)
    transform = transforms.parse(name).fitted(values)
    attrs = {"filters": 14, "channels": 17, "kernel": [3, 3], "groups": 1, "transform": transform.taps, "format": "dense", "block": 1}
    for axis in ("channels", "filters"):
        if tile := getattr(transform, f"{axis}_tile"):
            attrs |= {f"{axis}_transform": getattr(transform, axis), f"{axis}_tile": tile}
    wanted = unpack(Node("conv", "conv", ("x",), attrs, {"values": values}))  # type: ignore[arg-type]
    got = transforms.inverse(values.astype(np.float64), transform)
    assert_close(got, wanted, terms=points(transform, (3, 3)), scale=float(np.abs(values).max()) * points(transform, (3, 3)))


def test_klt_puts_the_most_energy_first() -> None:
    """Weights of one pattern and a little noise: all but the noise lies in the first coefficient, more than the DCT has anywhere."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((20, 6, 1)) * rng.standard_normal(9) + 0.01 * rng.standard_normal((20, 6, 9))
    weight = weight.reshape(20, 6, 3, 3)
    fitted, plain = (transforms.forward(weight, transforms.parse(name).fitted(weight)).reshape(-1, 9) for name in ("klt", "dct"))
    energy = (fitted**2).sum(0)
    assert (np.diff(energy) <= 0).all()
    assert energy[0] > 0.999 * energy.sum() > 1.1 * (plain**2).sum(0).max()
    moments = fitted.T @ fitted
    assert_close(moments - np.diag(np.diag(moments)), np.zeros((9, 9)), terms=9 * 120, scale=float(energy[0]))


def test_each_channel_tile_has_its_own_klt() -> None:
    weight = weights(30, 11, (1, 1))
    weight[:, 1] = 3 * weight[:, 0]
    weight[:, 7] = -2 * weight[:, 5]
    transform = transforms.parse("klt:5").fitted(weight)
    assert transform.tiles is not None
    assert transform.tiles.shape == (2, 5, 5)
    coefficients = transforms.forward(weight, transform)
    energy = (coefficients**2).sum((0, 2, 3))
    assert (np.diff(energy[:5]) <= 0).all()
    assert (np.diff(energy[5:10]) <= 0).all()
    assert max(energy[4], energy[9]) < 1e-25 * energy[0]  # in each tile one channel is a multiple of another
    assert np.array_equal(coefficients[:, 10], weight[:, 10])


def test_klt_does_not_depend_on_the_sign_that_eigh_gives() -> None:
    weight = weights(8, 3, (3, 3))
    basis = taps_basis(weight, "weight")
    assert (basis[np.arange(9), np.abs(basis).argmax(1)] > 0).all()
    assert np.array_equal(basis, taps_basis(-weight, "weight"))


def test_klt_of_a_weight_that_is_not_finite() -> None:
    weight = weights(8, 3, (3, 3))
    weight[1, 2, 0, 0] = np.nan
    with pytest.raises(Error, match="weight of conv1: expected finite values, got NaN or infinity"):
        transforms.parse("klt").fitted(weight, "weight of conv1")


def test_random_bases_follow_the_seed_and_differ_from_tile_to_tile() -> None:
    weight = weights(8, 40, (1, 1))
    first, again, other = (transforms.parse(name).fitted(weight) for name in ("random:1", "random:1", "random:2"))
    assert first == again != other
    assert first.tiles is not None
    assert first.tiles.shape == (2, 16, 16)
    assert np.abs(first.tiles[0] - first.tiles[1]).max() > 0.1
    assert hash(first) == hash(again)
    assert first != "random:1:16"


def test_matrices_must_fit() -> None:
    transform = transforms.parse("klt").fitted(weights(8, 3, (3, 3)))
    with pytest.raises(Error, match=r"transform klt: expected weights of 9 taps, as its matrix, got weights \[8, 3, 5, 5\]"):
        transforms.forward(weights(8, 3, (5, 5)), transform)
    transform = transforms.parse("klt:4").fitted(weights(8, 9, (1, 1)))
    with pytest.raises(Error, match=r"transform klt:4: expected weights of 2 tiles of 4 channels, as its matrices, got weights \[8, 12"):
        transforms.inverse(weights(8, 12, (1, 1)), transform)
    with pytest.raises(Error, match=r"expected matrices exactly where the kind is matrix \(basis\), got none"):
        transforms.Transform(taps="matrix")
    with pytest.raises(Error, match=r"expected matrices exactly where the kind is matrix \(tiles\), got some"):
        transforms.Transform(tiles=np.eye(4)[None])


def test_matrices_cannot_be_changed() -> None:
    transform = transforms.parse("random:0").fitted(weights(8, 3, (3, 3)))
    assert transform.basis is not None
    with pytest.raises(ValueError, match="read-only"):
        transform.basis[0, 0] = 1
