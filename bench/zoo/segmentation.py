"""FCN (Long et al. 2014) and DeepLab V3 (Chen et al. 2017) on a dilated ResNet-50."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosparse.bench.zoo.layers import conv_bn
from cosparse.bench.zoo.resnet import Bottleneck, ResNetFeatures


class PoolBranch(nn.Sequential):
    """The image's mean, 1x1 convolution, spread over the image again."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3 and image mean side by side, then 1x1."""

    def __init__(self, channels: int, filters: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        dilated = (conv_bn(channels, filters, 3, dilation=rate) for rate in rates)
        self.convs = nn.ModuleList([conv_bn(channels, filters), *dilated, PoolBranch(channels, filters)])
        self.project = conv_bn(filters * len(self.convs), filters).append(nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([conv(x) for conv in self.convs], 1))


class Segmentation(nn.Module):
    """[N, 3, H, W] -> {"out": [N, classes, H, W]}."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.backbone = ResNetFeatures(Bottleneck, (3, 4, 6, 3), (False, True, True))
        self.classifier = classifier

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.classifier(self.backbone(x))
        return {"out": F.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)}


def fcn_resnet50(classes: int) -> nn.Module:
    return Segmentation(conv_bn(2048, 512, 3).append(nn.Dropout(0.1)).append(nn.Conv2d(512, classes, 1)))


def deeplabv3_resnet50(classes: int) -> nn.Module:
    return Segmentation(nn.Sequential(Pyramid(2048, 256, (12, 24, 36)), *conv_bn(256, 256, 3), nn.Conv2d(256, classes, 1)))
