"""Channels in another order, several times, gated: slices and concatenations; convolutions along one axis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from import_check import Apply, check, ops
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.errors import UnsupportedError


def ensemble(x: Tensor) -> Tensor:
    """A new dimension that is taken apart again, in the other order."""
    a, b = torch.stack([x, x.sigmoid()], 1).unbind(1)
    joined = torch.cat([b.unsqueeze(1), a.unsqueeze(1)], 1)
    return joined[:, 0] * 2 + joined[:, 1]


SLICES = ["slice"] * 2 + ["concat"]

IDIOMS: list[tuple[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]], list[str]]] = [
    ("reversed", lambda x: x[:, [5, 4, 3, 2, 1, 0]], ["slice"] * 6 + ["concat"]),
    ("two runs", lambda x: x[:, [3, 4, 5, 0, 1, 2]], SLICES),
    ("every other", lambda x: x[:, [0, 2, 4, 1, 3, 5]], SLICES),
    ("a mask", lambda x: x[:, torch.tensor([True, True, False, False, True, True])], SLICES),
    ("as they are", lambda x: x[:, list(range(6))], []),
    ("selected", lambda x: x.index_select(1, torch.tensor([2, 3, 5])), SLICES),
    ("a column twice", lambda x: x[..., [0, 0, 1, 2, 3, 4, 5, 6]], SLICES),
    ("flipped", lambda x: x[:, :2].flip(1), ["slice"] * 3 + ["concat"]),
    ("rolled", lambda x: x.roll(2, 1), SLICES),
    ("rolled rows", lambda x: x.roll((-1, 1), (2, 3)), SLICES * 2),
    ("repeated", lambda x: x.repeat(1, 2, 1, 1), ["concat"]),
    ("one channel repeated", lambda x: x[:, :1].repeat(1, 3, 1, 1), ["slice", "concat"]),
    ("one channel expanded", lambda x: x[:, :1].expand(-1, 3, -1, -1), ["slice", "concat"]),
    ("repeated once", lambda x: x.repeat(1, 1, 1, 1), []),
    ("tiled rows", lambda x: x.tile(2, 1), ["concat"]),
    ("repeated feature", lambda x: x.mean((2, 3))[:, :1].repeat(1, 4), ["mean", "slice", "concat"]),
    ("interleaved", lambda x: x.repeat_interleave(2, 1), ["concat", "channel_shuffle"]),
    ("gated", lambda x: F.glu(x, 1), ["slice", "slice", "activation", "mul"]),
    ("log sigmoid", F.logsigmoid, ["affine", "activation", "affine"]),
    ("ensemble", ensemble, ["activation", "affine", "add"]),
]


@pytest.mark.parametrize(("function", "expected"), [pytest.param(f, e, id=name.replace(" ", "_")) for name, f, e in IDIOMS])
def test_idiom(function: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    assert ops(check(Apply(function), (1, 6, 5, 8))) == expected


class Normalised(nn.Module):
    """Takes [N, H, W, C], as image files are read."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            return ((x / 2 - self.mean) / self.mean).permute(0, 3, 1, 2).relu()
        return (x.permute(0, 3, 1, 2) - self.mean[:, None, None]).relu()


@pytest.mark.parametrize("first", [True, False])
def test_images_with_channels_last_are_normalised_on_either_side_of_the_permute(first: bool) -> None:
    assert ops(check(Normalised(first), (1, 6, 5, 3))) == ["affine"] * first + ["permute", "affine", "activation"]


class Attention(nn.Module):
    """Efficient channel attention: a kernel that glides over the means of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return x * self.conv(y).transpose(-1, -2).unsqueeze(-1).sigmoid().expand_as(x)


def test_channel_attention_is_a_convolution_over_a_row_of_channels() -> None:
    graph = check(Attention(), (1, 8, 5, 6), sizes=[(8, 4)])
    assert ops(graph) == ["adaptive_avg_pool", "reshape", "conv", "activation", "reshape", "mul"]
    assert graph.node("conv").attrs["kernel"] == [1, 3]


class Sequences(nn.Module):
    """Convolutions along one axis in every form, on the pixels as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv1d(6, 4, 4, padding="same", dilation=2)
        self.strided = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.strided(self.same(x.flatten(2)).relu()).mean(2)


def test_convolutions_along_one_axis() -> None:
    graph = check(Sequences(), (1, 6, 5, 6), sizes=[(8, 4)])
    assert graph.node("same").attrs["pad"] == [0, 3, 0, 3]


REFUSED = {
    "a product of two values, as attention has": Apply(lambda x: x @ x.transpose(2, 3)),
    "an order of rows, columns or images in more than 16 pieces": Apply(lambda x: x.repeat(1, 1, 3, 1).flip(2)),
    "indices that are computed, or of more than one dimension": Apply(lambda x: x[:, [[0, 1]]]),
    "a roll over all dimensions as one": Apply(lambda x: x.roll(1)),
    "a repetition of other elements than channels": Apply(lambda x: x.repeat_interleave(2, 2)),
    "a constant where a value that depends on the input is expected": Apply(lambda x: torch.tensor([2.0]) ** x),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_forms_that_an_artifact_cannot_hold(reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        from_torch(REFUSED[reason], torch.zeros(2, 6, 6, 6))
