"""What the zoo's networks share: the convolution unit and the initial weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def conv_bn(
    channels: int,
    filters: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution with "same" padding and no bias, batch norm, activation, under the keys "0", "1" (the activation has none)."""
    r, s = (kernel, kernel) if isinstance(kernel, int) else kernel
    pad = ((r - 1) // 2 * dilation, (s - 1) // 2 * dilation)
    conv = nn.Conv2d(channels, filters, (r, s), stride, pad, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters, eps=eps), *([act()] if act else []))


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never more than a tenth below `channels`: the rounding of the MobileNet family."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@torch.no_grad()
def init_weights(model: nn.Module) -> None:
    """He initialisation of convolutions (fan out), small normal linear layers, zero biases; norms keep PyTorch's ones and zeros."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
