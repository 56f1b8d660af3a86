"""VGG-16 with batch norm (Simonyan and Zisserman 2014) for 32 x 32 images: one linear layer after the convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Filters of each 3x3 convolution; 0 halves height and width.
WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class CifarVgg16(nn.Module):
    """[N, 3, 32, 32] -> [N, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))
