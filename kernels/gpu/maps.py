"""The basis step on its own: the maps that some filter wants, as planes in device memory, for a gathered product to read (product.py).

    dct        maps[row(c,u,v), p] = sum over i,j of D[u,i] D[v,j] x[c, p stride + (i,j) dilation - pad], 3x3, 0 outside the image
               D = (1,1,1), (1,0,-1), (1,-2,1), whose scales are folded into the weights
    identity   maps[row(c,u,v), p] = x[c, p stride + (u,v) dilation - pad], any kernel: the taps themselves

    x      Planes [N, C, H, W]       float16 or bfloat16
    maps   Planes [N, M, Ho, Wo]     the same dtype; M of the C R S columns are wanted
    rows   [E, R S] int32            for each channel of which a map is wanted: the row of each of its maps, or -1; channels [E] int32

A map is at most 16 max |x|: beyond 4094 it may be infinite in float16. It is rounded after the horizontal and after the vertical half.

Where 64 filters or more share a mask, few of a channel's maps are wanted: 1.8 of 9 by one such group at a density of 0.2, 3.3 by two.
Writing those and reading them back through the product's wide loads costs less than making them in its shared memory (docs/gpu.md).

Rows of even width are read as 32-bit words, two pixels each. Refused (UnsupportedError): several channel groups, transformed channels or
filters, dct other than 3x3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.conv import weight_shape
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Product, Tile, begins_early

SCALES = np.outer([1 / 3, 1 / 2, 1 / 6], [1 / 3, 1 / 2, 1 / 6]).reshape(9).astype(np.float32) ** 0.5
"""What makes the maps of (1,1,1), (1,0,-1), (1,-2,1) orthonormal."""


@triton.jit
def _low(word, dtype: tl.constexpr):
    return (word & 0xFFFF).to(tl.int16).to(dtype, bitcast=True).to(tl.float32)


@triton.jit
def _high(word, dtype: tl.constexpr):
    return (word >> 16).to(tl.int16).to(dtype, bitcast=True).to(tl.float32)


@triton.jit
def _pair(low, high, dtype: tl.constexpr):
    first = low.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    return first | (high.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) << 16)


@triton.jit
def _dct(a, b, c, frequency: tl.constexpr):
    """Row `frequency` of the three-point DCT without its scale, which is folded into the weights."""
    if frequency == 0:
        y = a + c + b
    elif frequency == 1:
        y = a - c
    else:
        y = a + c - 2.0 * b
    return y


@triton.jit
def _dct_of_words(a, b, c, frequency: tl.constexpr, dtype: tl.constexpr):
    """The same of both halves of words at once, each operation rounded to the dtype."""
    half: tl.constexpr = "f16x2" if dtype == tl.float16 else "bf16x2"
    if frequency == 1:
        y = tl.inline_asm_elementwise("sub.rn." + half + " $0, $1, $2;", "=r,r,r", [a, c], dtype=tl.int32, is_pure=True, pack=1)
    else:
        ends = tl.inline_asm_elementwise("add.rn." + half + " $0, $1, $2;", "=r,r,r", [a, c], dtype=tl.int32, is_pure=True, pack=1)
        if frequency == 0:
            y = tl.inline_asm_elementwise("add.rn." + half + " $0, $1, $2;", "=r,r,r", [ends, b], dtype=tl.int32, is_pure=True, pack=1)
        else:  # 0xC000 is -2 in both types
            y = tl.inline_asm_elementwise(
                "{ .reg .b32 two; mov.b32 two, 0xC000C000; fma.rn." + half + " $0, $1, two, $2; }",
                "=r,r,r",
                [b, ends],
                dtype=tl.int32,
                is_pure=True,
                pack=1,
            )
    return y


@triton.jit
def _halves(a, b, which: tl.constexpr):
    """A word of one half of a and one of b, as PTX's prmt numbers their bytes."""
    return tl.inline_asm_elementwise("prmt.b32 $0, $1, $2, " + which + ";", "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def _words_of_row(a, b, c, v: tl.constexpr, stride: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr):
    """Horizontal frequency v of two output pixels from three words of input: as a word twice if `packed`, else as two float32."""
    if packed:
        if stride == 1:
            y = _dct_of_words(_halves(a, b, "0x5432"), b, _halves(b, c, "0x5432"), v, dtype)
        else:
            y = _dct_of_words(_halves(a, b, "0x7632"), _halves(b, c, "0x5410"), _halves(b, c, "0x7632"), v, dtype)
        z = y
    else:
        y = _dct(_high(a, dtype), _low(b, dtype), _high(b, dtype), v)
        if stride == 1:
            z = _dct(_low(b, dtype), _high(b, dtype), _low(c, dtype), v)
        else:
            z = _dct(_high(b, dtype), _low(c, dtype), _high(c, dtype), v)
    return y, z


@triton.jit
def _store_word(to, there, e0, e1, e2, o0, o1, o2, u: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr):
    """Vertical frequency u of three rows."""
    if packed:
        tl.store(to, _dct_of_words(e0, e1, e2, u, dtype), mask=there)
    else:
        tl.store(to, _pair(_dct(e0, e1, e2, u), _dct(o0, o1, o2, u), dtype), mask=there)


@triton.jit
def paired_maps(x, maps, channels, rows, x_words, map_words, words, height, row_words, out_height, out_words, across,
                stride: tl.constexpr, block: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """dct, padding and dilation 1, both strides 1 or both 2, even widths in and out: a lane makes the two pixels of output word p.

    Sizes in words: `row_words` of a row of the input, `out_words` of one of the output, `words` in all.
    """
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane = x + tl.load(channels + entry).to(tl.int64) * x_words
    if early:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    p = tile * block + tl.arange(0, block)
    there, line, w = p < words, p // out_words, p % out_words * stride
    h = line % out_height * stride
    at = plane + (line // out_height * height + h) * row_words + w
    left, right = there & (w > 0), there & (w + 1 < row_words)
    up, down = h > 0, h + 1 < height
    a0 = tl.load(at - row_words - 1, mask=left & up, other=0)
    b0 = tl.load(at - row_words, mask=there & up, other=0)
    c0 = tl.load(at - row_words + 1, mask=right & up, other=0)
    a1 = tl.load(at - 1, mask=left, other=0)
    b1 = tl.load(at, mask=there, other=0)
    c1 = tl.load(at + 1, mask=right, other=0)
    a2 = tl.load(at + row_words - 1, mask=left & down, other=0)
    b2 = tl.load(at + row_words, mask=there & down, other=0)
    c2 = tl.load(at + row_words + 1, mask=right & down, other=0)
    for v in tl.static_range(3):
        first, second, third = tl.load(rows + entry * 9 + v), tl.load(rows + entry * 9 + 3 + v), tl.load(rows + entry * 9 + 6 + v)
        if (first >= 0) | (second >= 0) | (third >= 0):
            e0, o0 = _words_of_row(a0, b0, c0, v, stride, dtype, packed)
            e1, o1 = _words_of_row(a1, b1, c1, v, stride, dtype, packed)
            e2, o2 = _words_of_row(a2, b2, c2, v, stride, dtype, packed)
            if first >= 0:
                _store_word(maps + first.to(tl.int64) * map_words + p, there, e0, e1, e2, o0, o1, o2, 0, dtype, packed)
            if second >= 0:
                _store_word(maps + second.to(tl.int64) * map_words + p, there, e0, e1, e2, o0, o1, o2, 1, dtype, packed)
            if third >= 0:
                _store_word(maps + third.to(tl.int64) * map_words + p, there, e0, e1, e2, o0, o1, o2, 2, dtype, packed)


@triton.jit
def _tap(plane, at, inside):
    return tl.load(plane + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def any_maps(x, maps, channels, rows, x_stride, map_stride, count, height, width, out_height, out_width, across,
             kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
             dilation_h: tl.constexpr, dilation_w: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
             dct: tl.constexpr, block: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """Any window, a number at a time; `count` output pixels."""
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane = x + tl.load(channels + entry).to(tl.int64) * x_stride
    if early:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    p = tile * block + tl.arange(0, block)
    there, line = p < count, p // out_width
    i, j = line % out_height * stride_h - top, p % out_width * stride_w - left
    at = (line // out_height * height + i) * width + j
    wanted = rows + entry * (kernel_h * kernel_w)
    if dct:
        for v in tl.static_range(3):
            first, second, third = tl.load(wanted + v), tl.load(wanted + 3 + v), tl.load(wanted + 6 + v)
            if (first >= 0) | (second >= 0) | (third >= 0):
                h0 = _row(plane, at, i, j, 0, there, height, width, dilation_h, dilation_w, v)
                h1 = _row(plane, at, i, j, 1, there, height, width, dilation_h, dilation_w, v)
                h2 = _row(plane, at, i, j, 2, there, height, width, dilation_h, dilation_w, v)
                if first >= 0:
                    y = _dct(h0, h1, h2, 0).to(maps.dtype.element_ty)
                    tl.store(maps + first.to(tl.int64) * map_stride + p, y, mask=there)
                if second >= 0:
                    y = _dct(h0, h1, h2, 1).to(maps.dtype.element_ty)
                    tl.store(maps + second.to(tl.int64) * map_stride + p, y, mask=there)
                if third >= 0:
                    y = _dct(h0, h1, h2, 2).to(maps.dtype.element_ty)
                    tl.store(maps + third.to(tl.int64) * map_stride + p, y, mask=there)
    else:
        for u in tl.static_range(kernel_h):
            for v in tl.static_range(kernel_w):
                row = tl.load(wanted + u * kernel_w + v)
                if row >= 0:
                    ii, jj = i + u * dilation_h, j + v * dilation_w
                    inside = there & (ii >= 0) & (ii < height) & (jj >= 0) & (jj < width)
                    y = tl.load(plane + at + u * dilation_h * width + v * dilation_w, mask=inside, other=0.0)
                    tl.store(maps + row.to(tl.int64) * map_stride + p, y, mask=there)


@triton.jit
def _row(plane, at, i, j, r: tl.constexpr, there, height, width, dilation_h: tl.constexpr, dilation_w: tl.constexpr, v: tl.constexpr):
    """Horizontal frequency `v` of row `r` of the taps."""
    line = there & (i + r * dilation_h >= 0) & (i + r * dilation_h < height)
    at += r * dilation_h * width
    a = _tap(plane, at, line & (j >= 0) & (j < width))
    b = _tap(plane, at + dilation_w, line & (j + dilation_w >= 0) & (j + dilation_w < width))
    c = _tap(plane, at + 2 * dilation_w, line & (j + 2 * dilation_w >= 0) & (j + 2 * dilation_w < width))
    return _dct(a, b, c, v)


def supports(node: Node) -> str:
    """Why the maps of a node cannot be made; empty if they can."""
    attrs = node.attrs
    if node.op != "conv" or attrs.get("groups", 1) != 1:
        return "no convolution of one channel group"
    if any(f"{axis}_tile" in attrs for axis in ("channels", "filters")):
        return "transformed channels or filters"
    if attrs["transform"] == "dct":
        return "" if list(attrs["kernel"]) == [3, 3] else "a DCT of other than 3x3 taps"
    return "" if attrs["transform"] == "identity" else f"transform {attrs['transform']}"


class Maps:
    """The maps of one layer, and the product that reads them; `groups` are of the coefficients as they are stored."""

    def __init__(self, node: Node, groups: Groups, dtype: torch.dtype, device: torch.device | str) -> None:
        if why := supports(node):
            raise UnsupportedError(f"node {node.name} ({node.op})", "a layer whose maps can be made", why)
        self.node, self.dct = node, node.attrs["transform"] == "dct"
        taps = int(np.prod(weight_shape(node)[2:]))
        used, columns = np.unique(groups.columns, return_inverse=True)
        channels, entry = np.unique(used // taps, return_inverse=True)
        rows = np.full((len(channels), taps), -1, np.int32)
        rows[entry, used % taps] = np.arange(len(used))
        self.channels, self.rows = (torch.from_numpy(array.astype(np.int32)).to(device) for array in (channels, rows))
        self.count = len(used)
        values = groups.values * SCALES[groups.columns % 9, None] if self.dct else groups.values
        compact = Groups(groups.rows, groups.filters, max(1, len(used)), groups.starts, columns.astype(np.int32), values)
        self.product = Product(node, compact, dtype, device, pointwise=True)
        self.early = begins_early(torch.device(device))
        # Two numbers an instruction: float16 since 5.3, bfloat16 since 9.0; the interpreter knows no assembly.
        self.packed = torch.device(device).type == "cuda" and (dtype == torch.float16 or self.early)

    @property
    def bytes(self) -> int:
        return self.product.bytes + 4 * (self.channels.numel() + self.rows.numel())

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue, tile: Tile) -> None:
        """Two launches on the current stream; the maps' memory is torch's, and free again afterwards."""
        n, _, ho, wo = out.shape
        maps = Planes.empty((n, max(1, self.count), ho, wo), x.data.dtype, x.data.device)
        if self.count:
            self.make(x, maps)
        self.product(maps, out, epilogue, tile)

    def make(self, x: Planes, maps: Planes) -> None:
        """The basis step."""
        attrs, (n, _, h, w), (_, _, ho, wo) = self.node.attrs, x.shape, maps.shape
        stride = attrs["stride"][0]
        near = list(attrs["stride"]) in ([1, 1], [2, 2]) and list(attrs["dilation"]) == [1, 1] and list(attrs["pad"][:2]) == [1, 1]
        # Equal widths at stride 1, half at stride 2: then the last tap of the last pixel lies in the word that the kernel takes it from.
        paired = self.dct and near and w == stride * wo and wo % 2 == 0
        numbers = n * ho * wo // (2 if paired else 1)
        block = min(512, max(32, triton.next_power_of_2(numbers)))
        across = triton.cdiv(numbers, block)
        options: dict[str, Any] = {"num_warps": max(1, block // 128)}
        if self.early:
            options["launch_pdl"] = True
        grid, lists = (len(self.channels) * across,), (self.channels, self.rows)
        if paired:
            dtype = tl.float16 if x.data.dtype == torch.float16 else tl.bfloat16
            words = (x.data.view(torch.int32), maps.data.view(torch.int32))
            sizes = (x.stride // 2, maps.stride // 2, numbers, h, w // 2, ho, wo // 2, across)
            paired_maps[grid](*words, *lists, *sizes, stride, block, dtype, self.packed, self.early, **options)
            return
        window = (*attrs["kernel"], *attrs["stride"], *attrs["dilation"], *attrs["pad"][:2])
        sizes = (x.stride, maps.stride, numbers, h, w, ho, wo, across)
        any_maps[grid](x.data, maps.data, *lists, *sizes, *window, self.dct, block, self.early, **options)
