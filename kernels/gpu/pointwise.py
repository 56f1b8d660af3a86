"""activation, prelu, affine, add, sub, mul, div, maximum, minimum on a GPU: y[c,p] = f(x[c,p]) or a op b, in float32, rounded once.

    x, a, b, y           Planes of one dtype, float16 or bfloat16; a and b: each of N, C, H, W is y's, or 1
    scale, shift, slope  [C]   float32, on the device from a node's first launch on

Formulas: kernels/activation.py and kernels/eltwise.py. Whole rows are computed, also what lies behind their pixels, so that stores stay
whole vectors. A CUDA graph may be captured once a node has been launched before: the first launch uploads its tensors.

Refused: an activation of another kind (UnsupportedError); sizes that do not broadcast, another channel count (ShapeError).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.epilogue import ACTS, activated
from cosparse.kernels.gpu.planes import Planes, stride_of

Launch = Callable[[Node, Sequence[Planes], Planes], None]
"""(node, inputs, output of the right shape): writes the output on the current stream, without waiting for it."""


@dataclass(frozen=True)
class Tiles:
    """`channels` x `pixels` numbers a program, powers of two; `across` programs make one row of tiles."""

    channels: int
    pixels: int
    across: int
    grid: tuple[int]

    @classmethod
    def over(cls, channels: int, pixels: int, numbers: int = 1024, widest: int | None = None) -> Tiles:
        """Tiles of up to `numbers`, as wide as rows and `widest` allow. One axis of programs: the others end at 65535, channels do not."""
        wide = min(triton.next_power_of_2(pixels), numbers, widest or numbers)
        high = min(triton.next_power_of_2(channels), numbers // wide)
        across = triton.cdiv(pixels, wide)
        return cls(high, wide, across, (triton.cdiv(channels, high) * across,))


_uploaded: dict[tuple[int, torch.device], tuple[weakref.ref[np.ndarray], torch.Tensor]] = {}


def channel_vector(node: Node, role: str, channels: int, device: torch.device) -> torch.Tensor:
    """The node's tensor `role` as float32 [C] on the device."""
    array = node.tensors[role]
    if array.shape != (channels,):
        raise ShapeError(f"node {node.name} ({node.op})", f"{len(array)} channels, as {role} has", f"{channels}")
    return uploaded(array, device)


