"""upsample on a GPU, nearest and bilinear: y[c, n, i, j] is read at position (i q, j q) of x's plane, as in kernels/resample.py.

    x, y  Planes of one dtype, float16 or bfloat16; y's height and width are `size`, floor(H factor) or those of the second input

The nearest pixel is the floor of a product in single precision, as in PyTorch; so is a bilinear position, whose error (2^-24 of itself)
lies below what float16 and bfloat16 resolve up to thousands of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl

from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.planes import Planes, stride_of
from cosparse.kernels.gpu.pointwise import Launch, Tiles, tile


@triton.jit
def _neighbours(i, ratio, size, corners: tl.constexpr):
    """The two pixels between which output pixel i lies, and the share of the second."""
    position = i.to(tl.float32) * ratio
    if not corners:
        # (i + 1/2) q - 1/2; corner pixels lie outside all centres.
        position = tl.maximum(position + (0.5 * ratio - 0.5), 0.0)
    low = tl.minimum(position.to(tl.int32), size - 1)
    share = tl.minimum(tl.maximum(position - low.to(tl.float32), 0.0), 1.0)
    return low, tl.minimum(low + 1, size - 1), share


@triton.jit
def upsample_kernel(
    x, y, x_stride, y_stride, channels, pixels, height, wide, out_height, out_wide, width, across, ratio_h, ratio_w,
    bilinear: tl.constexpr, corners: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    c, p = tile(across, block_c, block_p)
    at = tl.minimum(p, pixels - 1)  # behind the pixels: any place that can be read
    row, j = at // out_wide, at % out_wide
    i = row % out_height
    plane = x + c * x_stride + (row // out_height) * (height * wide)
    inside = (c < channels) & (p < width)
    if bilinear:
        top, bottom, down = _neighbours(i, ratio_h, height, corners)
        left, right, over = _neighbours(j, ratio_w, wide, corners)
        upper = tl.load(plane + top * wide + left, mask=inside, other=0.0).to(tl.float32) * (1.0 - over)
        upper += tl.load(plane + top * wide + right, mask=inside, other=0.0).to(tl.float32) * over
        lower = tl.load(plane + bottom * wide + left, mask=inside, other=0.0).to(tl.float32) * (1.0 - over)
        lower += tl.load(plane + bottom * wide + right, mask=inside, other=0.0).to(tl.float32) * over
        value = upper * (1.0 - down) + lower * down
    else:
        top = tl.minimum((i.to(tl.float32) * ratio_h).to(tl.int32), height - 1)
        left = tl.minimum((j.to(tl.float32) * ratio_w).to(tl.int32), wide - 1)
        value = tl.load(plane + top * wide + left, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + c * y_stride + p, value.to(y.dtype.element_ty), mask=inside)


def _ratio(size: int, target: int, factor: float, bilinear: bool, corners: bool) -> float:
    """Pixels of x from one pixel of y to the next, in single precision; `factor` 0: none was given."""
    if size == target:
        return 1.0
    if corners:
        return float(np.float32((size - 1) / (target - 1) if target > 1 else 0.0))
    if target == 2 * size and not bilinear:
        return 0.5
    return float(np.float32(1 / factor) if factor else np.float32(size) / np.float32(target))


def upsample(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    attrs, x, width = node.attrs, inputs[0], stride_of(out.shape)
    bilinear, corners = attrs["mode"] == "bilinear", bool(attrs["align_corners"])
    factor = (0, 0) if len(inputs) > 1 or any(attrs["size"]) else attrs["factor"]
    ratios = [_ratio(x.shape[2 + k], out.shape[2 + k], factor[k], bilinear, corners) for k in (0, 1)]
    cut = Tiles.over(out.shape[1], width)
    sizes = (x.stride, out.stride, out.shape[1], out.pixels, *x.shape[2:], *out.shape[2:], width, cut.across)
    upsample_kernel[cut.grid](x.data, out.data, *sizes, *ratios, bilinear, corners, cut.channels, cut.pixels)


LAUNCHES: dict[str, Launch] = {"upsample": upsample}
