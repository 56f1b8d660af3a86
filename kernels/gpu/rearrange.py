"""concat, constant, slice, pad, reshape, permute, depth_to_space, channel_shuffle, norms and softmaxes on a GPU, through torch.

    inputs, y  Planes of one dtype, float16 or bfloat16; norms and softmaxes compute in float32 and round once

Formulas: kernels/shape_ops.py, resample.py, norm.py. These operators are rare in convolutional networks and left to the library: each is
a view of the input that is copied into a view of the output, at most after a gather along an axis. They neither wait nor need numbers
from the device, so a CUDA graph can hold them; norms and constants upload their tensors at the first launch, so launch them once before.

Refused: a norm of another channel count (ShapeError). Sizes that do not fit have been refused where the output's shape was found.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.pointwise import Launch, channel_vector, uploaded


def concat(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    axis, start = node.attrs["axis"], 0
    for x in inputs:
        out.nchw.narrow(axis, start, x.shape[axis]).copy_(x.nchw)
        start += x.shape[axis]


def constant(node: Node, _inputs: Sequence[Planes], out: Planes) -> None:
    values = node.tensors["values"]
    out.nchw.copy_(uploaded(values, out.data.device).view(-1, *(out.shape[2:] if values.ndim == 3 else (1, 1))))


def slice_(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    window = slice(node.attrs["start"], node.attrs["stop"], node.attrs["step"])
    out.nchw.copy_(inputs[0].nchw[(slice(None),) * node.attrs["axis"] + (window,)])


def pad(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    (x,), before, mode = inputs, node.attrs["before"], node.attrs["mode"]
    if mode == "constant":
        inner = tuple(slice(b, b + size) for b, size in zip(before, x.shape[1:], strict=True))
        out.nchw.fill_(node.attrs["value"])
        out.nchw[(slice(None), *inner)].copy_(x.nchw)
        return
    y = x.nchw
    for axis in (1, 2, 3):
        size, target = x.shape[axis], out.shape[axis]
        if size != target:
            at = torch.arange(-before[axis - 1], target - before[axis - 1], device=x.data.device)
            # A reflection turns round at 0 and at size - 1.
            at = at.clamp(0, size - 1) if mode == "replicate" else size - 1 - (size - 1 - at.abs()).abs()
            y = y.index_select(axis, at)
    out.nchw.copy_(y)


def reshape(_node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(inputs[0].nchw.reshape(out.shape))


def permute(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(inputs[0].nchw.permute(node.attrs["order"]))


def depth_to_space(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    (x,), (bh, bw), (top, left, _, _) = inputs, node.attrs["block"], node.attrs["crop"]
    n, c, h, w = x.shape
    if node.attrs["order"] == "crd":
        y = x.nchw.reshape(n, c // (bh * bw), bh, bw, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        y = x.nchw.reshape(n, bh, bw, c // (bh * bw), h, w).permute(0, 3, 4, 1, 5, 2)
    y = y.reshape(n, c // (bh * bw), h * bh, w * bw)
    out.nchw.copy_(y[:, :, top : top + out.shape[2], left : left + out.shape[3]])


def channel_shuffle(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    """Channels are rows, so this moves whole rows."""
    (x,), groups, pixels = inputs, node.attrs["groups"], out.pixels
    rows = x.data[:, :pixels].unflatten(0, (groups, -1)).transpose(0, 1)
    out.data[:, :pixels].unflatten(0, (-1, groups)).copy_(rows)


def layer_norm(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    x, channels = inputs[0].nchw.float(), out.shape[1]
    scale, shift = (channel_vector(node, role, channels, x.device)[:, None, None] for role in ("scale", "shift"))
    centred = x - x.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + node.attrs["eps"]).sqrt()
    out.nchw.copy_(centred / deviation * scale + shift)


def softmax(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(torch.softmax(inputs[0].nchw, node.attrs["axis"], dtype=torch.float32))


def group_norm(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    x, channels = inputs[0].nchw.float(), out.shape[1]
    scale, shift = (channel_vector(node, role, channels, x.device) for role in ("scale", "shift"))
    out.nchw.copy_(torch.nn.functional.group_norm(x, node.attrs["groups"], scale, shift, node.attrs["eps"]))


def log_softmax(node: Node, inputs: Sequence[Planes], out: Planes) -> None:
    out.nchw.copy_(torch.log_softmax(inputs[0].nchw, node.attrs["axis"], dtype=torch.float32))


LAUNCHES: dict[str, Launch] = {
    "concat": concat,
    "constant": constant,
    "slice": slice_,
    "pad": pad,
    "reshape": reshape,
    "permute": permute,
    "depth_to_space": depth_to_space,
    "channel_shuffle": channel_shuffle,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "softmax": softmax,
    "log_softmax": log_softmax,
}
