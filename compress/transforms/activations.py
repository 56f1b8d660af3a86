"""A convolution on transformed activations: the definition of what a transform means at run time.

maps       each input channel's taps at each output pixel, transformed along taps and channels
product    coefficients times maps
outputs    transformed back along filters
"""

from __future__ import annotations

import torch
from torch.nn import functional

from cosparse.compress.transforms.transform import Transform, along, placed


def apply(
    transform: Transform,
    coefficients: torch.Tensor,
    x: torch.Tensor,
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """conv(x, W) of x [N, C, H, W] with S = T W [O, C, R, S], [N, O, Ho, Wo]; `pad` is top, left, bottom, right. One group."""
    filters, channels, *kernel = coefficients.shape
    size, top, left, bottom, right = (kernel[0], kernel[1]), *pad
    seen = functional.pad(x, (left, right, top, bottom))
    height, width = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(seen.shape[2:], kernel, stride, dilation, strict=True))
    maps = functional.unfold(seen, size, dilation, 0, stride)  # [N, C R S, P]
    pixels = maps.shape[-1]
    maps = maps.reshape(len(x), channels, -1, pixels).permute(1, 2, 0, 3).reshape(channels, size[0] * size[1], -1)  # [C, R S, N P]
    if transform.taps != "identity" and maps.shape[1] > 1:
        maps = placed(transform, "taps", size, x) @ maps
    if transform.channels != "identity" and channels >= transform.channels_tile:
        maps = along(maps, placed(transform, "channels", size, x).swapaxes(1, 2), 0)
    y = coefficients.reshape(filters, -1) @ maps.reshape(-1, maps.shape[-1])  # [O, N P]
    if transform.filters != "identity" and filters >= transform.filters_tile:
        y = along(y, placed(transform, "filters", size, x), 0)
    return y.reshape(filters, len(x), height, width).transpose(0, 1)
