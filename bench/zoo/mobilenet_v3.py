"""MobileNet V3 (Howard et al. 2019) and EfficientNet-B0 (Tan and Le 2019): inverted residuals with squeeze and excitation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cosparse.bench.zoo.layers import conv_bn, divisible

Act = Callable[[], nn.Module]


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that two 1x1 convolutions make of the channels' means."""

    def __init__(self, channels: int, squeeze: int, act: Act, gate: Act) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.activation, self.scale_activation = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


@dataclass(frozen=True)
class Block:
    """One inverted residual: 1x1 to `hidden`, depthwise `kernel`, gate through `squeeze` channels (0: none), 1x1 to `filters`."""

    channels: int
    kernel: int
    hidden: int
    filters: int
    squeeze: int
    stride: int
    act: Act
    eps: float
    squeeze_act: Act
    gate: Act


class InvertedResidual(nn.Module):
    def __init__(self, b: Block) -> None:
        super().__init__()
        layers: list[nn.Module] = [] if b.hidden == b.channels else [conv_bn(b.channels, b.hidden, act=b.act, eps=b.eps)]
        layers.append(conv_bn(b.hidden, b.hidden, b.kernel, b.stride, groups=b.hidden, act=b.act, eps=b.eps))
        if b.squeeze:
            layers.append(SqueezeExcite(b.hidden, b.squeeze, b.squeeze_act, b.gate))
        layers.append(conv_bn(b.hidden, b.filters, act=None, eps=b.eps))
        self.block = nn.Sequential(*layers)
        self.shortcut = b.stride == 1 and b.channels == b.filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class Classifier(nn.Module):
    """`features`, global mean, `classifier`: [N, 3, H, W] -> [N, classes]."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features, self.avgpool, self.classifier = features, nn.AdaptiveAvgPool2d(1), classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


# Kernel, hidden channels, filters, squeeze and excite, hardswish, stride.
V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
# Expansion, kernel, first stride, filters, repeats.
B0_GROUPS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mobilenet_v3(rows: tuple[tuple[int, int, int, bool, bool, int], ...], last: int, classes: int) -> nn.Module:
    """`last` is the width of the classifier's hidden layer."""
    eps, channels = 1e-3, 16
    layers: list[nn.Module] = [conv_bn(3, channels, 3, 2, act=nn.Hardswish, eps=eps)]
    for kernel, hidden, filters, excite, hardswish, stride in rows:
        squeeze = divisible(hidden / 4) if excite else 0
        act: Act = nn.Hardswish if hardswish else nn.ReLU
        layers.append(InvertedResidual(Block(channels, kernel, hidden, filters, squeeze, stride, act, eps, nn.ReLU, nn.Hardsigmoid)))
        channels = filters
    layers.append(conv_bn(channels, 6 * channels, act=nn.Hardswish, eps=eps))
    head = nn.Sequential(nn.Linear(6 * channels, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, classes))
    return Classifier(nn.Sequential(*layers), head)


def efficientnet_b0(classes: int) -> nn.Module:
    channels = 32
    stages: list[nn.Module] = [conv_bn(3, channels, 3, 2, act=nn.SiLU)]
    block = partial(Block, act=nn.SiLU, eps=1e-5, squeeze_act=nn.SiLU, gate=nn.Sigmoid)
    for expansion, kernel, first, filters, repeats in B0_GROUPS:
        group: list[nn.Module] = []
        for i in range(repeats):
            hidden, stride = channels * expansion, 1 if i else first
            group.append(InvertedResidual(block(channels, kernel, hidden, filters, channels // 4, stride)))
            channels = filters
        stages.append(nn.Sequential(*group))
    stages.append(conv_bn(channels, 1280, act=nn.SiLU))
    return Classifier(nn.Sequential(*stages), nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes)))
