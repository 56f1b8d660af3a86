"""How transforms are asked for, what becomes of the text in a layer, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from cosparse.compress import transforms
from cosparse.errors import Error


@pytest.mark.parametrize(
    ("text", "shape", "name", "short"),
    [
        ("identity", (8, 8, 3, 3), "identity", ""),
        ("dct", (8, 8, 3, 3), "dct", ""),
        ("dct", (8, 8, 1, 1), "identity", ""),
        ("dct", (8, 8), "identity", ""),
        ("walsh:8", (8, 8, 3, 3), "walsh:8", ""),
        ("walsh:8", (8, 7, 1, 1), "identity", "7 channels have no tile of 8"),
        ("dct+walsh:16", (8, 16, 3, 3), "dct+walsh:16", ""),
        ("walsh:16+dct", (8, 16, 1, 1), "walsh:16", ""),
        ("dct+walsh:16", (8, 15, 3, 3), "dct", "15 channels have no tile of 16"),
        ("dct-channels:5", (8, 5), "dct-channels:5", ""),
        ("two-sided-walsh:8", (8, 8, 1, 1), "two-sided-walsh:8", ""),
        ("two-sided-walsh:8", (7, 8, 1, 1), "walsh:8", "7 filters have no tile of 8"),
        ("two-sided-dct:9", (9, 8, 1, 1), "dct-filters:9", "8 channels have no tile of 9"),
        ("two-sided-dct:9", (8, 8, 1, 1), "identity", "8 channels have no tile of 9, 8 filters have no tile of 9"),
        ("walsh-filters:4+dct-channels:4", (4, 4), "dct-channels:4+walsh-filters:4", ""),
        ("walsh:4+walsh-filters:4", (4, 4), "two-sided-walsh:4", ""),
        ("klt", (4, 3, 3, 3), "klt", ""),
        ("klt:8", (4, 3, 3, 3), "klt", ""),
        ("klt", (4, 33), "klt:16", ""),
        ("klt:8", (4, 8), "klt:8", ""),
        ("klt", (4, 15), "identity", "15 channels have no tile of 16"),
        ("random:7", (4, 3, 5, 1), "random:7", ""),
        ("random:7:32", (4, 70), "random:7:32", ""),
    ],
)
def test_a_layer_takes_what_it_has_the_axes_for(text: str, shape: tuple[int, ...], name: str, short: str) -> None:
    weight = np.random.default_rng(0).standard_normal(shape)
    for forced in (False, True):
        spec = transforms.parse(text + "!" * forced)
        assert (str(spec.fitted(weight)), spec.too_short(weight), spec.forced) == (name, short, forced)
    transform = spec.fitted(weight)
    assert transforms.restored(name, transform.basis, transform.tiles) == transform


@pytest.mark.parametrize(
    "text", ["dft", "", "walsh", "klt:", "random", "random:x", "dct:8", "two-sided-dct-channels:8", "klt+dct", "dct!!", "dct "]
)
def test_what_is_no_transform(text: str) -> None:
    with pytest.raises(Error, match=r"transform: expected one of identity, dct, walsh:B, .*random:SEED\[:B\], got ") as caught:
        transforms.parse(text)
    assert caught.value.got == repr(text)


@pytest.mark.parametrize("text", ["walsh:2", "walsh:128", "dct-channels:3", "klt:65", "random:1:0", "two-sided-dct:1000"])
def test_tiles_that_are_too_small_or_too_large(text: str) -> None:
    with pytest.raises(Error, match="transform: expected tiles of 4 to 64"):
        transforms.parse(text)


@pytest.mark.parametrize("text", ["walsh:12", "walsh-filters:6", "two-sided-walsh:63"])
def test_walsh_needs_a_power_of_two(text: str) -> None:
    with pytest.raises(Error, match="transform: expected tiles of 4 to 64, a power of two, got"):
        transforms.parse(text)


@pytest.mark.parametrize("text", ["dct+dct", "walsh:4+dct-channels:4", "two-sided-dct:4+walsh-filters:4"])
def test_one_part_an_axis(text: str) -> None:
    with pytest.raises(Error, match="transform: expected one part an axis"):
        transforms.parse(text)


def test_a_name_with_matrices_of_its_own_is_no_transform_yet() -> None:
    with pytest.raises(Error, match="transform: expected a transform without matrices of a layer's own, got 'klt'; take the one of"):
        transforms.forward(np.zeros((1, 1, 3, 3)), "klt")


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
        ("walsh:4", (1, 1), (1, 1), 1.0),
        ("walsh:16", (1, 1), (2, 2), 2.0),  # of the pixels between the outputs nothing is needed
        ("walsh:16", (3, 3), (2, 2), 8.0),  # four input pixels an output pixel
        ("walsh:64", (3, 3), (5, 5), 27.0),
        ("dct-channels:4", (1, 1), (1, 1), 1.375),  # 2 + 0.5 + 1 + 2 = 5.5 a tile
        ("dct+walsh:16", (3, 3), (1, 1), 12.0),
        ("two-sided-walsh:8", (3, 3), (1, 1), 1.5),
        ("walsh-filters:8", (3, 3), (1, 1), 0.0),
    ],
)
def test_basis_cost(transform: str, kernel: tuple[int, int], stride: tuple[int, int], cost: float) -> None:
    assert transforms.basis_cost(transform, kernel, stride) == cost


@pytest.mark.parametrize(
    ("text", "shape", "cost", "stored"),
    [
        ("klt", (4, 2, 3, 3), 81.0, 81),
        ("random:1", (4, 2, 1, 5), 25.0, 25),
        ("klt:8", (4, 20), 8.0, 128),
        ("random:1:5", (4, 5, 1, 1), 5.0, 25),
    ],
)
def test_cost_of_matrices(text: str, shape: tuple[int, ...], cost: float, stored: int) -> None:
    transform = transforms.parse(text).fitted(np.random.default_rng(0).standard_normal(shape))
    assert transforms.basis_cost(transform, (shape[2], shape[3]) if len(shape) == 4 else (1, 1)) == cost
    assert transforms.stored(transform) == stored


@pytest.mark.parametrize(
    ("transform", "filters", "cost"), [("dct", 16, 0.0), ("walsh:4", 16, 0.0), ("two-sided-walsh:8", 20, 24.0), ("dct-filters:4", 8, 11.0)]
)
def test_cost_behind_the_product(transform: str, filters: int, cost: float) -> None:
    assert transforms.output_cost(transform, filters) == cost
