"""Constants that vary over height and width, against torch: grids, anchors, coordinates, embeddings, in every rank that heads have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from import_check import Apply, check, ops
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.engine.graph import Graph
from cosparse.errors import UnsupportedError

RNG = torch.Generator().manual_seed(0)
POSITIONS = torch.randn(1, 6, 5, 7, generator=RNG)
ANCHORS = torch.tensor([[1.25, 2.0], [3.5, 0.75]])
PINNED = ((5, 5), (7, 7))


def rows_and_columns(h: int, w: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return rows, columns


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.positions = nn.Parameter(POSITIONS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.second((self.first(x) + self.positions).relu())


class Coordinates(nn.Module):
    """CoordConv as its PyTorch ports have it, the distance from the centre included."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.size()
        columns = torch.arange(w).repeat(1, h, 1).float() / (w - 1) * 2 - 1
        rows = torch.arange(h).repeat(1, w, 1).transpose(1, 2).float() / (h - 1) * 2 - 1
        columns, rows = (t.repeat(n, 1, 1, 1).type_as(x) for t in (columns, rows))
        distance = torch.sqrt((columns - 0.5) ** 2 + (rows - 0.5) ** 2)
        return self.conv(torch.cat([x, columns, rows, distance], 1))


class Decoded(nn.Module):
    """A head of YOLO: boxes from [N, 2, H, W, 7], by the grid and the anchors; `way` is how the versions write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.head, self.way = nn.Conv2d(6, 14, 1), way
        self.register_buffer("anchors", ANCHORS.view(1, 2, 1, 1, 2))
        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        p = self.head(x).view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous()
        rows, columns = rows_and_columns(h, w)
        grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).to(x.dtype)
        if self.way == "parts":  # version 3: parts are written in place
            p[..., :2] = (p[..., :2].sigmoid() + grid) * 8
            p[..., 2:4] = torch.exp(p[..., 2:4]) * self.anchors
            p[..., 4:] = p[..., 4:].sigmoid()
            return p.view(n, -1, 7)
        if self.way == "kept":  # version 5: the grid is kept from one call to the next
            if self.grid is None or self.grid.shape[2:4] != p.shape[2:4]:
                self.grid = grid
            grid = self.grid
        place, size, rest = p.sigmoid().split((2, 2, 3), 4)
        place = (place * 2 + grid.expand(1, 2, h, w, 2) - 0.5) * 8
        size = (size * 2) ** 2 * self.anchors.expand(1, 2, h, w, 2)
        return torch.cat((place, size, rest), 4).view(n, -1, 7)


class Points(nn.Module):
    """Boxes about points, all levels in one sequence: [N, 4 + classes, points] (version 8) or [N, points, 5 + classes] (X)."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.near, self.far, self.last = nn.Conv2d(6, 7, 1), nn.Conv2d(6, 7, 1, stride=2), last

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.near(x), self.far(x)]
        points, strides = [], []
        for level, y in enumerate(maps):
            h, w = y.shape[2:]
            rows, columns = rows_and_columns(h, w)
            points.append(torch.stack((columns, rows), -1).view(-1, 2) + 0.5)
            strides.append(torch.full((h * w, 1), 8.0 * 2**level))
        points, strides = (torch.cat(t).to(x.dtype) for t in (points, strides))
        y = torch.cat([m.flatten(2) for m in maps], 2)
        if self.last:
            y = y.permute(0, 2, 1)
            y[..., :2] = (y[..., :2] + points) * strides
            y[..., 2:4] = torch.exp(y[..., 2:4]) * strides
            return y
        low, high, rest = y.split((2, 2, 3), 1)
        first, second = points.t().unsqueeze(0) - low, points.t().unsqueeze(0) + high
        return torch.cat((torch.cat(((first + second) / 2, second - first), 1) * strides.t(), rest.sigmoid()), 1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "position embedding": Embedded,
    "CoordConv": Coordinates,
    "YOLOv3": lambda: Decoded("parts"),
    "YOLOv5": lambda: Decoded("split"),
    "YOLOv5, the grid kept": lambda: Decoded("kept"),
    "YOLOv8": lambda: Points(last=False),
    "YOLOX": lambda: Points(last=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    torch.manual_seed(0)
    graph = check(NETWORKS[name](), (1, 6, 5, 7), batches=(1, 2, 3))
    assert "constant" in ops(graph)
    assert graph.inputs[0].sizes == PINNED
    assert graph.provenance["import"]["size"].startswith("the example's, for ")


def coordinates(x: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, x.shape[2]), torch.linspace(-1, 1, x.shape[3]), indexing="ij")
    n, h, w = x.shape[0], x.shape[2], x.shape[3]
    return torch.cat([rows.expand(n, 1, h, w), x, columns.expand(n, 1, h, w)], 1)


def written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :2] = POSITIONS[:, :2]
    y[:, :, 1:3] *= POSITIONS[:, :, 1:3]
    y[:, 5] = POSITIONS[:, 5]
    return y


