"""conv, linear on a GPU: for every group of R filters a dense product with the rows that its columns gather.

    y[o,p] = act(bias[o] + residual[o,p] + sum over k in columns of o's group of S[o,k] x^[k,p])          groups.py, epilogue.py

    gathered rows     1x1 with stride 1 and without pads, and linear: x^[k] is row k of x, one contiguous run of pixels
    gathered taps     any kernel, stride, dilation, pad: x^[(c R + u) S + v, p] = x[c, p stride + (u,v) dilation - pad], 0 outside

    x, residual, y    Planes of one dtype, float16 or bfloat16; sums in float32, rounded once
    S                 [B, R], R one of 16, 32, 64, 128, rounded to the planes' dtype

Refused (UnsupportedError): more than one channel group (depthwise.py has them). Triton; `tl.dot` becomes matrix instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.compiling import launch
from cosparse.kernels.gpu.dependent import await_previous, begins_early, launch_options, release
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue, activated, larger
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes

ROWS = (16, 32, 64, 128)

MOST_SUMS = 64 * 256
"""A program's, in float32."""


@dataclass(frozen=True)
class Tile:
    """`pixels` x R sums a program, `depth` columns a step, `stages` steps of loads in flight; `ahead`: see gathered_rows."""

    pixels: int
    depth: int
    warps: int = 4
    stages: int = 3
    ahead: bool = False

    def __str__(self) -> str:
        return f"{self.pixels}px {self.depth}k {self.warps}w {self.stages}s{' ahead' if self.ahead else ''}"


TILES = (
    Tile(16, 64, 4, 5), Tile(16, 64, 4, 9), Tile(16, 256, 4, 3), Tile(64, 64, 4, 5), Tile(128, 16, 4, 5), Tile(128, 32, 4, 5),
    Tile(128, 64, 4, 3), Tile(16, 64, 4, 5, True), Tile(16, 64, 4, 9, True), Tile(16, 256, 4, 3, True), Tile(32, 128, 4, 3, True),
    Tile(32, 128, 4, 7, True), Tile(64, 32, 4, 5, True), Tile(64, 64, 4, 3, True), Tile(64, 128, 4, 3, True), Tile(128, 16, 4, 5, True),
    Tile(128, 64, 4, 3, True), Tile(128, 32, 8, 5), Tile(128, 64, 8, 3),
)  # fmt: skip
"""What the planner chooses among, by measuring: few pixels a program where the planes are small, so that all processors have work. Triton
gives the gathered loads every second stage, as the columns are loaded before them.

Of 35 tiles on an H200 and 295 layers at three batch sizes the 17 of four warps cost 0.3 % of a layer's time on average, 8 % of one's at
most. Those of eight are for groups of 128 filters: these read an input half as often as groups of 64; 256 pixels were no faster."""

TAP_TILES = (Tile(16, 64, 4, 3), Tile(32, 64, 4, 3), Tile(64, 32, 4, 3), Tile(128, 32, 4, 3))
"""The same for gathered taps, which hold an address for each number."""


def sums_fit(rows: int, tile: Tile) -> bool:
    """Whether a program's sums fit the registers of its warps, and are enough for them."""
    return rows * tile.pixels <= MOST_SUMS and (tile.warps == 4 or rows == ROWS[-1])


