"""Convolutions and linear layers: padding, dilation, groups, transposed convolution, folding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from import_check import check, ops, randomise
from torch import Tensor, nn

from cosparse.compress.importer.ops_conv import conv_attrs
from cosparse.compress.importer.transposed import phase_filters, plan_axis
from cosparse.engine.graph import Node
from cosparse.kernels import reference


class Convolutions(nn.Module):
    """Outputs of several convolutions of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(6, 5, (3, 2), (2, 3), (1, 2))
        self.dilated = nn.Conv2d(6, 4, 3, padding=(4, 2), dilation=(4, 2))
        self.grouped = nn.Conv2d(6, 9, 3, padding=1, groups=3, bias=False)
        self.multiplied = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.same = nn.Conv2d(6, 3, (4, 2), padding="same", dilation=(1, 3))
        self.valid = nn.Conv2d(6, 3, 3, padding="valid")
        self.mirrored = nn.Conv2d(6, 3, 3, padding=2, padding_mode="reflect")
        self.edge = nn.Conv2d(6, 3, 3, padding=(1, 2), padding_mode="replicate")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return *(layer(x) for layer in self.children()), F.conv2d(F.pad(x, (1, 2, 0, 3)), self.valid.weight, stride=2)


def test_convolutions_in_every_form() -> None:
    graph = check(Convolutions(), (1, 6, 13, 11), sizes=[(10, 17)])
    names = [node.name for node in graph.nodes if node.op == "conv"]
    assert names == ["strided", "dilated", "grouped", "multiplied", "same", "valid", "mirrored", "edge", "conv2d"]
    assert graph.node("same").attrs["pad"] == [1, 1, 2, 2]
    assert graph.node("conv2d").attrs["pad"] == [0, 1, 3, 2]
    assert [(n.name, n.attrs["mode"]) for n in graph.nodes if n.op == "pad"] == [("mirrored.pad", "reflect"), ("edge.pad", "replicate")]
    assert graph.node("multiplied").attrs == conv_attrs(np.empty((12, 1, 3, 3)), [1, 1], [1] * 4, [1, 1], 6)


GRID = [
    (k, s, p, e, d)
    for k, s, p, e, d in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 3), (0, 1, 2), (1, 2, 3))
    if e < max(s, d) and (4 - 1) * s - 2 * p + d * (k - 1) + e + 1 > 0
]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_is_a_convolution_and_depth_to_space(groups: int) -> None:
    """Each (kernel, stride, padding, output padding, dilation) of the grid as rows, the next but one as columns, exactly in integers."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 4, 4, 5)).astype(np.float64)
    for v, h in zip(GRID, GRID[7:] + GRID[:7], strict=True):
        k, s, p, e, d = zip(v, h, strict=True)
        weight = rng.integers(-4, 5, (4, 6 // groups, *k)).astype(np.float64)
        want = F.conv_transpose2d(*map(torch.from_numpy, (x, weight)), None, s, p, e, groups, d).numpy()
        rows, columns = (plan_axis(*axis) for axis in (v, h))
        values = phase_filters(weight, groups, rows, columns)
        pad = [rows.pad[0], columns.pad[0], rows.pad[1], columns.pad[1]]
        crop = [rows.crop[0], columns.crop[0], rows.crop[1], columns.crop[1]]
        assert min(pad + crop) >= 0, (v, h)
        conv = Node("conv", "conv", ("x",), conv_attrs(values, [1, 1], pad, [rows.dilation, columns.dilation], groups), {"values": values})
        order = "dcr" if groups == 1 else "crd"
        spread = Node("spread", "depth_to_space", ("conv",), {"block": list(s), "order": order, "crop": crop})
        np.testing.assert_array_equal(reference.run_node(spread, reference.run_node(conv, x)), want, err_msg=f"{v} {h}")


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, (4, 3), (2, 3), (1, 0), (0, 1))
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2, bias=False)
        self.grouped_norm = nn.BatchNorm2d(6)
        self.still = nn.ConvTranspose2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.norm(self.up(x)), self.grouped_norm(self.grouped(x)), self.still(x)


def test_transposed_convolutions_take_batch_norm_through_their_phases() -> None:
    graph = check(randomise(Transposed()), (1, 4, 5, 6), sizes=[(1, 9)])
    assert [(node.name, node.op) for node in graph.nodes] == [
        ("up", "conv"),
        ("up.depth_to_space", "depth_to_space"),
        ("grouped", "conv"),
        ("grouped.depth_to_space", "depth_to_space"),
        ("still", "conv"),
    ]


class Folding(nn.Module):
    """Where a norm can go into a neighbour and where it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, groups=1)
        self.bn = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1, bias=False)
        self.shared_bn = nn.BatchNorm2d(4)
        self.first = nn.BatchNorm2d(4, affine=False)
        self.then = nn.Conv2d(4, 6, 2, groups=2)
        self.padded = nn.Conv2d(4, 2, 3, padding=1)
        self.linear = nn.Linear(6, 5)
        self.linear_bn = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.bn(self.conv(x))
        y = self.shared(x)
        after = torch.relu(self.first(torch.relu(y)) * 2 + 1)
        before = self.then(self.first(torch.relu(x)))
        unfoldable = self.padded(self.first(torch.sigmoid(x)))
        return y, self.shared_bn(y), after, self.linear_bn(self.linear(before.mean((2, 3)))), unfoldable


def test_norms_fold_only_where_nobody_else_reads_the_value_between() -> None:
    graph = check(randomise(Folding()), (1, 3, 6, 7), sizes=[(5, 4)])
    kinds = {node.name: node.op for node in graph.nodes if node.op in ("conv", "linear", "affine")}
    assert kinds == {
        "conv": "conv",
        "shared": "conv",
        "shared_bn": "affine",
        "first": "affine",
        "then": "conv",
        "first#3": "affine",
        "padded": "conv",
        "linear": "linear",
    }


class Twice(nn.Module):
    """One module, two places; one in-place activation in each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(self.act(self.conv(x)))) + self.conv.weight.sum()


def test_a_module_used_twice_gives_two_nodes() -> None:
    graph = check(Twice(), (1, 3, 5, 5))
    assert [node.name for node in graph.nodes] == ["conv", "act", "conv#2", "act#2", "add"]


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        rows = x @ self.weight
        pixels = self.linear(image.permute(0, 2, 3, 1))
        return rows, self.linear(rows), pixels.permute(0, 3, 1, 2), F.pixel_unshuffle(image, 2)


def test_linear_layers_over_rows_and_over_pixels() -> None:
    graph = check(Products(), (1, 5), (1, 4, 6, 4))
    assert ops(graph) == ["linear", "conv", "linear", "conv"]


def test_weight_norm_and_other_parametrisations_are_computed_at_import() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    graph = check(nn.Sequential(layer, nn.BatchNorm2d(4)), (1, 3, 6, 6))
    assert [node.name for node in graph.nodes] == ["0"]