def written_to(x: Tensor) -> Tensor:
    y = POSITIONS.repeat(x.shape[0], 1, 1, 1)
    y[:, 2:4] = x[:, 2:4] * 2
    return y


def ones(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 2, 5, 7)
    y[:, 1] = torch.arange(7.0)
    return torch.cat([x, y.type_as(x)], 1)


def sequence(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # [N, H W, C]


TOKENS = POSITIONS.flatten(2).transpose(1, 2)

FORMS: dict[str, tuple[Callable[[Tensor], Any], set[str]]] = {
    "added": (lambda x: x + POSITIONS, {"constant", "add"}),
    "added, scaled": (lambda x: torch.add(x, POSITIONS, alpha=0.5), {"constant", "add"}),
    "taken from": (lambda x: POSITIONS - x, {"constant", "sub"}),
    "multiplied": (lambda x: POSITIONS[0] * x, {"constant", "mul"}),
    "divided": (lambda x: POSITIONS / (x * x + 1), {"mul", "affine", "constant", "div"}),
    "divided by": (lambda x: x / (POSITIONS.abs() + 1), {"constant", "div"}),
    "largest": (lambda x: torch.maximum(x, POSITIONS), {"constant", "maximum"}),
    "least by channel": (lambda x: torch.minimum(x, torch.arange(6.0)[:, None, None]), {"constant", "minimum"}),
    "one row for all": (lambda x: x + torch.arange(5.0)[:, None], {"constant", "add"}),
    "larger than the tensor": (lambda x: x.mean((2, 3), keepdim=True) + POSITIONS, {"mean", "constant", "add"}),
    "larger than a row": (lambda x: x.mean((1, 2, 3)).unsqueeze(1) * torch.arange(4.0), {"mean", "reshape", "constant", "mul"}),
    "coordinates on both sides": (coordinates, {"constant", "concat"}),
    "between values": (lambda x: torch.cat([x, POSITIONS.expand(x.shape[0], -1, -1, -1), x], 1), {"constant", "concat"}),
    "rows above": (lambda x: torch.cat([POSITIONS[:, :, :2].expand(x.shape[0], -1, -1, -1), x], 2), {"constant", "concat"}),
    "beside anchors": (
        lambda x: torch.cat([x.view(-1, 3, 2, 5, 7), POSITIONS[:, :2, None].transpose(1, 2).expand(x.shape[0], 1, 2, 5, 7)], 1).flatten(
            1, 2
        ),
        {"constant", "concat"},
    ),
    "stacked": (lambda x: torch.stack([x, POSITIONS.expand(x.shape[0], -1, -1, -1)], 2).flatten(1, 2), {"constant", "concat"}),
    "written to parts": (written, {"constant", "slice", "concat", "mul"}),
    "parts written to it": (written_to, {"constant", "slice", "affine", "concat"}),
    "a part of zeros": (ones, {"constant", "concat"}),
    "of a sequence": (lambda x: sequence(x) + TOKENS, {"constant", "add"}),
    "a token of a class": (lambda x: torch.cat([TOKENS[:, :1].expand(x.shape[0], -1, -1), sequence(x)], 1), {"constant", "concat"}),
    "rows with features": (lambda x: torch.cat([x.mean((2, 3)), torch.arange(4.0).expand(x.shape[0], 4)], 1), {"constant", "concat"}),
    "in rank 5": (
        lambda x: x.view(-1, 2, 3, 5, 7).permute(0, 1, 3, 4, 2) * POSITIONS.view(2, 3, 5, 7).permute(0, 2, 3, 1),
        {"constant", "mul"},
    ),
    "by anchor": (lambda x: x.view(-1, 3, 2, 5, 7) * torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 2, 5, 7), {"affine"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    function, expected = FORMS[name]
    graph = check(Apply(function), (1, 6, 5, 7), batches=(1, 2, 3))
    assert expected <= set(ops(graph)) | {"reshape"}
    assert ("constant" in expected) == ("constant" in ops(graph))


def numbers(graph: Graph) -> list[tuple[int, ...]]:
    return [node.tensors["values"].shape for node in graph.nodes if node.op == "constant"]


def test_constants_are_stored_once_and_as_small_as_broadcasting_allows() -> None:
    rows = torch.arange(5.0)[:, None]
    graph = from_torch(Apply(lambda x: (x + rows) * rows.expand(6, 5, 7)), torch.zeros(1, 6, 5, 7))
    assert numbers(graph) == [(1, 5, 1)]
    assert numbers(from_torch(Coordinates(), torch.zeros(1, 6, 5, 7))) == [(3, 5, 7)]


def test_what_does_not_vary_over_a_free_axis_leaves_the_sizes_free() -> None:
    by_channel, number = torch.arange(6.0).view(6, 1, 1), torch.full((1, 1, 1), 2.0)
    pooled = Apply(lambda x: nn.functional.adaptive_avg_pool2d(x, (5, 7)) + POSITIONS)
    for model in (pooled, Apply(lambda x: torch.maximum(x, by_channel)), Apply(lambda x: x + number)):
        graph = check(model, (1, 6, 5, 7), sizes=[(9, 8), (3, 12)])
        assert graph.inputs[0].sizes is None


def test_a_constant_behind_a_stride_pins_the_size_that_was_traced() -> None:
    """torch takes heights 9 and 10 for one and the same; the artifact holds the network of its example."""
    graph = check(nn.Sequential(nn.Conv2d(3, 6, 1, stride=2), Apply(lambda x: x + POSITIONS)), (1, 3, 9, 14))
    assert graph.inputs[0].sizes == ((9, 9), (14, 14))


def test_one_axis_alone_is_pinned() -> None:
    graph = check(Apply(lambda x: x + torch.arange(5.0)[:, None]), (1, 6, 5, 7), sizes=[(5, 9), (5, 2)])
    assert graph.inputs[0].sizes == ((5, 5), (1, 2**31 - 1))


def test_the_reason_for_the_sizes_names_operator_and_line() -> None:
    graph = from_torch(Coordinates(), torch.zeros(1, 6, 5, 7))
    reason = graph.provenance["import"]["size"]
    assert "aten.arange.default in the model's own forward, test_import_constant.py:" in reason
    assert "a constant that depends on the input's height or width" in reason


REFUSED = {
    "a constant that varies over the batch": lambda x: x + torch.arange(x.shape[0]).view(-1, 1, 1, 1),
    "a concatenation of batches": lambda x: torch.cat([x, POSITIONS], 0),
    "a constant that float32 holds no finite number for": lambda x: x + torch.full((6, 5, 7), float("-inf")).triu(),
    "a constant of rank 5 that is larger than the tensor": lambda x: x.unsqueeze(1) * POSITIONS.view(1, 2, 3, 5, 7),
    "a constant where a value that depends on the input is expected": lambda x: torch.tensor([2.0]) ** x,
    "output 1: a constant": lambda x: (x, rows_and_columns(*x.shape[2:])[0]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_constants_that_an_artifact_cannot_hold(reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        from_torch(Apply(REFUSED[reason]), torch.zeros(2, 3 if "rank 5" in reason else 6, 5, 7))


def test_the_engine_refuses_another_size() -> None:
    from engines import engine_of

    from cosparse.errors import ShapeError

    engine = engine_of(from_torch(Embedded(), torch.zeros(1, 6, 5, 7)))
    with pytest.raises(ShapeError, match=r"input 'x': expected a height of 5, got \[1, 6, 6, 7\]"):
        engine(np.zeros((1, 6, 6, 7), np.float32))
