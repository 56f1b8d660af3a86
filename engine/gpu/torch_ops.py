"""Every op of docs/artifact.md as a PyTorch function: `OPS[op](node, tensors, shapes)` gives a function of the node's input tensors.

`tensors` are the node's own, already torch tensors; `shapes` maps the values of the network to their shapes in this run. Whatever can be
decided beforehand is decided here, once, and not in each call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cosparse.engine.graph import Node
from cosparse.kernels.window import covering_pad, divisors

Function = Callable[..., Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Tensors = Mapping[str, Tensor]
Build = Callable[[Node, Tensors, Shapes], Function]

KINDS: dict[str, Callable[[float, float], Function]] = {
    "relu": lambda a, b: F.relu,
    "clip": lambda a, b: lambda x: torch.clamp(x, a, b),
    "leaky_relu": lambda a, b: lambda x: F.leaky_relu(x, a),
    "elu": lambda a, b: lambda x: F.elu(x, a),
    "sigmoid": lambda a, b: torch.sigmoid,
    "silu": lambda a, b: F.silu,
    "tanh": lambda a, b: torch.tanh,
    "gelu": lambda a, b: F.gelu,
    "gelu_tanh": lambda a, b: lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": lambda a, b: F.hardswish,
    "hardsigmoid": lambda a, b: F.hardsigmoid,
    "softplus": lambda a, b: F.softplus,
    "mish": lambda a, b: F.mish,
    "sqrt": lambda a, b: torch.sqrt,
    "abs": lambda a, b: torch.abs,
    "exp": lambda a, b: torch.exp,
    "log": lambda a, b: torch.log,
    "pow": lambda a, b: lambda x: torch.where(x < 0, torch.nan, torch.pow(x.abs(), a)),
}


def conv(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    weight, bias = tensors["values"], tensors.get("bias")
    top, left, bottom, right = a["pad"]
    if (top, left) == (bottom, right):
        return lambda x: F.conv2d(x, weight, bias, a["stride"], (top, left), a["dilation"], a["groups"])
    return lambda x: F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, a["stride"], 0, a["dilation"], a["groups"])


def linear(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    weight, bias = tensors["values"].flatten(1), tensors.get("bias")
    return lambda x: F.linear(x, weight, bias)


def affine(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    scale, shift = tensors["scale"], tensors["shift"]
    mean, variance = torch.zeros_like(scale), torch.ones_like(scale)
    return lambda x: F.batch_norm(x, mean, variance, scale, shift, training=False, eps=0.0)


def activation(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    return KINDS[a["kind"]](a["alpha"], a["beta"])


def prelu(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    return lambda x: F.prelu(x, tensors["slope"])


def binary(function: Function) -> Build:
    return lambda node, tensors, shapes: function


def max_pool(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    if _native(node):
        return lambda x: F.max_pool2d(x, a["kernel"], a["stride"], a["pad"][:2], a["dilation"], bool(a["ceil"]))
    top, left, bottom, right = covering_pad(node, shapes[node.inputs[0]][2:], shapes[node.name][2:])
    return lambda x: F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-torch.inf), a["kernel"], a["stride"], 0, a["dilation"])


def avg_pool(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    if _native(node):
        settings = (a["kernel"], a["stride"], a["pad"][:2], bool(a["ceil"]), bool(a["count_pad"]), a["divisor"] or None)
        return lambda x: F.avg_pool2d(x, *settings)
    top, left, bottom, right = covering_pad(node, shapes[node.inputs[0]][2:], shapes[node.name][2:])
    divisor = (tensors if "divisor" in tensors else constants(node, shapes))["divisor"]
    return lambda x: F.avg_pool2d(F.pad(x, (left, right, top, bottom)), a["kernel"], a["stride"], divisor_override=1) / divisor.to(x)


def constants(node: Node, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors that follow from a node's shapes: whoever runs it on a GPU puts them there once, beside the node's own."""
    if node.op != "avg_pool" or _native(node):
        return {}
    return {"divisor": torch.from_numpy(divisors(node, shapes[node.inputs[0]][2:], shapes[node.name][2:]))}


def _native(node: Node) -> bool:
    """Whether PyTorch's own pooling takes the pads: equal at both ends, at most half the window."""
    a: Any = node.attrs
    return a["pad"][:2] == a["pad"][2:] and all(2 * pad <= kernel for pad, kernel in zip(a["pad"], a["kernel"], strict=False))


