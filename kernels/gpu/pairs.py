"""conv with horizontal stride 2 on a GPU, dense, for few channels (stems): one 32-bit word of a row gives two taps.

    y[o,p] = act(bias[o] + residual[o,p] + sum over k of W[o,k] x^[k,p])          epilogue.py; p = (n Ho + ho) Wo + wo

A row of even width is words of pixels (2w, 2w + 1). Output column wo meets word wo - ceil(left / 2) + j of a row as taps 2 j - left % 2 and
the one after it, so that neighbouring columns read neighbouring words. k = ((c R + u) J + j) 2 + half, J a power of two; what is no tap of
the kernel is zero in W and in x^.

    x, residual, y    Planes of one dtype, float16 or bfloat16; sums in float32, rounded once

Refused (UnsupportedError): what `supports` says no to. Heights, widths and windows are compiled in: each size is a kernel of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.conv import unpack
from cosparse.kernels.gpu.compiling import launch
from cosparse.kernels.gpu.dependent import await_previous, begins_early, launch_options, release
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import ROWS, Tile, finish

WIDEST = 8
"""Kernels of at most so many rows and columns."""

TILES = (
    Tile(64, 16, 4, 1), Tile(64, 32, 4, 1), Tile(128, 16, 4, 1), Tile(128, 32, 4, 1),
    Tile(256, 16, 4, 1), Tile(256, 32, 4, 1), Tile(256, 16, 8, 1),
)  # fmt: skip
"""What the planner chooses among, by measuring; `depth` is words. 256 pixels on four warps take the fewest instructions, and 255
registers for 64 filters."""

UNROLLED = 8
"""At most so many steps become straight code."""


@triton.jit
def words_of(x):
    """A pointer to a row as one to its words: pixel 2 w lies in the low half of word w, 2 w + 1 in the high half."""
    return x.to(tl.pointer_type(tl.int32), bitcast=True)


@triton.jit
def halves(word, dtype: tl.constexpr):
    """Both pixels of words, as `dtype`."""
    return word.to(tl.int16).to(dtype, bitcast=True), (word >> 16).to(tl.int16).to(dtype, bitcast=True)


@triton.jit
def _windows(x, p, count, height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
             stride_h: tl.constexpr, top: tl.constexpr, left: tl.constexpr):  # fmt: skip
    """Where the windows of output pixels `p` begin: the address of channel 0's word, its row, its column."""
    line = p // out_width
    row = tl.where(p < count, (line % out_height) * stride_h - top, -(2**20))  # behind the pixels: no row of any image
    column = p % out_width - (left + 1) // 2
    return words_of(x) + ((line // out_height) * height + row) * (width // 2) + column, row, column


@triton.jit
def _taps(window, at, k, x_stride, dtype: tl.constexpr, channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
          kernel_h: tl.constexpr, kernel_w: tl.constexpr, odd: tl.constexpr, across: tl.constexpr):  # fmt: skip
    """Both pixels of words at + k of the windows, [depth, windows] each."""
    lines: tl.constexpr = k.shape[0] // across
    line, j = at // across + k % lines, k // lines
    c, u = line // kernel_h, line % kernel_h
    row, column = window[1][None, :] + u[:, None], window[2][None, :] + j[:, None]
    inside = (row.to(tl.uint32, bitcast=True) < height) & (column.to(tl.uint32, bitcast=True) < width // 2)
    inside &= ((line < channels * kernel_h) & (2 * j < kernel_w + odd))[:, None]
    place = window[0][None, :] + (c.to(tl.int64) * (x_stride // 2))[:, None] + (u * (width // 2) + j)[:, None]
    # They are not neighbours. The hint has lanes lie along pixels; it makes no vectors, as words are aligned to 4 bytes and masked singly.
    word = tl.load(tl.multiple_of(tl.max_contiguous(place, (1, 32)), (4, 4)), mask=inside, other=0)
    keep = tl.where(2 * j >= odd, 0xFFFF, 0) | tl.where(2 * j + 1 - odd < kernel_w, -65536, 0)
    return halves(word & keep[:, None], dtype)


@triton.jit
def _step(acc, even, odds, w, at, m, k, x_stride, total: tl.constexpr, channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
          kernel_h: tl.constexpr, kernel_w: tl.constexpr, odd: tl.constexpr, across: tl.constexpr):  # fmt: skip
    """`acc` and the products of words at + k. A thread has two pixels beside each other: with one, Triton lays b out by pixels in shared
    memory, and every half is stored alone; so a word goes there whole."""
    dtype: tl.constexpr = w.dtype.element_ty
    low, high = _taps(even, at, k, x_stride, dtype, channels, height, width, kernel_h, kernel_w, odd, across)
    low_, high_ = _taps(odds, at, k, x_stride, dtype, channels, height, width, kernel_h, kernel_w, odd, across)
    four = tl.join(tl.join(low, low_), tl.join(high, high_))
    b = tl.reshape(tl.permute(four, (0, 3, 1, 2)), (2 * low.shape[0], 2 * low.shape[1]))
    a = tl.load(w + m[:, None] * total + (2 * at + tl.arange(0, 2 * k.shape[0]))[None, :])
    return tl.dot(a, b, acc)


@triton.jit
def gathered_pairs(x, w, bias, residual, y, x_stride, y_stride, r_stride, groups, filters, alpha, beta, count,
                   channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
                   kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
                   across: tl.constexpr, total: tl.constexpr, unrolled: tl.constexpr,
                   rows: tl.constexpr, pixels: tl.constexpr, depth: tl.constexpr,
                   has_bias: tl.constexpr, has_residual: tl.constexpr, act: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """Program (tile, group), the groups of a tile one after the other; `count` = N Ho Wo, w [groups rows, total], J = `across`."""
    release(early)
    await_previous(early)  # before the addresses: waiting with them takes registers
    group, tile = tl.program_id(0) % groups, tl.program_id(0) // groups
    odd: tl.constexpr = left % 2
    p = tile * pixels + 2 * tl.arange(0, pixels // 2)
    even = _windows(x, p, count, height, width, out_height, out_width, stride_h, top, left)
    odds = _windows(x, p + 1, count, height, width, out_height, out_width, stride_h, top, left)
    m, k = group * rows + tl.arange(0, rows), tl.arange(0, depth)
    acc = tl.zeros((rows, pixels), tl.float32)
    if unrolled:
        for at in tl.static_range(0, total // 2, depth):
            acc = _step(acc, even, odds, w, at, m, k, x_stride, total, channels, height, width, kernel_h, kernel_w, odd, across)
    else:
        for at in range(0, total // 2, depth):
            acc = _step(acc, even, odds, w, at, m, k, x_stride, total, channels, height, width, kernel_h, kernel_w, odd, across)
    p = tile * pixels + tl.arange(0, pixels)
    finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta, rows, has_bias, has_residual, act)


def supports(node: Node, width: int) -> bool:
    """Whether the layer can run so on images of this width."""
    if node.op != "conv" or node.attrs.get("groups", 1) != 1:
        return False
    kernel, stride, dilation = (tuple(node.attrs[key]) for key in ("kernel", "stride", "dilation"))
    return width % 2 == 0 and max(kernel) <= WIDEST and stride[1] == 2 and dilation == (1, 1)


class Pairs:
    """One layer on the device, ready to launch in any tile."""

    def __init__(self, node: Node, dtype: torch.dtype, device: torch.device | str, rows: int = 64) -> None:
        if not supports(node, 2) or rows not in ROWS:
            wanted = f"one channel group, kernels up to {WIDEST}, stride 2, dilation 1, groups of {', '.join(map(str, ROWS))} filters"
            raise UnsupportedError(f"node {node.name} ({node.op})", wanted, f"{dict(node.attrs)}, {rows} filters")
        self.name, self.rows, self.dtype, self.device = node.name, rows, dtype, device
        (self.stride_h, _), (self.top, self.left, *_) = node.attrs["stride"], node.attrs["pad"]
        self.early = begins_early(torch.device(device))
        taps = unpack(node)
        self.filters, self.channels, self.kernel_h, self.kernel_w = taps.shape
        self.groups = -(-self.filters // rows)
        self.across = triton.next_power_of_2((self.kernel_w - 1 + self.left % 2) // 2 + 1)
        self.lines = np.zeros((self.groups * rows, self.channels * self.kernel_h, 2 * self.across), np.float32)  # tap v at v + left % 2
        first = self.left % 2
        self.lines[: self.filters, :, first : first + self.kernel_w] = taps.reshape(self.filters, -1, self.kernel_w)
        self.weights: dict[int, torch.Tensor] = {}

    @property
    def bytes(self) -> int:
        return self.lines.size * (torch.finfo(self.dtype).bits // 8)

    def packed(self, depth: int) -> torch.Tensor:
        """The weights [groups rows, total] in steps of `depth` words: within a step by words of a row, then rows of taps, then halves."""
        if depth not in self.weights:
            high = depth // self.across
            lines = np.pad(self.lines, ((0, 0), (0, -self.lines.shape[1] % high), (0, 0)))
            steps = lines.reshape(len(lines), -1, high, self.across, 2).transpose(0, 1, 3, 2, 4).reshape(len(lines), -1)
            self.weights[depth] = torch.from_numpy(np.ascontiguousarray(steps)).to(device=self.device, dtype=self.dtype)
        return self.weights[depth]

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue, tile: Tile) -> None:
        """Launches on the current stream; a CUDA graph may be captured once the tile's depth has been launched before."""
        (_, _, height, width), (_, _, out_height, out_width) = x.shape, out.shape
        if width % 2:
            raise UnsupportedError(f"node {self.name} (conv)", "an even width", str(width))
        weights, bias, residual = self.packed(tile.depth), epilogue.bias, epilogue.residual
        given = (x.data, weights, out.data if bias is None else bias, out.data if residual is None else residual.data, out.data)
        strides = (x.stride, out.stride, residual.stride if residual else 0)
        sizes = (self.groups, self.filters, epilogue.alpha, epilogue.beta, out.pixels)
        total = weights.shape[1]
        fixed = (self.channels, height, width, out_height, out_width, self.kernel_h, self.kernel_w, self.stride_h, self.top, self.left)
        shared: dict[str, Any] = {
            "across": self.across, "total": total, "unrolled": total // 2 <= UNROLLED * tile.depth, "rows": self.rows,
            "pixels": tile.pixels, "depth": tile.depth, "has_bias": bias is not None, "has_residual": residual is not None,
            "act": ACTS[epilogue.act], "num_warps": tile.warps, "num_stages": tile.stages, **launch_options(self.early),
        }  # fmt: skip
        launch(gathered_pairs, (triton.cdiv(out.pixels, tile.pixels) * self.groups,), *given, *strides, *sizes, *fixed, **shared)