def uploaded(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as float32 on the device: uploaded once for as long as it lives, since arrays do not change."""
    key = (id(array), device)
    if key not in _uploaded:
        copy = torch.from_numpy(np.array(array, np.float32)).to(device)
        _uploaded[key] = (weakref.ref(array, lambda _: _uploaded.pop(key, None)), copy)
    return _uploaded[key][1]


@triton.jit
def channels_of_tile(across, block_c: tl.constexpr):
    """This program's channels [block_c]; int64, since a row begins at channel * stride. Numbers of channels are loaded through these:
    through [block_c, 1] every thread would load its channel's as often as it has pixels."""
    return ((tl.program_id(0) // across) * block_c + tl.arange(0, block_c)).to(tl.int64)


@triton.jit
def tile(across, block_c: tl.constexpr, block_p: tl.constexpr):
    """This program's channels [block_c, 1] and pixels [1, block_p]."""
    p = (tl.program_id(0) % across) * block_p + tl.arange(0, block_p)
    return channels_of_tile(across, block_c)[:, None], p[None, :]


@triton.jit
def activation_kernel(
    x, y, x_stride, y_stride, channels, width, across, alpha, beta, act: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr
):
    c, p = tile(across, block_c, block_p)
    inside = (c < channels) & (p < width)
    value = activated(tl.load(x + c * x_stride + p, mask=inside, other=0.0).to(tl.float32), act, alpha, beta)
    tl.store(y + c * y_stride + p, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def channel_kernel(
    x, y, scale, shift, x_stride, y_stride, channels, width, across, prelu: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr
):
    c, p = tile(across, block_c, block_p)
    inside = (c < channels) & (p < width)
    own = channels_of_tile(across, block_c)
    value = tl.load(x + c * x_stride + p, mask=inside, other=0.0).to(tl.float32)
    result = tl.load(scale + own, mask=own < channels, other=0.0)[:, None] * value
    if prelu:
        result = tl.where(value > 0, value, result)
    else:
        result += tl.load(shift + own, mask=own < channels, other=0.0)[:, None]
    tl.store(y + c * y_stride + p, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _operand(x, c, p, at, inside, c_step, n_step, h_step, w_step, height, wide, same: tl.constexpr):
    """An operand's numbers at pixels `p`; unless its pixels are the output's they are found through image, row and column of `at`."""
    if same:
        place = x + c * c_step + p
    else:
        row = at // wide
        place = x + c * c_step + (row // height) * n_step + (row % height) * h_step + (at % wide) * w_step
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def binary_kernel(
    a, b, y, a_c, a_n, a_h, a_w, b_c, b_n, b_h, b_w, y_stride, channels, pixels, height, wide, width, across,
    op: tl.constexpr, same_a: tl.constexpr, same_b: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    c, p = tile(across, block_c, block_p)
    inside = (c < channels) & (p < width)
    at = tl.minimum(p, pixels - 1)  # behind the pixels: any place that can be read
    left = _operand(a, c, p, at, inside, a_c, a_n, a_h, a_w, height, wide, same_a)
    right = _operand(b, c, p, at, inside, b_c, b_n, b_h, b_w, height, wide, same_b)
    if op == 0:
        value = left + right
    elif op == 1:
        value = left - right
    elif op == 2:
        value = left * right
    elif op == 3:
        value = left / right
    elif op == 4:
        value = tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)
    else:
        value = tl.minimum(left, right, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + c * y_stride + p, value.to(y.dtype.element_ty), mask=inside)


def activation(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    (x,), kind = inputs, node.attrs["kind"]
    if kind not in ACTS:
        raise UnsupportedError(f"node {node.name} (activation)", "kind one of " + ", ".join(ACTS), repr(kind))
    width = stride_of(out.shape)
    cut = Tiles.over(out.shape[1], width)
    numbers = (x.stride, out.stride, out.shape[1], width, cut.across, float(node.attrs["alpha"]), float(node.attrs["beta"]))
    activation_kernel[cut.grid](x.data, out.data, *numbers, ACTS[kind], cut.channels, cut.pixels)


def _by_channel(scale: str, shift: str, *, prelu: bool) -> Launch:
    def launch(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
        (x,), channels, width = inputs, out.shape[1], stride_of(out.shape)
        vectors = [channel_vector(node, role, channels, out.data.device) for role in (scale, shift)]
        cut = Tiles.over(channels, width)
        strides = (x.stride, out.stride)
        channel_kernel[cut.grid](x.data, out.data, *vectors, *strides, channels, width, cut.across, prelu, cut.channels, cut.pixels)

    return launch


def _steps(node: Node, x: Planes, out: Planes) -> tuple[int, int, int, int]:
    """Numbers from one channel, image, row and column of an operand to the next; 0 along what it broadcasts."""
    if any(size not in (1, whole) for size, whole in zip(x.shape, out.shape, strict=True)):
        raise ShapeError(f"node {node.name} ({node.op})", f"sizes 1 or those of {out.shape}", str(x.shape))
    n, c, h, w = x.shape
    return x.stride * (c > 1), h * w * (n > 1), w * (h > 1), int(w > 1)


def _binary(op: int) -> Launch:
    def launch(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
        (a, b), (n, channels, h, w), width = inputs, out.shape, stride_of(out.shape)
        same = [(x.shape[0], *x.shape[2:]) == (n, h, w) for x in inputs]
        cut = Tiles.over(channels, width)
        numbers = (*_steps(node, a, out), *_steps(node, b, out), out.stride, channels, out.pixels, h, w, width, cut.across)
        binary_kernel[cut.grid](a.data, b.data, out.data, *numbers, op, *same, cut.channels, cut.pixels)

    return launch


LAUNCHES: dict[str, Launch] = {
    "activation": activation,
    "prelu": _by_channel("slope", "slope", prelu=True),
    "affine": _by_channel("scale", "shift", prelu=False),
    "add": _binary(0),
    "sub": _binary(1),
    "mul": _binary(2),
    "div": _binary(3),
    "maximum": _binary(4),
    "minimum": _binary(5),
}
