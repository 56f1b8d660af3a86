"""Views, permutations, slices, concatenations: followed without nodes where torch only renames dimensions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from import_check import Apply, check, ops, randomise
from torch import Tensor, nn


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shuffled_halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """A shuffle that folds channels into the batch, as the original ShuffleNet V2 code does."""
    n, c, h, w = x.shape
    x = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
    return x[0] * 1.5, x[1].relu()


def pixels(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def interleaved(x: Tensor) -> Tensor:
    return torch.stack([x, x.neg()], 2).flatten(1, 2)


def squeeze_excite(x: Tensor) -> Tensor:
    gate = x.mean((2, 3)).sigmoid()
    return x * gate.view(gate.shape[0], -1, 1, 1).expand_as(x)


IDIOMS: list[tuple[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]], list[str]]] = [
    ("shuffle", shuffle, ["channel_shuffle"]),
    ("nn shuffle", lambda x: F.channel_shuffle(x, 4), ["channel_shuffle"]),
    ("shuffled halves", shuffled_halves, ["slice", "affine", "slice", "activation"]),
    ("pixel shuffle", lambda x: F.pixel_shuffle(x, 2), ["depth_to_space"]),
    ("pixel shuffle by hand", pixels, ["depth_to_space"]),
    ("interleaved", interleaved, ["affine", "concat", "channel_shuffle"]),
    ("there and back", lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2), ["activation"]),
    ("channels last", lambda x: x.permute(0, 2, 3, 1).relu(), ["activation", "permute"]),
    ("rows and columns", lambda x: x.transpose(2, 3), ["permute"]),
    ("moved", lambda x: x.movedim(1, -1).swapaxes(1, 2), ["permute"]),
    ("tokens", lambda x: x.flatten(2).transpose(1, 2).sigmoid().mean(1), ["activation", "mean"]),
    ("tokens kept", lambda x: x.flatten(2).softmax(1).unflatten(2, x.shape[2:]), ["softmax"]),
    ("flatten", lambda x: torch.flatten(x, 1), ["reshape"]),
    ("flatten channels last", lambda x: x.permute(0, 2, 3, 1).flatten(1), ["permute", "reshape"]),
    ("squeeze", lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1), ["adaptive_avg_pool", "reshape"]),
    ("unsqueeze", lambda x: x.amax((2, 3))[:, :, None, None] + x, ["adaptive_max_pool", "add"]),
    ("squeeze and excite", squeeze_excite, ["mean", "activation", "reshape", "mul"]),
    ("mean of rows", lambda x: x.permute(0, 2, 3, 1).mean(2, keepdim=True).permute(0, 3, 1, 2), ["mean"]),
    ("mean of channels", lambda x: x * x.mean(1, keepdim=True), ["mean", "mul"]),
    ("mean of all", lambda x: x.mean((1, 2, 3), keepdim=True) - x, ["mean", "sub"]),
    ("strided", lambda x: x[:, :, ::2, 1::3], ["slice", "slice"]),
    ("from the end", lambda x: x[:, -3:, 1:-2, :-1], ["slice", "slice", "slice"]),
    ("past the end", lambda x: x[:, :100, 0:], []),
    ("picked", lambda x: x[:, 2] if x.ndim == 2 else x[:, 2:3] * x[:, [5]] if x.ndim == 0 else x.narrow(1, -2, 1) * x, ["slice", "mul"]),
    ("chunks", lambda x: x.chunk(3, 1), ["slice", "slice", "slice"]),
    ("split", lambda x: x.split([1, 7], 1)[::-1], ["slice", "slice"]),
    ("split evenly, the first unused", lambda x: x.split(5, dim=1)[1], ["slice"]),
    ("unbound heads", lambda x: x.unflatten(1, (2, 4)).unbind(1)[1], ["slice"]),
    ("selected", lambda x: x.unflatten(1, (2, 4)).select(2, 3), ["slice"]),
    ("concatenated rows", lambda x: torch.cat([x, x.relu(), x], 2), ["activation", "concat"]),
    ("concatenated last", lambda x: torch.cat([x.permute(0, 2, 3, 1)] * 2, -1).permute(0, 3, 1, 2), ["concat"]),
    ("mixed layouts", lambda x: torch.cat([x, x.permute(0, 3, 2, 1)], 2) if x.ndim == 2 else x + x.flatten(1).view_as(x), ["add"]),
    ("padded", lambda x: F.pad(x, (1, 0, 2, 3), value=1.5), ["pad"]),
    ("reflected", lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), ["pad"]),
    ("replicated", lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"), ["pad"]),
    ("cropped and padded", lambda x: F.pad(x, (-1, 2, -2, -1, 1, 0)), ["slice", "slice", "pad"]),
    ("pixel unshuffle", lambda x: F.pixel_unshuffle(x[:, :2], 2), ["slice", "conv"]),
]


@pytest.mark.parametrize(("function", "expected"), [pytest.param(f, e, id=name.replace(" ", "_")) for name, f, e in IDIOMS])
def test_idiom(function: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    graph = check(Apply(function), (1, 8, 6, 8), sizes=[(8, 10)])
    assert ops(graph) == expected
    assert graph.provenance["import"]["size"] == "free"


def blocks(x: Tensor, order: tuple[int, ...], i: int = 2, j: int = 2) -> Tensor:
    """Blocks of i x j pixels as channels, by view and permute; of the dimensions (n, c, h, i, w, j) `order` are those of the channels."""
    n, c, h, w = x.shape
    return x.view(n, c, h // i, i, w // j, j).permute(0, *order, 2, 4).reshape(n, c * i * j, h // i, w // j)


def reorg(x: Tensor) -> Tensor:
    """As YOLOv2 has it."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).transpose(3, 4).contiguous().view(n, c, h // 2 * w // 2, 4).transpose(2, 3).contiguous()
    return x.view(n, c, 4, h // 2, w // 2).transpose(1, 2).contiguous().view(n, 4 * c, h // 2, w // 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(reorg, ["conv", "channel_shuffle"], id="reorg"),
        pytest.param(lambda x: blocks(x, (1, 3, 5)), ["conv"], id="c_i_j"),
        pytest.param(lambda x: blocks(x, (3, 5, 1), 3, 2), ["conv", "channel_shuffle"], id="i_j_c"),
        pytest.param(lambda x: blocks(x, (1, 3, 5), 1, 4), ["conv"], id="columns"),
        pytest.param(lambda x: blocks(x, (5, 1, 3), 2, 4), ["conv", "channel_shuffle"], id="j_c_i"),
    ],
)
def test_pixels_become_channels(function: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    assert ops(check(Apply(function), (1, 3, 6, 8))) == expected


class Rows(nn.Module):
    """Features [N, F] in the same idioms, between operators that only take images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a, b = torch.cat([x, F.pad(x, (1, 3), value=2.0)], -1)[:, 2:12].split([3, 7], -1)
        shuffled = self.linear(torch.cat([b, a], 1)).unflatten(1, (2, 3)).transpose(1, 2).flatten(1)
        return shuffled, x.softmax(-1) * a[:, 1:2], shuffled[:, :, None, None].relu()


def test_rows_take_the_same_idioms() -> None:
    check(Rows(), (1, 5))


def test_a_tensor_that_stays_as_it_is_needs_no_node() -> None:
    graph = check(Apply(lambda x: (x.clone(), F.dropout(x, training=False).contiguous().to(x.dtype))), (1, 2, 3, 4))
    assert graph.nodes == ()
    assert graph.outputs == ("x", "x")


class Permuted(nn.Module):
    """A ConvNeXt block with all that may stand between the two permutes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Linear(6, 10)
        self.narrow = nn.Linear(10, 6)
        self.gamma = nn.Parameter(torch.randn(6))
        self.shift = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2) - self.shift


def test_channels_last_code_becomes_channel_first_nodes() -> None:
    graph = check(randomise(Permuted()), (1, 6, 5, 7), sizes=[(4, 3)])
    assert [(node.name, node.op) for node in graph.nodes] == [
        ("conv", "conv"),
        ("norm", "layer_norm"),
        ("wide", "conv"),
        ("gelu", "activation"),
        ("narrow", "conv"),
        ("add", "add"),
        ("sub", "affine"),
    ]


def test_an_order_that_fits_no_single_operator_is_a_reshape_a_permute_and_a_reshape() -> None:
    function = Apply(lambda x: x.view(-1, 2, 4, 48).permute(0, 2, 3, 1).reshape(-1, 8, 6, 8))
    assert ops(check(function, (1, 8, 6, 8))) == ["reshape", "permute", "reshape"]
