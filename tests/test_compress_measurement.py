"""Measurement matrices: sizes, scale, segments, what decides them, and that they measure coefficients as they measure weights."""

from __future__ import annotations

import math

import pytest
import torch

from cosparse.compress import transforms
from cosparse.compress.measurement import Tiling, draw, join, norm_squared, of_coefficients, segment_width, split
from cosparse.errors import Error

EPS = torch.finfo(torch.float64).eps
RANDOM = ("gaussian", "bernoulli")


@pytest.mark.parametrize(
    ("channels", "taps", "limit", "width"),
    [(512, 9, 512, 468), (64, 9, 512, 288), (7, 9, 18, 18), (1, 49, 49, 49), (2048, 1, 512, 512), (13, 1, 5, 5), (521, 9, 512, 477)],
)
def test_segments_hold_whole_channels_evenly(channels: int, taps: int, limit: int, width: int) -> None:
    assert segment_width(channels, taps, limit) == width
    count = math.ceil(channels * taps / width)
    assert width % taps == 0
    assert width <= limit
    assert 0 < channels * taps - (count - 1) * width <= width


def test_long_signals_take_little_memory() -> None:
    drawn = draw("bernoulli", 512, 9, share=0.5, seed=0)
    assert list(drawn.matrix.shape) == [234, 4608]
    assert drawn.tiling.segments == 10


@pytest.mark.parametrize("kind", RANDOM)
def test_columns_have_length_one(kind: str) -> None:
    matrix = draw(kind, 30, 9, share=0.5, seed=1).matrix
    m, columns = matrix.shape
    squares = matrix.square().sum(0)
    if kind == "bernoulli":
        assert (squares - 1).abs().max() <= m * EPS
        assert len(matrix.unique()) == 2
    else:
        # Chi-squared over m: standard deviation sqrt(2/m) a column, and of the mean sqrt(2/(m K)); five of each.
        assert abs(float(squares.mean()) - 1) <= 5 * math.sqrt(2 / (m * columns))
        assert (squares - 1).abs().max() <= 5 * math.sqrt(2 / m) + 25 / m
    assert abs(float(matrix.mean())) <= 5 / m / math.sqrt(columns)


@pytest.mark.parametrize("kind", RANDOM)
def test_seed_and_name_decide(kind: str) -> None:
    first = draw(kind, 5, 9, share=0.5, seed=1, name="a").matrix
    assert torch.equal(first, draw(kind, 5, 9, share=0.5, seed=1, name="a").matrix)
    assert not torch.equal(first, draw(kind, 5, 9, share=0.5, seed=1, name="b").matrix)
    assert not torch.equal(first, draw(kind, 5, 9, share=0.5, seed=2, name="a").matrix)


def test_the_number_of_measurements_is_the_share() -> None:
    for share, m in ((1.0, 45), (0.5, 22), (0.1, 4), (1e-9, 1)):
        assert draw("gaussian", 5, 9, share=share, seed=0).matrix.shape == (m, 45)


def test_split_and_join_are_inverse() -> None:
    for tiling in (Tiling(7, 7), Tiling(7, 3), Tiling(6, 3), Tiling(1, 1)):
        blocks = torch.arange(2 * 4 * tiling.columns).reshape(2, 4, -1).double()
        parts = split(blocks, tiling)
        assert parts.shape == (tiling.segments, 2, 4, tiling.width)
        assert torch.equal(join(parts, tiling), blocks)
    assert split(torch.arange(7.0).reshape(1, 1, 7), Tiling(7, 3)).flatten(1).tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]


@pytest.mark.parametrize("transform", ["identity", "dct", "walsh:4", "dct+two-sided-dct:4"])
@pytest.mark.parametrize("kind", RANDOM)
def test_coefficients_are_measured_as_the_weights_are(kind: str, transform: str) -> None:
    """A Psi w = Phi w, segment by segment, the last one narrower."""
    weight = torch.randn((6, 13, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw(kind, 13, 9, share=0.5, seed=2, limit=40)
    matrix = of_coefficients(drawn, transform, weight)
    assert matrix.shape == (4, 18, 36)
    assert not matrix[3, :, 9:].any()
    coefficients = split(transforms.forward(weight, transform).flatten(1)[None], drawn.tiling)[:, 0]
    if "two-sided" in transform:  # the signals are transformed filters
        weight = transforms.forward(weight, "dct-filters:4")
    for segment in range(4):
        inside = slice(36 * segment, 36 * (segment + 1))
        wanted = weight.flatten(1)[:, inside] @ drawn.matrix[:, inside].T
        assert (coefficients[segment] @ matrix[segment].T - wanted).abs().max() <= 4 * 72 * EPS * float(weight.abs().max())


def test_a_segment_cuts_no_tile_of_channels() -> None:
    weight = torch.zeros(6, 7, 3, 3)
    with pytest.raises(Error, match="segment: expected room for whole tiles of 4 channels, got 2 channels a segment"):
        of_coefficients(draw("gaussian", 7, 9, share=0.5, seed=2, limit=20), "walsh:4", weight)


def test_linear_layers_are_measured_too() -> None:
    weight = torch.zeros(4, 11)
    assert of_coefficients(draw("gaussian", 11, 1, share=0.5, seed=0), "identity", weight).shape == (1, 6, 11)
    assert of_coefficients(draw("identity", 11, 1, share=0.5, seed=0), "identity", weight) is None


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 9, 4), (1, 1, 1)])
def test_norm_is_the_largest_singular_value(shape: tuple[int, int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = float(torch.linalg.svdvals(matrix).max()) ** 2
    assert abs(norm_squared(matrix) - wanted) <= 64 * EPS * wanted
    assert norm_squared(None) == 1.0


def test_bad_measurements_are_refused() -> None:
    with pytest.raises(Error, match="measurement: expected one of identity, gaussian, bernoulli, got 'fourier'"):
        draw("fourier", 2, 9, share=0.5, seed=0)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(Error, match=r"share of measurements: expected a number in \(0, 1\]"):
            draw("gaussian", 2, 9, share=share, seed=0)
    with pytest.raises(Error, match="segment: expected room for the 49 taps of a filter, got 48 columns; raise it"):
        draw("gaussian", 2, 49, share=0.5, seed=0, limit=48)
