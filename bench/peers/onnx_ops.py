"""Every op of docs/artifact.md as ONNX nodes (opset 20), in the forms that exporters write and runtimes fuse.

`OPS[op](model, node, *inputs)` adds nodes to the model and returns the name of the output value. `model` knows every value's shape
in this run, so that windows and sizes are written out as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cosparse.bench.peers.onnx_build import Builder
from cosparse.engine.graph import Node
from cosparse.kernels.window import covering_pad, divisors

Op = Callable[..., str]


def conv(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    inputs = [x, model.constant(node.tensors["values"])]
    if "bias" in node.tensors:
        inputs.append(model.constant(node.tensors["bias"]))
    shape = {"kernel_shape": a["kernel"], "strides": a["stride"], "dilations": a["dilation"]}
    return model.add("Conv", *inputs, **shape, pads=a["pad"], group=a["groups"])


def linear(model: Builder, node: Node, x: str) -> str:
    weight = node.tensors["values"]
    inputs = [x, model.constant(weight.reshape(len(weight), -1))]
    if "bias" in node.tensors:
        inputs.append(model.constant(node.tensors["bias"]))
    return model.add("Gemm", *inputs, transB=1)


def affine(model: Builder, node: Node, x: str) -> str:
    scale, shift = node.tensors["scale"], node.tensors["shift"]
    statistics = (np.zeros_like(scale), np.ones_like(scale))
    return model.add("BatchNormalization", x, *map(model.constant, (scale, shift, *statistics)), epsilon=0.0)


def activation(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    match a["kind"]:
        case "clip":
            return model.add("Clip", x, model.constant(np.float32(a["alpha"])), model.constant(np.float32(a["beta"])))
        case "leaky_relu":
            return model.add("LeakyRelu", x, alpha=a["alpha"])
        case "elu":
            return model.add("Elu", x, alpha=a["alpha"])
        case "silu":
            return model.add("Mul", x, model.add("Sigmoid", x))
        case "gelu_tanh":
            return model.add("Gelu", x, approximate="tanh")
        case "pow":
            return model.add("Pow", x, model.constant(np.float32(a["alpha"])))
        case "hardsigmoid":
            return model.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        case kind:
            names = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu"}
            names |= {"hardswish": "HardSwish", "softplus": "Softplus", "mish": "Mish"}
            names |= {"sqrt": "Sqrt", "abs": "Abs", "exp": "Exp", "log": "Log"}
            return model.add(names[kind], x)


def prelu(model: Builder, node: Node, x: str) -> str:
    slope = node.tensors["slope"]
    return model.add("PRelu", x, model.constant(slope.reshape(-1, *(1,) * (len(model.shapes[node.name]) - 2))))


def binary(name: str) -> Op:
    return lambda model, node, a, b: model.add(name, a, b)


def max_pool(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    pads = covering_pad(node, model.shapes[x][2:], model.shapes[node.name][2:])
    x, pads = _narrow(model, x, pads, a["kernel"], -np.inf)
    return model.add("MaxPool", x, kernel_shape=a["kernel"], strides=a["stride"], dilations=a["dilation"], pads=pads)


def avg_pool(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    source, target = model.shapes[x][2:], model.shapes[node.name][2:]
    x, pads = _narrow(model, x, covering_pad(node, source, target), a["kernel"], 0.0)
    settings = {"kernel_shape": a["kernel"], "strides": a["stride"], "pads": pads}
    if any(pads) and not a["count_pad"] and not a["divisor"]:
        return model.add("AveragePool", x, **settings, count_include_pad=0)
    factors = a["kernel"][0] * a["kernel"][1] / divisors(node, source, target)
    y = model.add("AveragePool", x, **settings, count_include_pad=1)
    return y if np.all(factors == 1) else model.add("Mul", y, model.constant(factors))


def _narrow(model: Builder, x: str, pads: list[int], kernel: list[int], value: float) -> tuple[str, list[int]]:
    """ONNX Runtime refuses pools whose padding is as wide as the window: such padding becomes a node of its own."""
    if all(pad < kernel[i % 2] for i, pad in enumerate(pads)):
        return x, pads
    top, left, bottom, right = pads
    return model.add("Pad", x, model.integers([0, 0, top, left, 0, 0, bottom, right]), model.constant(np.float32(value))), [0] * 4


def adaptive(whole: str, window: str, reduce: str) -> Op:
    """Global pooling, ordinary pooling where the cells are equal, else one reduction for each cell's rows and columns."""

    def build(model: Builder, node: Node, x: str) -> str:
        sizes: Any = node.attrs["size"]
        source = model.shapes[x][2:]
        if tuple(sizes) == (1, 1):
            return model.add(whole, x)
        if all(length % cells == 0 for length, cells in zip(source, sizes, strict=True)):
            kernel = [length // cells for length, cells in zip(source, sizes, strict=True)]
            return model.add(window, x, kernel_shape=kernel, strides=kernel)
        for axis, (length, cells) in enumerate(zip(source, sizes, strict=True), start=2):
            parts = []
            for i in range(cells):
                part = model.slice(x, axis, i * length // cells, -(-(i + 1) * length // cells))
                parts.append(model.add(reduce, part, model.integers([axis]), keepdims=1))
            x = model.add("Concat", *parts, axis=axis)
        return x

    return build


def mean(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    if a["axes"] == [2, 3]:
        y = model.add("GlobalAveragePool", x)
        return y if a["keep"] else model.add("Flatten", y)
    return model.add("ReduceMean", x, model.integers(a["axes"]), keepdims=a["keep"])


def over_axes(name: str) -> Op:
    return lambda model, node, x: model.add(name, x, model.integers(node.attrs["axes"]), keepdims=node.attrs["keep"])


def concat(model: Builder, node: Node, *inputs: str) -> str:
    return model.add("Concat", *inputs, axis=node.attrs["axis"])


def slice_(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    return model.slice(x, a["axis"], a["start"], a["stop"], a["step"])


def pad(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    widths = model.integers([0, *a["before"], 0, *a["after"]])
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[a["mode"]]
    value = [model.constant(np.float32(a["value"]))] if mode == "constant" else []
    return model.add("Pad", x, widths, *value, mode=mode)


def reshape(model: Builder, node: Node, x: str) -> str:
    return model.add("Reshape", x, model.integers(model.shapes[node.name]))


def permute(model: Builder, node: Node, x: str) -> str:
    return model.add("Transpose", x, perm=node.attrs["order"])


def upsample(model: Builder, node: Node, x: str, like: str | None = None) -> str:
    a: Any = node.attrs
    if a["mode"] == "nearest":
        mode = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    else:
        mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if a["align_corners"] else "half_pixel"}
    if any(a["factor"]):
        return model.add("Resize", x, "", model.constant(np.array([1, 1, *a["factor"]], np.float32)), **mode)
    return model.add("Resize", x, "", "", model.integers(model.shapes[node.name]), **mode)


def depth_to_space(model: Builder, node: Node, x: str) -> str:
    a: Any = node.attrs
    (bh, bw), (top, left, bottom, right) = a["block"], a["crop"]
    n, channels, h, w = model.shapes[x]
    c = channels // (bh * bw)
    if bh == bw:
        y = model.add("DepthToSpace", x, blocksize=bh, mode=a["order"].upper())
    else:
        split, order = ([n, c, bh, bw, h, w], [0, 1, 4, 2, 5, 3]) if a["order"] == "crd" else ([n, bh, bw, c, h, w], [0, 3, 4, 1, 5, 2])
        y = model.add("Transpose", model.add("Reshape", x, model.integers(split)), perm=order)
        y = model.add("Reshape", y, model.integers([n, c, h * bh, w * bw]))
    if top or bottom:
        y = model.slice(y, 2, top, h * bh - bottom)
    return model.slice(y, 3, left, w * bw - right) if left or right else y


def channel_shuffle(model: Builder, node: Node, x: str) -> str:
    groups: Any = node.attrs["groups"]
    n, c, h, w = model.shapes[x]
    split = model.add("Reshape", x, model.integers([n, groups, c // groups, h, w]))
    return model.add("Reshape", model.add("Transpose", split, perm=[0, 2, 1, 3, 4]), model.integers([n, c, h, w]))


def layer_norm(model: Builder, node: Node, x: str) -> str:
    tensors = (model.constant(node.tensors["scale"]), model.constant(node.tensors["shift"]))
    eps = node.attrs["eps"]
    if len(model.shapes[x]) == 2:
        return model.add("LayerNormalization", x, *tensors, axis=-1, epsilon=eps)
    last = model.add("Transpose", x, perm=[0, 2, 3, 1])
    return model.add("Transpose", model.add("LayerNormalization", last, *tensors, axis=-1, epsilon=eps), perm=[0, 3, 1, 2])


def softmax(model: Builder, node: Node, x: str) -> str:
    return model.add("Softmax", x, axis=1)


def group_norm(model: Builder, node: Node, x: str) -> str:
    """A group's channels and pixels are the places of one channel of InstanceNormalization, which knows no groups."""
    groups: Any = node.attrs["groups"]
    shape, ones = model.shapes[x], np.ones(groups, np.float32)
    flat = model.add("Reshape", x, model.integers([shape[0], groups, -1]))
    normal = model.add("InstanceNormalization", flat, model.constant(ones), model.constant(0 * ones), epsilon=node.attrs["eps"])
    y = model.add("Reshape", normal, model.integers(list(shape)))
    scale, shift = (model.constant(node.tensors[role].reshape(1, -1, *[1] * (len(shape) - 2))) for role in ("scale", "shift"))
    return model.add("Add", model.add("Mul", y, scale), shift)


def log_softmax(model: Builder, node: Node, x: str) -> str:
    return model.add("LogSoftmax", x, axis=1)


def constant(model: Builder, node: Node, x: str) -> str:
    values = node.tensors["values"]
    return model.constant(np.broadcast_to(values, model.shapes[node.name]).copy())


OPS: dict[str, Op] = {
    "conv": conv,
    "linear": linear,
    "affine": affine,
    "activation": activation,
    "prelu": prelu,
    "add": binary("Add"),
    "sub": binary("Sub"),
    "mul": binary("Mul"),
    "div": binary("Div"),
    "maximum": binary("Max"),
    "minimum": binary("Min"),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": adaptive("GlobalAveragePool", "AveragePool", "ReduceMean"),
    "adaptive_max_pool": adaptive("GlobalMaxPool", "MaxPool", "ReduceMax"),
    "mean": mean,
    "sum": over_axes("ReduceSum"),
    "amax": over_axes("ReduceMax"),
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
