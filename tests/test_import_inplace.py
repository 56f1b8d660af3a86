"""In-place operations on parts of a tensor, and regions of the code that torch.export keeps apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from import_check import check, ops
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.errors import UnsupportedError


class Apply(nn.Module):
    """A function of a convolution's result, so that each idiom is one line of the table below."""

    def __init__(self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(self.conv(x))


def ghost(y: Tensor) -> Tensor:
    shortcut, y = y, y[:, :5]
    y = torch.cat([y, y.sigmoid()], 1)[:, :8]
    y += shortcut
    return y


def partial(y: Tensor) -> Tensor:
    y = y.clone()
    y[:, :2, :, :] = y[:, :2, :, :].sigmoid()
    return y


def middle(y: Tensor) -> tuple[Tensor, Tensor]:
    y[:, 2:5].mul_(3.0)
    return y, y[:, 2:5]


def halves(y: Tensor) -> Tensor:
    a, b = y.chunk(2, 1)
    return torch.cat([F.relu(a, inplace=True), b], 1)


def channels(y: Tensor) -> Tensor:
    y[:, 0] = y[:, 0] * 2 + 1
    y[:, 1] = 0
    y[:, 2:4] = torch.tensor([0.5, 2.0])[:, None, None]
    return y


def border(y: Tensor) -> Tensor:
    y[:, :, 1:-1, 1:].relu_()
    return y


def shifted(y: Tensor) -> Tensor:
    out = torch.zeros_like(y)
    out[:, :2, :, 1:] = y[:, :2, :, :-1]
    out[:, 2:4, :-1] = y[:, 2:4, 1:]
    out[:, 4:] = y[:, 4:]
    return out


CASES: list[tuple[Callable[[Tensor], Tensor | tuple[Tensor, ...]], list[str]]] = [
    (ghost, ["conv", "slice", "activation", "concat", "slice", "add"]),
    (partial, ["conv", "slice", "activation", "slice", "concat"]),
    (middle, ["conv", "slice", "affine", "slice", "slice", "concat"]),
    (halves, ["conv", "slice", "activation", "slice", "concat"]),
    (lambda y: F.relu_(y[:, :, 1:, 1:]), ["conv", "slice", "slice", "activation"]),
    (lambda y: y.sigmoid()[:, :4].add_(1.0), ["conv", "activation", "slice", "affine"]),
    (lambda y: y.view(y.shape[0], 2, -1, y.shape[3]).relu_().view_as(y), ["conv", "activation"]),
]


@pytest.mark.parametrize(("function", "expected"), CASES)
def test_a_part_is_computed_and_put_back(function: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    graph = check(Apply(function), (1, 4, 6, 8), sizes=[(8, 10)])
    assert ops(graph) == expected


@pytest.mark.parametrize("function", [channels, border, shifted])
def test_writes_of_constants_and_into_height_and_width(function: Callable[[Tensor], Tensor]) -> None:
    """Of a row or two a part would be empty, which no artifact holds."""
    size = check(Apply(function), (1, 4, 6, 8), sizes=[(8, 10)]).provenance["import"]["size"]
    assert size == "free" if function is channels else size.startswith("limited by height ")


def zeros_behind(y: Tensor) -> Tensor:
    return torch.cat([y, torch.zeros(y.shape[0], 3, *y.shape[2:])], 1)


def both_ends(y: Tensor) -> Tensor:
    return torch.cat([y.new_ones(y.shape[0], 1, *y.shape[2:]), y, y, y.new_full((y.shape[0], 2, *y.shape[2:]), 2.5)], 1)


def put_in(y: Tensor) -> Tensor:
    out = y.new_zeros(y.shape[0], 12, y.shape[2], y.shape[3])
    out[:, 2:10] = y
    return out


def between(y: Tensor) -> Tensor:
    return torch.cat([y, torch.zeros(y.shape[0], 3, *y.shape[2:]), y], 1)


def features(y: Tensor) -> Tensor:
    y = y.mean((2, 3))
    return torch.cat([y, torch.zeros(y.size(0), 2).type_as(y)], 1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (zeros_behind, ["pad"]),
        (both_ends, ["concat", "pad", "pad"]),
        (put_in, ["pad", "pad"]),
        (between, ["pad", "concat"]),
        (features, ["mean", "reshape", "pad", "reshape"]),
    ],
)
def test_values_among_constants_of_one_number_are_padded(function: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    assert ops(check(Apply(function), (1, 4, 6, 8), sizes=[(8, 10)])) == ["conv", *expected]


def images(y: Tensor) -> Tensor:
    return torch.cat([y, torch.zeros(y.shape[0], *y.shape[1:])], 0)


def strided(y: Tensor) -> Tensor:
    y[:, ::2].relu_()
    return y


def first_image(y: Tensor) -> Tensor:
    y[:1].relu_()
    return y


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (strided, "a write to every second place"),
        (first_image, "a part of the batch"),
        (images, "a concatenation of batches"),
    ],
)
def test_writes_without_a_counterpart(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        from_torch(Apply(function), torch.zeros(1, 4, 6, 6))


class Regions(nn.Module):
    """Regions that change no result, one in another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.first(x)
            with torch.enable_grad():
                x = x * 2
        with torch.enable_grad():
            x = self.second(x).detach()
        return x


def test_regions_that_change_no_result_are_opened() -> None:
    graph = check(Regions(), (1, 4, 6, 6), sizes=[(8, 10)])
    assert [node.name for node in graph.nodes if node.op == "conv"] == ["first", "second"]


class Autocast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            return x @ torch.eye(6)


def test_a_region_under_autocast_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"wrap_with_autocast in .*: a part that runs under torch.autocast: leave that to the code"):
        from_torch(Autocast(), torch.zeros(1, 4, 6, 6))
