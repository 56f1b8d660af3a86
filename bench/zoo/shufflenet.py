"""ShuffleNet V2 x1.0 (Ma et al. 2018): half of the channels pass untouched, then channels are shuffled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosparse.bench.zoo.layers import conv_bn

WIDTHS, REPEATS = (116, 232, 464), (4, 8, 4)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel (a, b) of groups x C/groups becomes channel (b, a)."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


def pointwise(channels: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]


class ShuffleUnit(nn.Module):
    """Stride 1: one half passes by. Stride 2: both branches see the whole input."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        half = filters // 2
        self.split = stride == 1
        self.branch1 = nn.Sequential() if self.split else nn.Sequential(*depthwise(channels, stride), *pointwise(channels, half))
        self.branch2 = nn.Sequential(*pointwise(half if self.split else channels, half), *depthwise(half, stride), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1) if self.split else (x, x)
        return shuffled(torch.cat([self.branch1(a), self.branch2(b)], 1), 2)


class ShuffleNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 24, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages = []
        channels = 24
        for width, repeats in zip(WIDTHS, REPEATS, strict=True):
            stages.append(nn.Sequential(*(ShuffleUnit(width if i else channels, width, 1 if i else 2) for i in range(repeats))))
            channels = width
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = conv_bn(channels, 1024)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean([2, 3]))
