"""Networks whose outputs have another rank than 2 or 4: what is stored, and the view in which it is given."""

import numpy as np
import pytest
import torch
from import_check import check, ops
from torch import nn

from cosparse.compress.importer import from_torch
from cosparse.errors import UnsupportedError
from cosparse.kernels.view import Axis


class Head(nn.Module):
    """A strided convolution, and what `forward` makes of its map."""

    def __init__(self, forward, channels: int = 12, stride: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride, 1)
        self.then = forward

    def forward(self, x):
        return self.then(self.conv(x))


class Pyramid(nn.Module):
    """Maps of two scales, and what `join` makes of them."""

    def __init__(self, join, channels: int = 12):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 5, 3, 1, 1), nn.Conv2d(5, 5, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(5, channels, 1) for _ in range(2))
        self.join = join

    def forward(self, x):
        a = torch.relu(self.stem(x))
        return self.join([head(y) for head, y in zip(self.heads, (a, torch.relu(self.down(a))), strict=True)])


class Scores(nn.Module):
    def __init__(self, then):
        super().__init__()
        self.fc = nn.Linear(6, 1)
        self.then = then

    def forward(self, x):
        return self.then(self.fc(x))


def anchors(y, classes=4):
    """[N, C, H, W] to [N, anchors, classes], as SSD and RetinaNet have it."""
    return y.permute(0, 2, 3, 1).reshape(y.size(0), -1, classes)


def yolo(y):
    n, _, h, w = y.shape
    return y.view(n, 3, 4, h, w).permute(0, 1, 3, 4, 2).contiguous()


SIZES = [(6, 8), (10, 4), (5, 7)]


@pytest.mark.parametrize("then", [lambda y: y.squeeze(1), lambda y: y.view(-1), lambda y: torch.sigmoid(y).flatten()])
def test_scores_of_rank_1(then):
    graph = check(Scores(then), (1, 6))
    assert graph.views == ((),)


@pytest.mark.parametrize(
    ("then", "view", "nodes"),
    [
        (lambda y: y.flatten(2), (12, None), ["conv"]),
        (lambda y: y.flatten(2).transpose(1, 2), (None, 12), ["conv", "permute"]),
        (anchors, (None, 4), ["conv", "permute"]),
        (lambda y: anchors(torch.sigmoid(y)), (None, 4), ["conv", "activation", "permute"]),
        (lambda y: y.unflatten(1, (3, 4)), (3, 4, Axis(2), Axis(3)), ["conv"]),
        (lambda y: y.unsqueeze(1), (1, 12, Axis(2), Axis(3)), ["conv"]),
        (yolo, (3, Axis(2), None, 4), ["conv", "depth_to_space"]),
    ],
)
def test_one_map(then, view, nodes):
    graph = check(Head(then), (1, 3, 8, 12), sizes=SIZES)
    assert graph.views == (view,)
    assert ops(graph) == nodes
    assert graph.provenance["import"]["size"] == "free"


@pytest.mark.parametrize(
    ("join", "views"),
    [
        (lambda ys: torch.cat([anchors(y) for y in ys], 1), ((None, 4),)),
        (lambda ys: torch.cat([anchors(y, 12) for y in ys], 1), ((None, 12),)),
        (lambda ys: torch.cat([anchors(y) for y in ys], 1).softmax(-1), ((None, 4),)),
        (lambda ys: torch.cat([anchors(y, 12) for y in ys], 1).log_softmax(2), ((None, 12),)),
        (lambda ys: torch.cat([y.flatten(2) for y in ys], 2), ((12, None),)),
        (lambda ys: torch.cat([y.flatten(2) for y in ys], 2).permute(0, 2, 1), ((None, 12),)),
        (lambda ys: torch.cat([y.flatten(2) for y in ys], 2).split((5, 7), 1), ((5, None), (7, None))),
        (lambda ys: (torch.cat([anchors(y) for y in ys], 1), torch.cat([y.flatten(2) for y in ys], 2)), ((None, 4), (12, None))),
        (lambda ys: torch.cat([y.permute(0, 2, 3, 1).flatten(1) for y in ys], 1).view(ys[0].size(0), -1, 4), ((None, 4),)),
        (lambda ys: torch.cat([y.permute(0, 2, 3, 1).flatten(1) for y in ys], 1).unflatten(1, (-1, 3)).softmax(-1), ((None, 3),)),
        (lambda ys: [yolo(y) for y in ys], ((3, Axis(2), None, 4), (3, Axis(2), None, 4))),
        (lambda ys: torch.cat([yolo(y).sigmoid().flatten(1, 3) for y in ys], 1), ((None, 4),)),
    ],
)
def test_maps_of_a_pyramid(join, views):
    graph = check(Pyramid(join), (1, 3, 8, 12), sizes=[(6, 8), (10, 4)])
    assert graph.views == views
    assert graph.provenance["import"]["size"] == "free"


