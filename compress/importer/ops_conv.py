"""Convolutions and linear layers, plain and transposed."""

from __future__ import annotations

import numpy

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.convolution import conv_attrs, unshuffled
from cosparse.compress.importer.layout import Value, axis_of, size_of, whole
from cosparse.compress.importer.names import path
from cosparse.compress.importer.table import handles
from cosparse.compress.importer.transposed import phase_filters, plan_axis


def weighted(values: numpy.ndarray, bias: numpy.ndarray | None) -> dict[str, numpy.ndarray]:
    """The tensors of a convolution or linear layer."""
    return {"values": values} if bias is None else {"values": values, "bias": bias}


@handles("conv2d", "convolution")
def conv2d(call: Call) -> Value:
    if call.arguments.get("transposed"):
        return _transposed(call)
    weight, dilation = call.constant("weight"), call.integers("dilation")
    if weight.ndim != 4:
        raise Unsupported("a convolution that is not two-dimensional")
    if call.arguments["padding"] == "same":
        # PyTorch puts the odd pixel behind.
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pad = [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    else:
        pad = [0] * 4 if call.arguments["padding"] == "valid" else call.integers("padding") * 2
    attrs = conv_attrs(weight, call.integers("stride"), pad, dilation, call.integer("groups"))
    return call.result(call.emit("conv", [call.plain()], attrs, weighted(weight, call.optional("bias"))))


@handles("conv_transpose2d")
def conv_transpose2d(call: Call) -> Value:
    return _transposed(call)


def _transposed(call: Call) -> Value:
    weight, stride, groups = call.constant("weight"), call.integers("stride"), call.integer("groups")
    if weight.ndim != 4:
        raise Unsupported("a transposed convolution that is not two-dimensional")
    padding, extra, dilation = call.integers("padding"), call.integers("output_padding"), call.integers("dilation")
    vertical, horizontal = (plan_axis(weight.shape[2 + a], stride[a], padding[a], extra[a], dilation[a]) for a in (0, 1))
    values = phase_filters(weight, groups, vertical, horizontal)
    bias = call.optional("bias")
    if bias is not None:
        phases = stride[0] * stride[1]
        bias = numpy.tile(bias, phases) if groups == 1 else numpy.repeat(bias, phases)
    pad = [vertical.pad[0], horizontal.pad[0], vertical.pad[1], horizontal.pad[1]]
    attrs = conv_attrs(values, [1, 1], pad, [vertical.dilation, horizontal.dilation], groups)
    name = call.emit("conv", [call.plain()], attrs, weighted(values, bias))
    crop = [vertical.crop[0], horizontal.crop[0], vertical.crop[1], horizontal.crop[1]]
    if stride != [1, 1] or any(crop):
        rearrange = {"block": stride, "order": "dcr" if groups == 1 else "crd", "crop": crop}
        name = call.emit("depth_to_space", [name], rearrange, suffix="depth_to_space")
    return call.result(name)


@handles("linear")
def linear(call: Call) -> Value:
    return _linear(call, call.value(), call.constant("weight"), call.optional("bias"))


@handles("matmul", "mm")
def matmul(call: Call) -> Value:
    other = "mat2" if "mat2" in call.arguments else "other"
    if isinstance(call.get("self"), Value) and isinstance(call.get(other), Value):
        raise Unsupported("a product of two values, as attention has")
    weight = call.constant(other)
    if weight.ndim != 2:
        raise Unsupported("a product with a constant that is no matrix")
    return _linear(call, call.value(), weight.T, None)


@handles("addmm")
def addmm(call: Call) -> Value:
    weight, bias = call.constant("mat2").T * call.number("alpha"), call.constant("self") * call.number("beta")
    if bias.ndim > 1 and bias.shape[0] != 1:
        raise Unsupported("an addend that varies over the batch")
    return _linear(call, call.value("mat1"), weight, numpy.broadcast_to(bias.reshape(-1), weight.shape[:1]))


def _linear(call: Call, x: Value, weight: numpy.ndarray, bias: numpy.ndarray | None) -> Value:
    """Weight [O, F] over the last dimension: `linear` on [N, F]; where that dimension is the channels of an image, a 1x1 convolution."""
    filters, channels = weight.shape
    if len(x.shape) == 2:
        tensors = weighted(weight, bias)
        attrs = {"filters": filters, "channels": channels, "transform": "identity", "format": "dense", "block": 1}
        return call.result(call.emit("linear", [call.as_stored(x).name], attrs, tensors))
    last = len(x.dims) - 1
    if x.expanded or len(x.sizes) != 4 or not (axis_of(x, last) == 1 or x.sizes[1] == channels == 1):
        raise Unsupported("a linear layer over another dimension than the channels")
    values = weight.reshape(filters, channels, 1, 1)
    attrs = conv_attrs(values, [1, 1], [0] * 4, [1, 1], 1)
    name = call.emit("conv", [x.name], attrs, weighted(values, bias))
    sizes = (x.sizes[0], size_of(filters), *x.sizes[2:])
    return Value(name, sizes, (*x.dims[:-1], whole(1, sizes[1])), call.shape)


@handles("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Value:
    """Pixels to channels (c, i, j)."""
    factor = call.integer("downscale_factor")
    x = call.as_stored(call.value())
    channels = call.fixed(x.sizes[1], "channels")
    return call.result(unshuffled(call.draft, x.name, channels, factor, factor, path(call.node)))
