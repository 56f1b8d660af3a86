"""The kernels that make maps (maps.py): what a lane loads, adds and stores. Two pixels lie in a 32-bit word, the first in its low half.

    strip_maps     3x3, even width: a lane makes `high` rows of one word, and loads each row of its strip once
    flat_maps      3x3, odd width, stride 1: words run across the ends of rows, and masks cut off what lies beyond
    halved_maps    3x3, stride 2 from an even width to any
    halved_points  1x1, stride 2, even width: every second pixel
    any_maps       any window, a number at a time

`dct`: maps are sums of taps by the rows of the three-point DCT; otherwise the taps themselves.

Program (entry, tile): entry names a channel and the rows that its wanted maps go to; `rows` [E, R S] has -1 for the others. Heights and
widths are compiled in, so that addresses differ by constants and divisions are multiplications: each size of image is a kernel of its own.
"""

# Tuples that grow while a loop unrolls have another type at each turn, which mypy cannot follow.
# mypy: disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl

from cosparse.kernels.gpu.dependent import await_previous, release


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
def _straddling(a, b):
    """The high half of a, then the low half of b."""
    return ((a >> 16) & 0xFFFF) | (b << 16)


@triton.jit
def _lows(a, b):
    return (a & 0xFFFF) | (b << 16)


@triton.jit
def _highs(a, b):
    return ((a >> 16) & 0xFFFF) | (b & -65536)


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
def _across(a, b, c, v: tl.constexpr, dct: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr):
    """Horizontal frequency v of the two pixels whose taps are the halves of a, b, c: as a word twice if `packed`, else as two float32.
    Without `dct` the word of tap v, twice."""
    if not dct:
        y = a if v == 0 else b if v == 1 else c
        z = y
    elif packed:
        y = _dct_of_words(a, b, c, v, dtype)
        z = y
    else:
        y = _dct(_low(a, dtype), _low(b, dtype), _low(c, dtype), v)
        z = _dct(_high(a, dtype), _high(b, dtype), _high(c, dtype), v)
    return y, z


@triton.jit
def _store_word(to, there, lines, i: tl.constexpr, u: tl.constexpr, dct: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr):
    """Vertical frequency u of three rows of `_across` from line i on, or row u of them."""
    up, middle, down = lines[i], lines[i + 1], lines[i + 2]
    if not dct:
        word = up[0] if u == 0 else middle[0] if u == 1 else down[0]
    elif packed:
        word = _dct_of_words(up[0], middle[0], down[0], u, dtype)
    else:
        word = _pair(_dct(up[0], middle[0], down[0], u), _dct(up[1], middle[1], down[1], u), dtype)
    tl.store(to, word, mask=there)


@triton.jit
def _store_maps(maps, wanted, p, there, a, b, c, map_words, stride: tl.constexpr, high: tl.constexpr, down: tl.constexpr,
                dct: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr):  # fmt: skip
    """The maps of `high` words, `down` words from one to the next, whose taps are the rows of a, b, c: `stride` rows further on for each.
    `wanted`: the nine maps' rows, or -1."""
    count: tl.constexpr = stride * (high - 1) + 3
    for v in tl.static_range(3):
        first, second, third = wanted[v], wanted[3 + v], wanted[6 + v]
        if (first >= 0) | (second >= 0) | (third >= 0):
            lines = ()
            for i in tl.static_range(count):
                lines = lines + (_across(a[i], b[i], c[i], v, dct, dtype, packed),)
            if first >= 0:
                to = maps + first.to(tl.int64) * map_words + p
                for r in tl.static_range(high):
                    _store_word(to + r * down, there, lines, stride * r, 0, dct, dtype, packed)
            if second >= 0:
                to = maps + second.to(tl.int64) * map_words + p
                for r in tl.static_range(high):
                    _store_word(to + r * down, there, lines, stride * r, 1, dct, dtype, packed)
            if third >= 0:
                to = maps + third.to(tl.int64) * map_words + p
                for r in tl.static_range(high):
                    _store_word(to + r * down, there, lines, stride * r, 2, dct, dtype, packed)