def adaptive(function: Function) -> Build:
    return lambda node, tensors, shapes: lambda x: function(x, tuple(node.attrs["size"]))  # type: ignore[arg-type]


def over_axes(function: Function) -> Build:
    return lambda node, tensors, shapes: lambda x: function(x, node.attrs["axes"], keepdim=bool(node.attrs["keep"]))


def concat(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    axis: Any = node.attrs["axis"]
    return lambda *x: torch.cat(x, axis)


def constant(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    return lambda *x: tensors["values"].expand(shapes[node.name])


def slice_(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    index = (slice(None),) * a["axis"] + (slice(a["start"], a["stop"], a["step"]),)
    return lambda x: x[index]


def pad(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    widths = [width for pair in zip(reversed(a["before"]), reversed(a["after"]), strict=True) for width in pair]  # last axis first
    if a["mode"] == "constant":
        return lambda x: F.pad(x, widths, value=a["value"])
    # PyTorch reflects the last axes only, so a rank that covers the channels is made by a leading axis.
    if any(widths[4:]):
        return lambda x: F.pad(x[None], widths, mode=a["mode"])[0]
    return lambda x: F.pad(x, widths[:4], mode=a["mode"])


def reshape(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    target = shapes[node.name]
    return lambda x: x.reshape(target)


def permute(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    order: Any = node.attrs["order"]
    return lambda x: x.permute(order)


def upsample(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    options = {"mode": a["mode"]} | ({"align_corners": bool(a["align_corners"])} if a["mode"] == "bilinear" else {})
    if len(node.inputs) == 2:
        return lambda x, like: F.interpolate(x, size=like.shape[2:], **options)
    if any(a["size"]):
        return lambda x: F.interpolate(x, size=a["size"], **options)
    # Bilinear weights for a size that the factor does not divide follow from the factor given, not from the sizes' ratio.
    return lambda x: F.interpolate(x, scale_factor=tuple(map(float, a["factor"])), recompute_scale_factor=False, **options)


def depth_to_space(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    a: Any = node.attrs
    (bh, bw), (top, left, bottom, right) = a["block"], a["crop"]

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if a["order"] == "crd":
            y = x.reshape(n, c // (bh * bw), bh, bw, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            y = x.reshape(n, bh, bw, c // (bh * bw), h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // (bh * bw), h * bh, w * bw)[:, :, top : h * bh - bottom, left : w * bw - right]

    return run


def channel_shuffle(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    groups: Any = node.attrs["groups"]
    return lambda x: F.channel_shuffle(x, groups)


def layer_norm(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    scale, shift, eps = tensors["scale"], tensors["shift"], float(node.attrs["eps"])  # type: ignore[arg-type]
    return lambda x: F.layer_norm(x.movedim(1, -1), scale.shape, scale, shift, eps).movedim(-1, 1)


def softmax(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    return lambda x: torch.softmax(x, 1)


def group_norm(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    groups: Any = node.attrs["groups"]
    scale, shift, eps = tensors["scale"], tensors["shift"], float(node.attrs["eps"])  # type: ignore[arg-type]
    return lambda x: F.group_norm(x, groups, scale, shift, eps)


def log_softmax(node: Node, tensors: Tensors, shapes: Shapes) -> Function:
    return lambda x: torch.log_softmax(x, 1)


OPS: dict[str, Build] = {
    "conv": conv,
    "linear": linear,
    "affine": affine,
    "activation": activation,
    "prelu": prelu,
    "add": binary(torch.add),
    "sub": binary(torch.sub),
    "mul": binary(torch.mul),
    "div": binary(torch.div),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": adaptive(F.adaptive_avg_pool2d),
    "adaptive_max_pool": adaptive(F.adaptive_max_pool2d),
    "mean": over_axes(torch.mean),
    "sum": over_axes(torch.sum),
    "amax": over_axes(torch.amax),
    "concat": concat,
    "constant": constant,
    "slice": slice_,
    "pad": pad,
    "reshape": reshape,
    "permute": permute,
    "upsample": upsample,
    "depth_to_space": depth_to_space,
    "channel_shuffle": channel_shuffle,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "softmax": softmax,
    "log_softmax": log_softmax,
}
