"""Activations, arithmetic, norms, pooling, resizing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from import_check import check, ops, randomise
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.errors import UnsupportedError

ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "clip": nn.Hardtanh(-0.3, 0.7),
    "leaky_relu": nn.LeakyReLU(0.2),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.6),
    "prelu": nn.PReLU(),
    "prelu of channels": nn.PReLU(5),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "softplus": nn.Softplus(),
    "softplus of beta": nn.Softplus(2.5),
    "mish": nn.Mish(),
    "softmax": nn.Softmax(1),
    "log_softmax": nn.LogSoftmax(1),
}


class Side(nn.Module):
    """All modules on one input."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        clamped = (x.clamp(min=0), x.clamp(max=0.5), x.clamp(-1, 1), torch.clamp_min(x, -0.5), F.relu6(x), x * torch.sigmoid(x))
        return tuple(module(x * 3) for module in self.each) + clamped


def test_activations() -> None:
    graph = check(Side(ACTIVATIONS), (1, 5, 4, 3))
    kinds = {node.attrs["kind"] for node in graph.nodes if node.op == "activation"}
    assert kinds == {"relu", "clip", "leaky_relu", "elu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid"} | {
        "softplus",
        "mish",
    }
    assert sum(node.op == "prelu" for node in graph.nodes) == 2


class ImageNorms(nn.Module):
    """Over groups of channels, each channel alone, all of them; statistics that were kept are an affine step."""

    def __init__(self) -> None:
        super().__init__()
        kept = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.each = nn.ModuleList([nn.GroupNorm(3, 6), nn.GroupNorm(1, 6, affine=False), nn.InstanceNorm2d(6), kept])
        for parameter in self.parameters():
            nn.init.normal_(parameter, 1.0)
        nn.init.normal_(kept.running_mean)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x) for norm in self.each)


def test_norms_over_an_image() -> None:
    graph = check(ImageNorms(), (1, 6, 5, 4), sizes=[(3, 8)])
    assert [node.op for node in graph.nodes] == ["group_norm"] * 3 + ["affine"]
    assert [node.attrs["groups"] for node in graph.nodes[:3]] == [3, 1, 6]


class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, 5, 1, 1))
        self.register_buffer("std", 0.5 + torch.rand(5, 1, 1))
        self.scale = nn.Parameter(torch.randn(5, 1, 1))
        self.number = nn.Parameter(torch.tensor(1.7))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        column, row, pixel = y[:, :, :, :1], y[:, :, 1:2], y[:, 2:3]
        constant = (
            (x - self.mean) / self.std,
            self.scale * x + self.number,
            2 - x,
            3 / (x.square() + 1),
            1 + x / 4,
            torch.rsub(x, y, alpha=2),
            torch.zeros_like(x) - 0.5,
            (x**2 + 1).reciprocal() * self.scale.exp(),
        )
        pair = (
            x + y,
            torch.sub(x, y, alpha=3),
            x * column,
            row - x,
            x / (pixel.square() + 1),
            column + row,
            torch.add(2.0 * x, y, alpha=-1),
        )
        return constant + pair


def test_arithmetic_with_constants_and_broadcasting() -> None:
    graph = check(Arithmetic(), (1, 5, 4, 3), (1, 5, 4, 3), sizes=[(6, 2)])
    assert graph.inputs[0].name == "x"
    assert (graph.node("sub").op, graph.node("sub").inputs) == ("affine", ("x",))


class Inplace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y += x
        z = y.relu_()
        y.mul_(0.5)
        return z + y


class InplaceView(nn.Module):
    """Writes through one name what another reads."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        flat = y.view(x.shape[0], -1)
        y.sub_(1)
        return flat


def test_in_place_operations() -> None:
    assert ops(check(Inplace(), (1, 2, 3, 3))) == ["affine", "add", "activation", "affine", "add"]
    check(InplaceView(), (1, 2, 3, 3))


class Pools(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.max_pool2d(x, 3, 2, 1),
            F.max_pool2d(x, (2, 3), ceil_mode=True),
            F.max_pool2d(x, 2, 3, 1, dilation=2, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1),
            F.avg_pool2d(x, (3, 2), (2, 1), (1, 0), ceil_mode=True, count_include_pad=False),
            F.avg_pool2d(x, 2, divisor_override=3),
            F.adaptive_avg_pool2d(x, (3, 2)),
            F.adaptive_max_pool2d(x, 2),
            F.adaptive_avg_pool2d(x, (1, 1)),
            x.mean((2, 3)),
            x.mean(3, keepdim=True),
            x.amax(dim=(2, 3), keepdim=True),
        )


def test_pools() -> None:
    graph = check(Pools(), (1, 3, 11, 8), sizes=[(9, 10)])
    assert graph.provenance["import"]["size"] == "free"


class Resize(nn.Module):
    def forward(self, x: Tensor, big: Tensor) -> tuple[Tensor, ...]:
        low = F.avg_pool2d(x, 2)
        return (
            F.interpolate(low, scale_factor=2),
            F.interpolate(low, scale_factor=(3.0, 2.0), mode="bilinear"),
            F.interpolate(low, size=(7, 9), mode="bilinear", align_corners=True),
            F.interpolate(low, size=big.shape[2:], mode="bilinear", align_corners=False),
            F.interpolate(low, size=big.shape[2:]),
            F.interpolate(low, size=(3 * low.shape[2], 2 * low.shape[3]), mode="nearest"),
            F.adaptive_avg_pool2d(x, 1).expand(-1, -1, 4, 5),
        )


def test_resizing() -> None:
    graph = check(Resize(), (1, 3, 6, 8), (1, 2, 9, 13), batches=(2,))
    like = [node.inputs for node in graph.nodes if len(node.inputs) == 2]
    assert like == [("avg_pool2d", "big")] * 2
    assert [node.attrs["factor"] for node in graph.nodes if node.op == "upsample"] == [
        [2, 2],
        [3, 2],
        [0, 0],
        [0, 0],
        [0, 0],
        [3, 2],
        [0, 0],
    ]


class Halfway(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=(1.5, 0.25), mode="bilinear")


def test_a_factor_that_is_no_whole_number_is_built_in_as_a_size() -> None:
    graph = check(Halfway(), (1, 3, 6, 8))
    assert graph.nodes[0].attrs["size"] == [9, 2]
    assert "scale factors that are no whole numbers" in graph.provenance["import"]["size"]
    with pytest.raises(UnsupportedError, match="scale factors that are no whole numbers"):
        from_torch(Halfway(), torch.zeros(1, 3, 5, 8))


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4, eps=1e-3)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.rows = nn.BatchNorm1d(4)
        self.layer = nn.LayerNorm(4, eps=1e-2)
        self.bare = nn.LayerNorm(4, elementwise_affine=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        row = x.mean((2, 3))
        last = x.permute(0, 2, 3, 1)
        return self.bn(x), self.plain(x), self.rows(row), self.layer(row), self.layer(last), self.bare(last).permute(0, 3, 1, 2)


def test_norms() -> None:
    graph = check(randomise(Norms()), (1, 4, 5, 3), sizes=[(2, 2)])
    assert [op for op in ops(graph) if op in ("affine", "layer_norm")] == ["affine"] * 3 + ["layer_norm"] * 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_models_become_float32(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(dtype)
    graph = from_torch(model, torch.randn(1, 3, 6, 6, dtype=dtype))
    assert {array.dtype.name for node in graph.nodes for array in node.tensors.values()} == {"float32"}