@triton.jit
def _wanted_rows(rows, entry):
    """Where the nine maps of an entry go."""
    found = ()
    for i in tl.static_range(9):
        found = found + (tl.load(rows + entry * 9 + i),)
    return found


@triton.jit
def strip_maps(x, maps, channels, rows, x_words, map_words, strips, across,
               height: tl.constexpr, row_words: tl.constexpr, stride: tl.constexpr, high: tl.constexpr,
               block: tl.constexpr, dct: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """Padding and dilation 1; height and width multiples of the stride, and the output's height of `high`."""
    release(early)
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane, wanted = x + tl.load(channels + entry).to(tl.int64) * x_words, _wanted_rows(rows, entry)
    await_previous(early)
    s = tile * block + tl.arange(0, block)
    there = s < strips
    out_height: tl.constexpr = height // stride
    out_words: tl.constexpr = row_words // stride
    line, w = s // out_words * high, s % out_words
    h = line % out_height
    at = plane + (line // out_height * height + h * stride) * row_words + w * stride
    left, right = there & (w > 0), there & (w * stride + 1 < row_words)
    up, down = h > 0, h + high < out_height
    a, b, c = (), (), ()
    for i in tl.static_range(stride * (high - 1) + 3):
        here, before, behind = there, left, right
        if i == 0:
            here, before, behind = here & up, before & up, behind & up
        if i == stride * high + 1:
            here, before, behind = here & down, before & down, behind & down
        first = tl.load(at + ((i - 1) * row_words - 1), mask=before, other=0)
        second = tl.load(at + (i - 1) * row_words, mask=here, other=0)
        third = tl.load(at + ((i - 1) * row_words + 1), mask=behind, other=0)
        if stride == 1:
            a, b, c = a + (_straddling(first, second),), b + (second,), c + (_straddling(second, third),)
        else:
            a, b, c = a + (_highs(first, second),), b + (_lows(second, third),), c + (_highs(second, third),)
    _store_maps(maps, wanted, line * out_words + w, there, a, b, c, map_words, stride, high, out_words, dct, dtype, packed)


@triton.jit
def _masks(x, y, width: tl.constexpr, height: tl.constexpr, half: tl.constexpr):
    """Words with ones in one half where a pixel has a neighbour: left, right, above, below."""
    ones: tl.constexpr = 0xFFFF if half == 0 else -65536
    left, right = tl.where(x > 0, ones, 0), tl.where(x < width - 1, ones, 0)
    return left, right, tl.where(y > 0, ones, 0), tl.where(y < height - 1, ones, 0)


@triton.jit
def flat_maps(x, maps, channels, rows, x_words, map_words, words, across,
              height: tl.constexpr, width: tl.constexpr, block: tl.constexpr, dct: tl.constexpr, dtype: tl.constexpr,
              packed: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """Padding, stride and dilation 1. The row above begins an odd number of pixels earlier: two words have its taps, three its own."""
    release(early)
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane, wanted = x + tl.load(channels + entry).to(tl.int64) * x_words, _wanted_rows(rows, entry)
    await_previous(early)
    p = tile * block + tl.arange(0, block)
    there = p < words
    first = 2 * p
    x0, y0 = first % width, first // width % height
    end = x0 == width - 1
    x1 = tl.where(end, 0, x0 + 1)
    y1 = tl.where(end, tl.where(y0 == height - 1, 0, y0 + 1), y0)
    left, right, above, below = _masks(x0, y0, width, height, 0)
    left_, right_, above_, below_ = _masks(x1, y1, width, height, 1)
    left, right, above, below = left | left_, right | right_, above | above_, below | below_
    a, b, c = (), (), ()
    for i in tl.static_range(3):
        q = p + (((i - 1) * width - 1) // 2 if i != 1 else -1)
        one = tl.load(plane + q, mask=there & (q >= 0) & (q < x_words), other=0)
        two = tl.load(plane + q + 1, mask=there & (q + 1 >= 0) & (q + 1 < x_words), other=0)
        if i == 1:
            three = tl.load(plane + q + 2, mask=there & (q + 2 < x_words), other=0)
            west, middle, east = _straddling(one, two), two, _straddling(two, three)
        else:
            rows_there = above if i == 0 else below
            west, middle, east = one & rows_there, _straddling(one, two) & rows_there, two & rows_there
        a, b, c = a + (west & left,), b + (middle,), c + (east & right,)
    _store_maps(maps, wanted, p, there, a, b, c, map_words, 1, 1, 0, dct, dtype, packed)


@triton.jit
def _doubled(p, height: tl.constexpr, row_words: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr):
    """Of output pixels p at stride 2: the input's word in which each begins, its column, its row."""
    line, column = p // out_width, p % out_width
    row = line % out_height
    return (line // out_height * height + 2 * row) * row_words + column, column, row


@triton.jit
def halved_maps(x, maps, channels, rows, x_words, map_words, words, across, count,
                height: tl.constexpr, row_words: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
                block: tl.constexpr, dct: tl.constexpr, dtype: tl.constexpr, packed: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """Padding and dilation 1, stride 2, from even widths; `count` output pixels."""
    release(early)
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane, wanted = x + tl.load(channels + entry).to(tl.int64) * x_words, _wanted_rows(rows, entry)
    await_previous(early)
    p = tile * block + tl.arange(0, block)
    at, column, row = _doubled(2 * p, height, row_words, out_height, out_width)
    at_, column_, row_ = _doubled(2 * p + 1, height, row_words, out_height, out_width)
    there, there_ = 2 * p < count, 2 * p + 1 < count
    a, b, c = (), (), ()
    for i in tl.static_range(3):
        inside, inside_ = there, there_
        if i == 0:
            inside, inside_ = inside & (row > 0), inside_ & (row_ > 0)
        if i == 2:
            inside, inside_ = inside & (2 * row + 1 < height), inside_ & (2 * row_ + 1 < height)
        before = tl.load(plane + at + ((i - 1) * row_words - 1), mask=inside & (column > 0), other=0)
        before_ = tl.load(plane + at_ + ((i - 1) * row_words - 1), mask=inside_ & (column_ > 0), other=0)
        here = tl.load(plane + at + (i - 1) * row_words, mask=inside, other=0)
        here_ = tl.load(plane + at_ + (i - 1) * row_words, mask=inside_, other=0)
        a, b, c = a + (_highs(before, before_),), b + (_lows(here, here_),), c + (_highs(here, here_),)
    _store_maps(maps, wanted, p, p < words, a, b, c, map_words, 1, 1, 0, dct, dtype, packed)


@triton.jit
def halved_points(x, maps, channels, rows, x_words, map_words, words, across, count,
                  height: tl.constexpr, row_words: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
                  block: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """A 1x1 window without padding, stride 2, from even widths; `count` output pixels."""
    release(early)
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane, to = x + tl.load(channels + entry).to(tl.int64) * x_words, maps + tl.load(rows + entry).to(tl.int64) * map_words
    await_previous(early)
    p = tile * block + tl.arange(0, block)
    at, _, _ = _doubled(2 * p, height, row_words, out_height, out_width)
    at_, _, _ = _doubled(2 * p + 1, height, row_words, out_height, out_width)
    first = tl.load(plane + at, mask=2 * p < count, other=0)
    second = tl.load(plane + at_, mask=2 * p + 1 < count, other=0)
    tl.store(to + p, _lows(first, second), mask=p < words)


@triton.jit
def _tap(plane, at, inside):
    return tl.load(plane + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def any_maps(x, maps, channels, rows, x_stride, map_stride, count, across,
             height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
             kernel_h: tl.constexpr, kernel_w: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
             dilation_h: tl.constexpr, dilation_w: tl.constexpr, top: tl.constexpr, left: tl.constexpr,
             dct: tl.constexpr, block: tl.constexpr, early: tl.constexpr):  # fmt: skip
    """`count` output pixels."""
    release(early)
    entry, tile = tl.program_id(0) // across, tl.program_id(0) % across
    plane = x + tl.load(channels + entry).to(tl.int64) * x_stride
    await_previous(early)
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