@triton.jit
def finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta,
            rows: tl.constexpr, has_bias: tl.constexpr, has_residual: tl.constexpr, act: tl.constexpr):  # fmt: skip # type: ignore[no-untyped-def]
    o = group * rows + tl.arange(0, rows)
    if has_bias:
        acc += tl.load(bias + o, mask=o < filters, other=0.0)[:, None]
    row = o.to(tl.int64)[:, None]
    inside = (o < filters)[:, None] & (p < y_stride)[None, :]
    if has_residual:
        acc += tl.load(residual + row * r_stride + p[None, :], mask=inside, other=0.0).to(tl.float32)
    acc = activated(acc, act, alpha, beta)
    tl.store(y + row * y_stride + p[None, :], acc.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _halved(acc, rows: tl.constexpr, pixels: tl.constexpr, width: tl.constexpr):
    """The largest of each 2 x 2 pixels of sums whose pixels are whole pairs of rows `width` wide."""
    squares = tl.reshape(acc, (rows, pixels // (2 * width), 2, width // 2, 2))
    return tl.reshape(tl.reduce(tl.reduce(squares, 4, larger), 2, larger), (rows, pixels // 4))


@triton.jit
def _begin(row, x_stride, split, gap, joined: tl.constexpr):
    """How far from x the rows begin."""
    at = row * x_stride
    if joined:
        at += tl.where(row < split, 0, gap)
    return at


@triton.jit
def _columns(columns, at, start, there, every: tl.constexpr):
    """Which columns a step takes, at `at` of the list of a group that begins at `start`."""
    c = at - start if every else tl.load(columns + at, mask=there, other=0)
    return c.to(tl.int64)


@triton.jit
def _place(backwards, groups):
    """Tile and group of this program; `backwards` not 0: the last pixels first."""
    at = tl.where(backwards != 0, tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(0))
    return at // groups, at % groups


@triton.jit(do_not_specialize=["backwards"])
def gathered_rows(x, w, columns, starts, bias, residual, y, x_stride, y_stride, r_stride, groups, filters, alpha, beta, split, gap,
                  backwards,
                  rows: tl.constexpr, pixels: tl.constexpr, depth: tl.constexpr, has_bias: tl.constexpr, has_residual: tl.constexpr,
                  act: tl.constexpr, early: tl.constexpr, ahead: tl.constexpr,
                  joined: tl.constexpr, every: tl.constexpr, pooled: tl.constexpr):  # fmt: skip # type: ignore[no-untyped-def]
    """Program (tile, group), the groups of a tile one after the other: they gather from the same pixels, which then lie in L2.

    `every`: each group has all columns in their order, so that none is looked up, and every stage is given to loads. `joined`: rows from
    `split` on are `gap` numbers further than x's stride says: another input's, of as many pixels (joined.py).
    `pooled`: 0, or how wide images are of which y has the largest of each 2 x 2 pixels; a tile is whole pairs of their rows, and there is
    no residual.
    `backwards`: 0, or another number for the last pixels first: what the kernel before wrote last is what L2 still holds.
    `early`: dependent.py. `ahead`: all that is known before that wait is loaded before it, the first step's columns and weights too; bias
    and residual are what the sums begin with. Of columns, rows, residual, each waited for after the other, the rows alone are left.
    """
    release(early)
    tile, group = _place(backwards, groups)
    begin, stop = tl.load(starts + group), tl.load(starts + group + 1)
    start = begin
    p = tile * pixels + tl.arange(0, pixels)
    m, k = tl.arange(0, rows), tl.arange(0, depth)
    o = group * rows + m
    acc = tl.zeros((rows, pixels), tl.float32)
    if ahead:
        there = start + k < stop
        first = _columns(columns, start + k, begin, there, every)
        weights = tl.load(w + (start + k)[None, :] * rows + m[:, None], mask=there[None, :], other=0.0)
        if has_bias:
            acc += tl.load(bias + o, mask=o < filters, other=0.0)[:, None]
    await_previous(early)
    if ahead:
        inside = there[:, None] & (p < x_stride)[None, :]
        taken = tl.load(x + _begin(first, x_stride, split, gap, joined)[:, None] + p[None, :], mask=inside, other=0.0)
        if has_residual:
            added = (o < filters)[:, None] & (p < y_stride)[None, :]
            acc += tl.load(residual + o.to(tl.int64)[:, None] * r_stride + p[None, :], mask=added, other=0.0).to(tl.float32)
        start += depth
    for at in range(start, stop, depth):
        inner = at + k < stop
        c = _columns(columns, at + k, begin, inner, every)
        a = tl.load(w + (at + k)[None, :] * rows + m[:, None], mask=inner[None, :], other=0.0)
        within = inner[:, None] & (p < x_stride)[None, :]
        b = tl.load(x + _begin(c, x_stride, split, gap, joined)[:, None] + p[None, :], mask=within, other=0.0)
        acc = tl.dot(a, b, acc)
    if ahead:
        acc = tl.dot(weights, taken, acc)
    if pooled:
        if has_bias and not ahead:
            acc += tl.load(bias + o, mask=o < filters, other=0.0)[:, None]
        acc = _halved(activated(acc, act, alpha, beta), rows, pixels, pooled)
        p = tile * (pixels // 4) + tl.arange(0, pixels // 4)
        finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta, rows, False, False, 0)
    elif ahead:
        finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta, rows, False, False, act)
    else:
        finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta, rows, has_bias, has_residual, act)


@triton.jit
def gathered_taps(x, w, columns, starts, bias, residual, y, x_stride, y_stride, r_stride, groups, filters, alpha, beta,
                  count, height, width, out_height, out_width,
                  kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
                  dilation_h: tl.constexpr, dilation_w: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
                  rows: tl.constexpr, pixels: tl.constexpr, depth: tl.constexpr,
                  has_bias: tl.constexpr, has_residual: tl.constexpr, act: tl.constexpr, early: tl.constexpr):  # fmt: skip # type: ignore[no-untyped-def]
    """The same with an address for each number: `count` = N Ho Wo output pixels."""
    release(early)
    group, tile = tl.program_id(0) % groups, tl.program_id(0) // groups
    start, stop = tl.load(starts + group), tl.load(starts + group + 1)
    await_previous(early)
    p = tile * pixels + tl.arange(0, pixels)
    line = p // out_width
    h, v0 = (line % out_height) * stride_h - top, (p % out_width) * stride_w - left
    image = (line // out_height) * height
    m, k = tl.arange(0, rows), tl.arange(0, depth)
    acc = tl.zeros((rows, pixels), tl.float32)
    for at in range(start, stop, depth):
        there = at + k < stop
        column = tl.load(columns + at + k, mask=there, other=0)
        c, tap = (column // (kernel_h * kernel_w)).to(tl.int64), column % (kernel_h * kernel_w)
        i = h[None, :] + (tap // kernel_w * dilation_h)[:, None]
        j = v0[None, :] + (tap % kernel_w * dilation_w)[:, None]
        inside = there[:, None] & (p < count)[None, :] & (i >= 0) & (i < height) & (j >= 0) & (j < width)
        a = tl.load(w + (at + k)[None, :] * rows + m[:, None], mask=there[None, :], other=0.0)
        b = tl.load(x + c[:, None] * x_stride + (image[None, :] + i) * width + j, mask=inside, other=0.0)
        acc = tl.dot(a, b, acc)
    finish(acc, group, p, bias, residual, y, y_stride, r_stride, filters, alpha, beta, rows, has_bias, has_residual, act)


WINDOW = ("kernel", "stride", "dilation", "pad")
POINT = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}


class Product:
    """One layer on the device, ready to launch in any tile."""

    def __init__(self, node: Node, groups: Groups, dtype: torch.dtype, device: torch.device | str, pointwise: bool = False) -> None:
        """`pointwise`: whatever the node's window, the rows of x are what its columns name: maps that were made before (maps.py)."""
        if node.attrs.get("groups", 1) != 1:
            raise UnsupportedError(f"node {node.name} ({node.op})", "one channel group", f"groups {node.attrs['groups']}")
        if groups.rows not in ROWS:
            raise UnsupportedError(f"node {node.name} ({node.op})", f"groups of {', '.join(map(str, ROWS))} filters", str(groups.rows))
        self.groups, self.rows, self.filters = len(groups), groups.rows, groups.filters
        self.window: Mapping[str, Any] = POINT if pointwise or node.op == "linear" else {key: tuple(node.attrs[key]) for key in WINDOW}
        self.whole_rows = all(tuple(self.window[key]) == POINT[key] for key in ("kernel", "stride", "pad"))
        self.weights = torch.from_numpy(groups.values).to(device=device, dtype=dtype)
        self.columns = torch.from_numpy(groups.columns).to(device)
        self.starts = torch.from_numpy(groups.starts.astype("int32")).to(device)
        self.every = _in_order(groups)
        self.early = begins_early(torch.device(device))

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.weights, self.columns, self.starts))

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue, tile: Tile, other: Planes | None = None, split: int = 0,
                 backwards: bool = False, pooled: bool = False) -> None:  # fmt: skip
        """Launches on the current stream. For whole rows only: `other` has the rows from `split` on; `backwards`, the last pixels first;
        `pooled`, `out` has the largest of each 2 x 2 pixels, of images whose height is even and of whose rows a tile is whole pairs."""
        bias, residual = epilogue.bias, epilogue.residual
        given = (x.data, self.weights, self.columns, self.starts, out.data if bias is None else bias)
        planes = (out.data if residual is None else residual.data, out.data, x.stride, out.stride, residual.stride if residual else 0)
        sizes = (self.groups, self.filters, epilogue.alpha, epilogue.beta)
        shared: dict[str, Any] = {
            "rows": self.rows, "pixels": tile.pixels, "depth": tile.depth, "act": ACTS[epilogue.act],
            "has_bias": bias is not None, "has_residual": residual is not None,
            "num_warps": tile.warps, "num_stages": tile.stages, **launch_options(self.early),
        }  # fmt: skip
        if pooled and (out.pixels * 4 != x.pixels or tile.pixels % (4 * out.shape[3]) or residual is not None or not self.whole_rows):
            expected = f"pairs of whole rows in tiles of {tile.pixels} pixels, without a residual"
            raise UnsupportedError("gathered product with a pool", expected, f"{x.shape} to {out.shape}", "pool in a launch of its own")
        grid = (triton.cdiv(x.pixels if pooled else out.pixels, tile.pixels) * self.groups,)
        if self.whole_rows:
            gap = 0 if other is None else (other.data.data_ptr() - x.data.data_ptr()) // x.data.element_size() - split * x.stride
            more = {"ahead": tile.ahead, "joined": other is not None, "every": self.every, "pooled": 2 * out.shape[3] * pooled}
            launch(gathered_rows, grid, *given, *planes, *sizes, split, gap, int(backwards), **more, **shared)
            return
        (n, _, h, w), (_, _, ho, wo) = x.shape, out.shape
        (kernel_h, kernel_w), (stride_h, stride_w) = self.window["kernel"], self.window["stride"]
        (dilation_h, dilation_w), (top, left) = self.window["dilation"], self.window["pad"][:2]
        window = (kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left)
        launch(gathered_taps, grid, *given, *planes, *sizes, n * ho * wo, h, w, ho, wo, *window, **shared)


def _in_order(groups: Groups) -> bool:
    """Whether the columns of each group are 0, 1, ... as many as all have."""
    most = int(groups.columns.max(initial=-1)) + 1
    whole = len(groups.columns) == len(groups) * most
    return whole and bool((groups.columns.reshape(len(groups), most) == np.arange(most)).all())
