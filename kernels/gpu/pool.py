"""max_pool, avg_pool, adaptive_avg_pool, adaptive_max_pool, mean, sum, amax on a GPU; formulas and windows as in kernels/pool.py.

    x, y  Planes of one dtype, float16 or bfloat16; sums in float32, rounded once; NaN in a window is NaN in y

One number for each window (taps unrolled where they are few) or each cell. Windows of few taps with horizontal stride 2 over rows of even
width read 32-bit words of two pixels (pairs.py), with heights and widths compiled in. A whole plane becomes one number (global averages,
adaptive pools to 1 x 1) by a program that reads words of `rows` images' planes at a time. `mean` over other axes than (2, 3) is rare and
left to torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.compiling import launch
from cosparse.kernels.gpu.dependent import await_previous, begins_early, launch_options, release
from cosparse.kernels.gpu.epilogue import larger
from cosparse.kernels.gpu.pairs import halves, words_of
from cosparse.kernels.gpu.planes import Planes, stride_of
from cosparse.kernels.gpu.pointwise import Launch, Tiles, tile

UNROLLED = 25
"""Windows of at most this many taps become straight code, so that their loads are in flight together."""

FULL = 2**20
"""Outputs from which on programs of 1024 keep all processors busy."""


@triton.jit
def _with_tap(total, plane, top, left, height, wide, readable, largest: tl.constexpr):
    """`total` and one more pixel of each window; outside the image lies what changes nothing."""
    seen = readable & (top >= 0) & (top < height) & (left >= 0) & (left < wide)
    value = tl.load(plane + top * wide + left, mask=seen, other=0.0).to(tl.float32)
    if largest:
        total = larger(total, tl.where(seen, value, float("-inf")))
    else:
        total += value
    return total


@triton.jit
def _overlap(start, stop, first, last):
    """How many of start .. stop lie in first .. last."""
    return tl.maximum(tl.minimum(stop, last) - tl.maximum(start, first), 0)


@triton.jit
def _cells(
    top, left, height, wide, divisor, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    pad_top: tl.constexpr, pad_left: tl.constexpr, pad_bottom: tl.constexpr, pad_right: tl.constexpr, count: tl.constexpr,
):  # fmt: skip
    """What an average's sum is divided by; `count` 0: `divisor`, 1: the window's pixels in the image, 2: padding counted."""
    if count == 0:
        cells = divisor
    elif count == 1:
        cells = tl.maximum(_overlap(top, top + kernel_h, 0, height) * _overlap(left, left + kernel_w, 0, wide), 1)
    else:
        rows = _overlap(top, top + kernel_h, -pad_top, height + pad_bottom)
        cells = tl.maximum(rows * _overlap(left, left + kernel_w, -pad_left, wide + pad_right), 1)
    return cells


@triton.jit
def window_kernel(
    x, y, x_stride, y_stride, channels, pixels, height, wide, out_height, out_wide, width, across, divisor,
    kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    pad_top: tl.constexpr, pad_left: tl.constexpr, pad_bottom: tl.constexpr, pad_right: tl.constexpr,
    largest: tl.constexpr, count: tl.constexpr, unrolled: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """max_pool (`largest`) and avg_pool."""
    release(early)
    c, p = tile(across, block_c, block_p)
    await_previous(early)
    at = tl.minimum(p, pixels - 1)
    row = at // out_wide
    top = (row % out_height) * stride_h - pad_top
    left = (at % out_wide) * stride_w - pad_left
    plane = x + c * x_stride + (row // out_height) * (height * wide)
    total = tl.full((block_c, block_p), float("-inf") if largest else 0.0, tl.float32)
    if unrolled:
        for u in tl.static_range(kernel_h):
            for v in tl.static_range(kernel_w):
                total = _with_tap(total, plane, top + u * dilation_h, left + v * dilation_w, height, wide, c < channels, largest)
    else:
        for u in range(kernel_h):
            for v in range(kernel_w):
                total = _with_tap(total, plane, top + u * dilation_h, left + v * dilation_w, height, wide, c < channels, largest)
    if not largest:
        total = total / _cells(top, left, height, wide, divisor, kernel_h, kernel_w, pad_top, pad_left, pad_bottom, pad_right, count)
    tl.store(y + c * y_stride + p, total.to(y.dtype.element_ty), mask=(c < channels) & (p < width))


@triton.jit
def pair_window_kernel(
    x, y, x_stride, y_stride, channels, pixels, width, across, divisor,
    height: tl.constexpr, wide: tl.constexpr, out_height: tl.constexpr, out_wide: tl.constexpr,
    kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, dilation_h: tl.constexpr,
    pad_top: tl.constexpr, pad_left: tl.constexpr, pad_bottom: tl.constexpr, pad_right: tl.constexpr,
    largest: tl.constexpr, count: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """The same for horizontal stride 2 and even `wide`, by words: word j of a window has the taps 2 j - pad_left % 2 and the next."""
    release(early)
    c, p = tile(across, block_c, block_p)
    await_previous(early)
    at = tl.minimum(p, pixels - 1)
    row, column = at // out_wide, at % out_wide
    top, first = (row % out_height) * stride_h - pad_top, column - (pad_left + 1) // 2
    words = words_of(x) + c * (x_stride // 2) + ((row // out_height) * height + top) * (wide // 2) + first
    # Outside the image: minus infinity twice, 0xFC00 in float16 and 0xFF80 in bfloat16, or zeros.
    outside: tl.constexpr = (-0x03FF0400 if x.dtype.element_ty == tl.float16 else -0x007F0080) if largest else 0
    total = tl.full((block_c, block_p), float("-inf") if largest else 0.0, tl.float32)
    for u in tl.static_range(kernel_h):
        for j in tl.static_range((kernel_w - 1 + pad_left % 2) // 2 + 1):
            inside = ((top + u * dilation_h).to(tl.uint32, bitcast=True) < height) & ((first + j).to(tl.uint32, bitcast=True) < wide // 2)
            inside &= c < channels
            low, high = halves(tl.load(words + u * dilation_h * (wide // 2) + j, mask=inside, other=outside), x.dtype.element_ty)
            low, high = low.to(tl.float32), high.to(tl.float32)
            if 2 * j >= pad_left % 2:
                total = larger(total, low) if largest else total + low
            if 2 * j + 1 - pad_left % 2 < kernel_w:
                total = larger(total, high) if largest else total + high
    if not largest:
        left = 2 * column - pad_left
        total = total / _cells(top, left, height, wide, divisor, kernel_h, kernel_w, pad_top, pad_left, pad_bottom, pad_right, count)
    tl.store(y + c * y_stride + p, total.to(y.dtype.element_ty), mask=(c < channels) & (p < width))


@triton.jit
def cell_kernel(
    x, y, x_stride, y_stride, channels, pixels, height, wide, out_height, out_wide, width, across, most_h, most_w,
    largest: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """Adaptive pools: the cell from floor(i H / n) to ceil((i + 1) H / n) along each axis, at most `most_h` x `most_w` pixels."""
    release(early)
    c, p = tile(across, block_c, block_p)
    await_previous(early)
    at = tl.minimum(p, pixels - 1)
    row, j = at // out_wide, at % out_wide
    i = row % out_height
    top, left = i * height // out_height, j * wide // out_wide
    bottom, right = ((i + 1) * height + out_height - 1) // out_height, ((j + 1) * wide + out_wide - 1) // out_wide
    plane = x + c * x_stride + (row // out_height) * (height * wide)
    total = tl.full((block_c, block_p), float("-inf") if largest else 0.0, tl.float32)
    for u in range(most_h):
        for v in range(most_w):
            here = (c < channels) & (top + u < bottom) & (left + v < right)
            total = _with_tap(total, plane, top + u, left + v, height, wide, here, largest)
    if not largest:
        total = total / ((bottom - top) * (right - left))
    tl.store(y + c * y_stride + p, total.to(y.dtype.element_ty), mask=(c < channels) & (p < width))


@triton.jit
def _piled(total, base, t, row_inside, odd, size, dtype: tl.constexpr, largest: tl.constexpr):
    """`total` and words `t` of each plane, which begins `odd` (0 or 1) pixels behind its word 0."""
    last = size + odd[:, None]
    inside = row_inside[:, None] & (2 * t[None, :] < last)
    low, high = halves(tl.load(base[:, None] + t[None, :], mask=inside, other=0), dtype)
    own_low, own_high = inside & (2 * t[None, :] >= odd[:, None]), inside & (2 * t[None, :] + 1 < last)
    nothing = float("-inf") if largest else 0.0
    low, high = tl.where(own_low, low.to(tl.float32), nothing), tl.where(own_high, high.to(tl.float32), nothing)
    if largest:
        total = larger(total, larger(low, high))
    else:
        total += low + high
    return total


@triton.jit
def plane_kernel(x, y, x_stride, y_stride, planes, batch, size, largest: tl.constexpr, rows: tl.constexpr, block: tl.constexpr,
                 early: tl.constexpr):  # fmt: skip
    """y[c, n] = the mean or the largest of the `size` pixels of plane (c, n), `rows` planes a program, 4 `block` words a step."""
    release(early)
    r = tl.program_id(0) * rows + tl.arange(0, rows)
    await_previous(early)
    c, start = (r // batch).to(tl.int64), (r % batch) * size
    odd, base = start % 2, words_of(x) + c * (x_stride // 2) + start // 2
    seen = tl.full((rows, block), float("-inf") if largest else 0.0, tl.float32)
    for first in range(0, size + 1, 8 * block):
        for i in tl.static_range(4):
            t = first // 2 + i * block + tl.arange(0, block)
            seen = _piled(seen, base, t, r < planes, odd, size, x.dtype.element_ty, largest)
    result = tl.reduce(seen, 1, larger) if largest else tl.sum(seen, 1) / size
    tl.store(y + c * y_stride + r % batch, result.to(y.dtype.element_ty), mask=r < planes)


def _window(node: Node, x: Planes, out: Planes, dilation: Sequence[int], largest: bool, count: int, divisor: int) -> None:
    attrs, width, options = node.attrs, stride_of(out.shape), launch_options(begins_early(out.data.device))
    kernel, (stride_h, stride_w), (dilation_h, dilation_w) = attrs["kernel"], attrs["stride"], dilation
    sides = (*x.shape[2:], *out.shape[2:])
    unrolled = kernel[0] * kernel[1] <= UNROLLED
    if unrolled and stride_w == 2 and dilation_w == 1 and x.shape[3] % 2 == 0:
        cut = Tiles.over(out.shape[1], width, 1024 if out.shape[1] * width >= FULL else 256)
        numbers = (x.stride, out.stride, out.shape[1], out.pixels, width, cut.across, divisor)
        fixed = (*sides, *kernel, stride_h, dilation_h, *attrs["pad"], largest, count)
        launch(pair_window_kernel, cut.grid, x.data, out.data, *numbers, *fixed, cut.channels, cut.pixels, **options)
        return
    cut = Tiles.over(out.shape[1], width, 512)
    sizes = (x.stride, out.stride, out.shape[1], out.pixels, *sides, width, cut.across, divisor)
    fixed = (*kernel, stride_h, stride_w, *dilation, *attrs["pad"], largest, count, unrolled)
    launch(window_kernel, cut.grid, x.data, out.data, *sizes, *fixed, cut.channels, cut.pixels, **options)


def is_halving(node: Node) -> bool:
    """Whether it is a 2x2 max pool with stride 2 and no padding: of images with even sides every pixel is in one window."""
    attrs = node.attrs
    window = [*attrs["kernel"], *attrs["stride"], *attrs["pad"], *attrs["dilation"]] if node.op == "max_pool" else []
    return window == [2, 2, 2, 2, 0, 0, 0, 0, 1, 1]


def max_pool(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    _window(node, inputs[0], out, node.attrs["dilation"], largest=True, count=0, divisor=1)


def avg_pool(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    divisor = node.attrs["divisor"]
    _window(node, inputs[0], out, (1, 1), largest=False, count=0 if divisor else 1 + node.attrs["count_pad"], divisor=divisor)


def whole_planes(x: Planes, out: Planes, largest: bool) -> None:
    """out [N, C, 1, 1] = the mean or the largest of each plane of x."""
    (n, c, h, w), options = x.shape, launch_options(begins_early(out.data.device))
    block = min(max(8, triton.next_power_of_2(h * w // 2 + 1) // 4), 256)  # a step of four blocks reads planes of up to 2046 pixels whole
    rows = max(1, min(512 // block, triton.next_power_of_2(n * c // 256 + 1)), 128 // block)
    plane_kernel[(triton.cdiv(n * c, rows),)](x.data, out.data, x.stride, out.stride, n * c, n, h * w, largest, rows, block, **options)


def _adaptive(largest: bool) -> Launch:
    def adaptive(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
        (x,), width = inputs, stride_of(out.shape)
        if out.shape[2:] == (1, 1):
            whole_planes(x, out, largest)
            return
        cut, options = Tiles.over(out.shape[1], width, 512), launch_options(begins_early(out.data.device))
        # A cell that starts inside a pixel and ends inside another is one pixel larger than ceil(H / n).
        most = [-(-size // cells) + (size % cells > 0) for size, cells in zip(x.shape[2:], out.shape[2:], strict=True)]
        sizes = (x.stride, out.stride, out.shape[1], out.pixels, *x.shape[2:], *out.shape[2:], width, cut.across, *most)
        cell_kernel[cut.grid](x.data, out.data, *sizes, largest, cut.channels, cut.pixels, **options)

    return adaptive


def mean(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    (x,), axes = inputs, tuple(node.attrs["axes"])
    if axes == (2, 3):
        whole_planes(x, out, largest=False)
    else:
        out.nchw.copy_(torch.mean(x.nchw, axes, keepdim=True, dtype=torch.float32))


def sum_(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(torch.sum(inputs[0].nchw, tuple(node.attrs["axes"]), keepdim=True, dtype=torch.float32))


def amax(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(torch.amax(inputs[0].nchw, tuple(node.attrs["axes"]), keepdim=True))


LAUNCHES: dict[str, Launch] = {
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": _adaptive(largest=False),
    "adaptive_max_pool": _adaptive(largest=True),
    "mean": mean,
    "sum": sum_,
    "amax": amax,
}
