"""U-Net (Ronneberger et al. 2015) with batch norm and "same" padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosparse.bench.zoo.layers import conv_bn

WIDTHS = (32, 64, 128, 256, 512)


def double(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(channels, filters, 3), conv_bn(filters, filters, 3))


class UNet(nn.Module):
    """[N, 3, H, W] -> [N, classes, H, W], H and W multiples of 16."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *WIDTHS), WIDTHS, strict=False))
        self.pool = nn.MaxPool2d(2)
        wide_to_narrow = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in wide_to_narrow)
        self.merge = nn.ModuleList(double(a, b) for a, b in wide_to_narrow)
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, down in enumerate(self.down):
            x = down(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)
