"""Activations and norms: what treats each pixel by itself, so that the layout does not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Value, axis_of
from cosparse.compress.importer.regroup import ahead
from cosparse.compress.importer.table import handles

FLOAT32_MAX = float(numpy.finfo(numpy.float32).max)


def activation(call: Call, kind: str, alpha: float = 0.0, beta: float = 0.0, x: Value | None = None) -> Value:
    x = call.value() if x is None else x
    return replace(x, name=call.emit("activation", [x.name], {"kind": kind, "alpha": alpha, "beta": beta}))


def affine(call: Call, x: Value, scale: Any, shift: Any, suffix: str = "") -> Value:
    """y = scale x + shift, each a number or one a channel."""
    channels = (call.fixed(x.sizes[1], "channels"),)
    tensors = {role: numpy.broadcast_to(numpy.asarray(v, numpy.float64), channels) for role, v in (("scale", scale), ("shift", shift))}
    return replace(x, name=call.emit("affine", [x.name], {}, tensors, suffix=suffix))


@handles("relu", "sigmoid", "silu", "tanh", "hardswish", "hardsigmoid", "mish", "sqrt", "abs", "exp", "log")
def same_name(call: Call) -> Value:
    return activation(call, call.op)


@handles("relu6")
def relu6(call: Call) -> Value:
    return activation(call, "clip", 0.0, 6.0)


@handles("hardtanh")
def hardtanh(call: Call) -> Value:
    return activation(call, "clip", call.number("min_val"), call.number("max_val"))


@handles("clamp", "clip", "clamp_min", "clamp_max")
def clamp(call: Call) -> Value:
    low, high = (call.arguments.get(name) for name in ("min", "max"))
    if low == 0 and high is None:
        return activation(call, "relu")
    return activation(
        call, "clip", -FLOAT32_MAX if low is None else call.number("min"), FLOAT32_MAX if high is None else call.number("max")
    )


@handles("leaky_relu")
def leaky_relu(call: Call) -> Value:
    return activation(call, "leaky_relu", call.number("negative_slope"))


@handles("elu")
def elu(call: Call) -> Value:
    if call.number("scale") != 1 or call.number("input_scale") != 1:
        raise Unsupported("an elu with scales")
    return activation(call, "elu", call.number("alpha"))


@handles("celu")
def celu(call: Call) -> Value:
    """alpha (exp(x / alpha) - 1) below 0: an elu of x / alpha, times alpha."""
    alpha = call.number("alpha")
    if alpha == 1:
        return activation(call, "elu", 1.0)
    inner = activation(call, "elu", 1.0, x=affine(call, call.value(), 1 / alpha, 0, "scale"))
    return affine(call, inner, alpha, 0, "unscale")


@handles("selu")
def selu(call: Call) -> Value:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return affine(call, activation(call, "elu", alpha), scale, 0, "scale")


@handles("gelu")
def gelu(call: Call) -> Value:
    return activation(call, "gelu_tanh" if call.arguments["approximate"] == "tanh" else "gelu")


@handles("softplus")
def softplus(call: Call) -> Value:
    """softplus(beta x) / beta; at the default threshold of 20 the linear branch differs by less than float32 resolves."""
    beta = call.number("beta")
    if call.number("threshold") < 20:
        raise Unsupported("a softplus with a threshold below 20")
    if beta == 1:
        return activation(call, "softplus")
    inner = activation(call, "softplus", x=affine(call, call.value(), beta, 0, "scale"))
    return affine(call, inner, 1 / beta, 0, "unscale")


@handles("log_sigmoid")
def log_sigmoid(call: Call) -> Value:
    """-softplus(-x)."""
    inner = activation(call, "softplus", x=affine(call, call.value(), -1, 0, "negative"))
    return affine(call, inner, -1, 0, "result")


def by_channel(call: Call) -> Value:
    """The argument with its dimension 1 over the stored channels, as norms and prelu count them."""
    x = call.value()
    return x if not x.expanded and axis_of(x, 1) == 1 else call.as_stored(x)


@handles("prelu")
def prelu(call: Call) -> Value:
    x = by_channel(call)
    slope = numpy.broadcast_to(call.constant("weight").reshape(-1), (call.fixed(x.sizes[1], "channels"),))
    return replace(x, name=call.emit("prelu", [x.name], {}, {"slope": slope}))


@handles("batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> Value | tuple[Value, ...]:
    if call.arguments.get("training") or call.arguments["running_mean"] is None:
        raise Unsupported("batch norm with the statistics of the batch")
    x = by_channel(call)
    weight, bias = call.optional("weight"), call.optional("bias")
    scale = (1.0 if weight is None else weight) / numpy.sqrt(call.constant("running_var") + call.number("eps"))
    shift = (0.0 if bias is None else bias) - call.constant("running_mean") * scale
    result = affine(call, x, scale, shift)
    return (result,) if call.op.startswith("_") else result


@handles("layer_norm", "native_layer_norm")
def layer_norm(call: Call) -> Value | tuple[Value, ...]:
    x, shape = call.value(), call.integers("normalized_shape", 1)
    if len(shape) != 1 or x.expanded or axis_of(x, len(x.dims) - 1) != 1:
        raise Unsupported("a layer norm over more or other dimensions than the channels")
    weight, bias = call.optional("weight"), call.optional("bias")
    tensors = {"scale": numpy.ones(shape) if weight is None else weight, "shift": numpy.zeros(shape) if bias is None else bias}
    result = replace(x, name=call.emit("layer_norm", [x.name], {"eps": call.number("eps")}, tensors))
    return result if call.op == "layer_norm" else (result,)


def grouped(call: Call, groups: int) -> Value:
    x = by_channel(call)
    channels = (call.fixed(x.sizes[1], "channels"),)
    weight, bias = call.optional("weight"), call.optional("bias")
    tensors = {"scale": numpy.ones(channels) if weight is None else weight, "shift": numpy.zeros(channels) if bias is None else bias}
    return replace(x, name=call.emit("group_norm", [x.name], {"groups": groups, "eps": call.number("eps")}, tensors))


@handles("group_norm")
def group_norm(call: Call) -> Value:
    return grouped(call, call.integer("num_groups"))


@handles("instance_norm")
def instance_norm(call: Call) -> Value:
    if not call.flag("use_input_stats"):
        return batch_norm(call)  # type: ignore[return-value]
    return grouped(call, call.fixed(call.value().shape[1], "channels"))


@handles("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(call: Call) -> Value:
    """Either kind."""
    x, dim = call.value(), call.dim()
    if x.expanded or axis_of(x, dim) != 1:
        x = ahead(call, x, dim)
    return replace(x, name=call.emit(call.op.removeprefix("_"), [x.name], {"axis": 1}))


@handles("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def dropout(call: Call) -> Value | tuple[Value, ...]:
    if call.flag("train") and call.number("p") > 0:
        raise Unsupported("dropout at inference")
    return (call.value(),) if call.op == "native_dropout" else call.value()


@handles("contiguous", "clone", "detach", "alias", "lift_fresh", "lift_fresh_copy", "to", "_to_copy", "type_as", "positive")
def identity(call: Call) -> Value:
    return call.value()
