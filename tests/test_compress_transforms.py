"""Transforms: orthonormal, exact inverses, one meaning in numpy and torch, and the counted price of the basis step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from cosparse.compress import transforms
from cosparse.errors import Error
from cosparse.kernels.conv import unpack

EPS = float(np.finfo(np.float64).eps)
KERNELS = [(1, 1), (1, 7), (2, 2), (3, 3), (3, 5), (7, 7), (11, 11)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 11])
def test_dct_matrix_is_orthonormal(n: int) -> None:
    matrix = transforms.dct_matrix(n)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), rtol=0, atol=8 * n * EPS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_forward_is_scipys_dct(kernel: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 3, *kernel))
    bound = 8 * kernel[0] * kernel[1] * EPS * np.abs(weight).max()
    np.testing.assert_allclose(transforms.forward(weight, "dct"), dctn(weight, axes=(2, 3), norm="ortho"), rtol=0, atol=bound)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("transform", transforms.TRANSFORMS)
def test_inverse_undoes_forward(kernel: tuple[int, int], transform: str) -> None:
    weight = np.random.default_rng(1).standard_normal((4, 2, *kernel))
    back = transforms.inverse(transforms.forward(weight, transform), transform)
    np.testing.assert_allclose(back, weight, rtol=0, atol=8 * kernel[0] * kernel[1] * EPS * np.abs(weight).max())


@pytest.mark.parametrize("transform", transforms.TRANSFORMS)
def test_torch_and_numpy_agree(transform: str) -> None:
    weight = torch.randn(4, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = transforms.forward(weight.contiguous(memory_format=torch.channels_last), transform)
    np.testing.assert_allclose(ours.numpy(), transforms.forward(weight.numpy(), transform), rtol=0, atol=100 * EPS)


def test_linear_weights_have_no_taps() -> None:
    weight = torch.randn(4, 7)
    assert torch.equal(transforms.forward(weight, "dct"), weight)


def test_coefficients_mean_what_the_artifact_says() -> None:
    """The interpreter's inverse and this one are written apart and must agree."""
    from cosparse.engine.graph import Node

    values = np.random.default_rng(2).standard_normal((4, 3, 3, 3)).astype(np.float32)
    attrs = {"filters": 4, "channels": 3, "kernel": [3, 3], "groups": 1, "transform": "dct", "format": "dense", "block": 1}
    wanted = unpack(Node("conv", "conv", ("x",), attrs, {"values": values}))  # type: ignore[arg-type]
    np.testing.assert_allclose(transforms.inverse(values.astype(np.float64), "dct"), wanted, rtol=0, atol=100 * EPS)


def test_basis_cost_of_three_by_three_is_ten() -> None:
    """16 additions and 4 doublings: the matrices (1,1,1), (1,0,-1), (1,-2,1) down and across, counted by hand."""
    down = 4 + 1
    across = 3 * (4 + 1)
    assert transforms.basis_cost("dct", (3, 3)) == (down + across) / 2 == 10


@pytest.mark.parametrize(
    ("transform", "kernel", "stride", "cost"),
    [
        ("identity", (3, 3), (1, 1), 0.0),
        ("dct", (1, 1), (1, 1), 0.0),
        ("dct", (3, 3), (2, 2), 12.5),
        ("dct", (3, 3), (2, 1), 10.0),
        ("dct", (1, 3), (1, 1), 2.5),
        ("dct", (2, 2), (1, 1), 3.0),
        ("dct", (3, 3), (9, 9), 15.0),
    ],
)
def test_basis_cost(transform: str, kernel: tuple[int, int], stride: tuple[int, int], cost: float) -> None:
    assert transforms.basis_cost(transform, kernel, stride) == cost


def test_unknown_transform_is_refused() -> None:
    with pytest.raises(Error, match=r"transform: expected one of identity, dct, got 'dft'"):
        transforms.forward(np.zeros((1, 1, 3, 3)), "dft")
