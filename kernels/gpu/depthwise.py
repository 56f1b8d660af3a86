"""conv of several channel groups on a GPU, with what follows it: y[o,p] = act(bias[o] + residual[o,p] + z[o,p]).

    z[o,p] = sum over c,u,v of W[o,c,u,v] x[g C/G + c, p stride + (u,v) dilation - pad], g = o // (O/G), zeros outside the image

    x, residual, y  Planes of one dtype, float16 or bfloat16; sums in float32, rounded once
    W               [O, C/G, R, S]   float32: blocks expanded, transforms undone, `scale` included (kernels/conv.py `unpack`)

Any kernel, stride, dilation and pad. Meant for groups of a few channels (depthwise, ResNeXt): every number of y is a sum of its own,
without matrix instructions, so that wide groups run far below what the processor can do.

Refused: planes of another dtype (UnsupportedError); an input of another channel count (ShapeError).
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.conv import unpack
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue, activated
from cosparse.kernels.gpu.planes import DTYPES, Planes, stride_of
from cosparse.kernels.gpu.pointwise import Tiles, channels_of_tile, tile

UNROLLED = 49
"""Kernels of at most this many taps become straight code, so that their loads are in flight together."""


@triton.jit
def _with_tap(total, plane, w, top, left, height, wide, readable):
    """`total` and one tap of each output; `w` [block_c] points to the tap's weight in each filter."""
    seen = readable[:, None] & (top >= 0) & (top < height) & (left >= 0) & (left < wide)
    value = tl.load(plane + top * wide + left, mask=seen, other=0.0).to(tl.float32)
    return total + tl.load(w, mask=readable, other=0.0)[:, None] * value


@triton.jit
def grouped_kernel(
    x, weights, bias, residual, y, x_stride, residual_stride, y_stride, filters, pixels, height, wide, out_height, out_wide, width, across,
    per_group, filters_per_group, alpha, beta,
    kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr, pad_top: tl.constexpr, pad_left: tl.constexpr,
    act: tl.constexpr, has_bias: tl.constexpr, has_residual: tl.constexpr, unrolled: tl.constexpr,
    block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    o, p = tile(across, block_c, block_p)
    own = channels_of_tile(across, block_c)
    at = tl.minimum(p, pixels - 1)  # behind the pixels: any place that can be read
    row = at // out_wide
    top = (row % out_height) * stride_h - pad_top
    left = (at % out_wide) * stride_w - pad_left
    readable = own < filters
    first = (o // filters_per_group) * per_group
    image = x + (row // out_height) * (height * wide)
    total = tl.zeros((block_c, block_p), tl.float32)
    for c in range(per_group):
        plane = image + (first + c) * x_stride
        w = weights + (own * per_group + c) * (kernel_h * kernel_w)
        if unrolled:
            for u in tl.static_range(kernel_h):
                for v in tl.static_range(kernel_w):
                    down, over = top + u * dilation_h, left + v * dilation_w
                    total = _with_tap(total, plane, w + (u * kernel_w + v), down, over, height, wide, readable)
        else:
            for u in range(kernel_h):
                for v in range(kernel_w):
                    down, over = top + u * dilation_h, left + v * dilation_w
                    total = _with_tap(total, plane, w + (u * kernel_w + v), down, over, height, wide, readable)
    inside = (o < filters) & (p < width)
    if has_bias:
        total += tl.load(bias + own, mask=readable, other=0.0)[:, None]
    if has_residual:
        total += tl.load(residual + o * residual_stride + p, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + o * y_stride + p, activated(total, act, alpha, beta).to(y.dtype.element_ty), mask=inside)


class Depthwise:
    """A conv node with its weights on the device."""

    def __init__(self, node: Node, device: torch.device | str, dtype: torch.dtype) -> None:
        if dtype not in DTYPES.values():
            raise UnsupportedError(f"node {node.name} (conv)", "dtype one of " + ", ".join(DTYPES), str(dtype))
        self.node, self.dtype = node, dtype
        self.weights = torch.from_numpy(np.ascontiguousarray(unpack(node), np.float32)).to(device)

    @property
    def bytes(self) -> int:
        """Of the weights."""
        return self.weights.numel() * self.weights.element_size()

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue) -> None:
        """Writes `out`, whose shape is the node's output, on the current stream."""
        attrs, (filters, per_group, *kernel) = self.node.attrs, self.weights.shape
        if x.shape[1] != attrs["channels"]:
            raise ShapeError(f"node {self.node.name} (conv)", f"an input [N, {attrs['channels']}, H, W]", str(x.shape))
        if x.data.dtype != self.dtype:
            raise UnsupportedError(f"node {self.node.name} (conv)", f"planes of {self.dtype}, as it was made for", str(x.data.dtype))
        bias, residual, width = epilogue.bias, epilogue.residual, stride_of(out.shape)
        # Pointers that no code reads still need a tensor of the right dtype.
        pointers = (x.data, self.weights, self.weights if bias is None else bias, (residual or x).data, out.data)
        cut = Tiles.over(filters, width, 512)
        strides = (x.stride, (residual or x).stride, out.stride)
        sizes = (filters, out.pixels, *x.shape[2:], *out.shape[2:], width, cut.across, per_group, filters // attrs["groups"])
        fixed = (*kernel, *attrs["stride"], *attrs["dilation"], *attrs["pad"][:2], ACTS[epilogue.act], bias is not None)
        flags = (residual is not None, kernel[0] * kernel[1] <= UNROLLED)
        grouped_kernel[cut.grid](
            *pointers, *strides, *sizes, float(epilogue.alpha), float(epilogue.beta), *fixed, *flags, cut.channels, cut.pixels
        )
