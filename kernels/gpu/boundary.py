"""Where a caller's tensors become planes and planes the caller's tensors: one pass each, rounded at most once.

    caller's  [N, C, H, W] or [N, F]   float32, float16 or bfloat16; any strides (channels last, views, expanded inputs)
    planes    of the shape [N, C, H, W] or [N, F, 1, 1]; float16 or bfloat16

Refused: another dtype, tensors on two devices (UnsupportedError); a shape that is not the planes' (ShapeError).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.gpu.dependent import await_previous, begins_early, launch_options, release
from cosparse.kernels.gpu.planes import Planes, stride_of
from cosparse.kernels.gpu.pointwise import Tiles, tile

TAKEN = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def convert_kernel(
    planes, other, stride, other_c, other_n, other_h, other_w, channels, pixels, height, wide, width, across,
    reads: tl.constexpr, flat: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """`reads`: other to planes, else back. `flat`: the other's pixels are evenly spaced, so that none needs a division."""
    release(early)
    c, p = tile(across, block_c, block_p)
    await_previous(early)
    if flat:
        at = p.to(tl.int64) * other_w
    else:
        row = p // wide
        at = (row // height).to(tl.int64) * other_n + (row % height).to(tl.int64) * other_h + (p % wide).to(tl.int64) * other_w
    here, there = planes + c * stride + p, other + c * other_c + at
    inside = (c < channels) & (p < pixels)
    if reads:
        # Whole vectors are stored, also behind the pixels.
        value = tl.load(there, mask=inside, other=0.0).to(tl.float32)
        tl.store(here, value.to(planes.dtype.element_ty), mask=(c < channels) & (p < width))
    else:
        value = tl.load(here, mask=inside, other=0.0).to(tl.float32)
        tl.store(there, value.to(other.dtype.element_ty), mask=inside)


def merged(sizes: tuple[int, ...], steps: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The same walk over images, rows, columns with neighbours joined where one goes on where the other ends; three of each again."""
    joined: list[tuple[int, int]] = []
    for size, step in zip(sizes, steps, strict=True):
        if joined and joined[-1][1] == size * step:
            joined[-1] = (joined[-1][0] * size, step)
        elif size > 1:
            joined.append((size, step))
    joined = [(1, 0)] * (3 - len(joined)) + joined
    return [size for size, _ in joined], [step for _, step in joined]


def _convert(planes: Planes, tensor: torch.Tensor, reads: bool) -> None:
    what = "input" if reads else "output"
    shaped = tensor if tensor.ndim == 4 else tensor[:, :, None, None] if tensor.ndim == 2 else None
    if shaped is None or tuple(shaped.shape) != planes.shape:
        raise ShapeError(what, f"a tensor of shape {list(planes.shape)}", str(list(tensor.shape)))
    if tensor.dtype not in TAKEN:
        raise UnsupportedError(what, "float32, float16 or bfloat16", str(tensor.dtype), "convert it before")
    if tensor.device != planes.data.device:
        raise UnsupportedError(what, f"a tensor on {planes.data.device}", str(tensor.device), "move it before")
    n, c, h, w = planes.shape
    (_, height, wide), steps = merged((n, h, w), (shaped.stride(0), shaped.stride(2), shaped.stride(3)))
    across = stride_of(planes.shape) if reads else planes.pixels
    # Where the caller has channels next to each other, tiles are as high as they are wide: both sides then move whole lines.
    last = shaped.stride(1) == 1 and c > 1
    cut = Tiles.over(c, across, 2048, max(64, 2048 // triton.next_power_of_2(c)) if last else None)
    numbers = (planes.stride, shaped.stride(1), *steps, c, planes.pixels, height, wide, across, cut.across)
    options = launch_options(begins_early(planes.data.device))
    convert_kernel[cut.grid](planes.data, shaped, *numbers, reads, wide == planes.pixels, cut.channels, cut.pixels, **options)


def read(x: torch.Tensor, out: Planes) -> None:
    """`out` = the caller's tensor; what is too large for float16 becomes infinite."""
    _convert(out, x, reads=True)


def write(x: Planes, out: torch.Tensor) -> None:
    """The caller's tensor = `x`."""
    _convert(x, out, reads=False)
