"""MobileNet V1 (Howard et al. 2017) and V2 (Sandler et al. 2018): depthwise separable convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosparse.bench.zoo.layers import conv_bn

# Filters and stride of each separable convolution.
V1_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# Expansion, filters, repeats and first stride of each group of inverted residuals.
V2_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV1(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers = [conv_bn(3, 32, 3, 2)]
        channels = 32
        for filters, stride in V1_LAYERS:
            layers += [conv_bn(channels, channels, 3, stride, groups=channels), conv_bn(channels, filters)]
            channels = filters
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 back without activation; a shortcut where the shape stays."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_bn(channels, hidden, act=nn.ReLU6)]
        layers += [conv_bn(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6)]
        layers += [nn.Conv2d(hidden, filters, 1, bias=False), nn.BatchNorm2d(filters)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
        channels = 32
        for expansion, filters, repeats, stride in V2_GROUPS:
            for i in range(repeats):
                layers.append(InvertedResidual(channels, filters, 1 if i else stride, expansion))
                channels = filters
        self.features = nn.Sequential(*layers, conv_bn(channels, 1280, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))