def test_a_size_that_torch_gives_as_a_quotient():
    """Of maps that grew by interpolation, whose sizes are no symbols but sums and products of them."""

    def then(y):
        z = nn.functional.interpolate(y[:, :, ::2, ::2], scale_factor=2)
        return torch.cat([anchors(z), anchors(y)], 1)

    graph = check(Head(then), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.views == ((None, 4),)


def test_boxes_and_scores_of_one_head():
    """Split along the last axis, each part treated by itself, and joined again."""

    def join(ys):
        y = torch.cat([anchors(y, 6) for y in ys], 1)
        xy, wh, rest = y.split((2, 2, 2), 2)
        return torch.cat([xy.sigmoid() * 2, wh.relu(), rest.softmax(-1)], 2)

    graph = check(Pyramid(join), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.views == ((None, 6),)


def test_parts_of_a_head_of_rank_5():
    def then(y):
        xy, wh, rest = yolo(y).split((1, 1, 2), 4)
        return torch.cat([xy.sigmoid() * 2 - 0.5, (wh.sigmoid() * 2) ** 2, rest], 4)

    graph = check(Head(then), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.views == ((3, Axis(2), None, 4),)


def test_stacked_outputs_of_an_hourglass():
    graph = check(Pyramid(lambda ys: torch.stack([ys[0], ys[0].relu()], 1)), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.views == ((2, 12, Axis(2), Axis(3)),)


def test_columns_as_a_sequence():
    """A CRNN's features: one for each column of an image of a fixed height."""

    def then(y):
        return nn.functional.avg_pool2d(y, (4, 1)).squeeze(2).permute(0, 2, 1)

    graph = check(Head(then), (1, 3, 8, 12), sizes=[(8, 20)])
    assert graph.views == ((None, 12),)


def test_two_views_of_one_value():
    graph = check(Head(lambda y: (y, y.flatten(2), y.flatten(2))), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.outputs == ("conv", "conv", "conv")
    assert graph.views == (None, (12, None), (12, None))


def test_outputs_under_keys():
    graph = check(Head(lambda y: {"boxes": anchors(y), "scores": y.flatten(2)}), (1, 3, 8, 12), sizes=[(6, 8)])
    assert graph.outputs == ("boxes", "scores")
    assert graph.views == ((None, 4), (12, None))


def test_networks_with_other_outputs_have_no_views():
    assert from_torch(Head(lambda y: y), torch.randn(1, 3, 8, 8)).views == ()


def test_what_cannot_be_held():
    words = r"output 0: the batch mixed with another axis; cut the network before its head: return the maps themselves"
    with pytest.raises(UnsupportedError, match=words):
        from_torch(Head(lambda y: y.permute(1, 0, 2, 3).flatten(2)), torch.randn(1, 3, 8, 8))
    with pytest.raises(UnsupportedError, match="cut the network before its head"):
        from_torch(Head(lambda y: y.mean((2, 3)).view(-1)), torch.randn(1, 3, 8, 8))
    with pytest.raises(UnsupportedError, match=r"output 0: an expanded tensor; cut the network"):
        from_torch(Head(lambda y: y.unsqueeze(1).expand(-1, 2, -1, -1, -1)), torch.randn(1, 3, 8, 8))


def test_rank_8_and_no_more():
    graph = check(Head(lambda y: y.view(y.size(0), 2, 2, 3, 2, 2, 2, 2)), (1, 3, 8, 8))
    assert np.prod(graph.views[0]) == 192
    with pytest.raises(UnsupportedError, match="a tensor of rank 9"):
        from_torch(Head(lambda y: y.view(y.size(0), 2, 2, 3, 2, 2, 2, 2, 1)), torch.randn(1, 3, 8, 8))
