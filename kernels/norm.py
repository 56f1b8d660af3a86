"""layer_norm, softmax, log_softmax: along the channels of each pixel; group_norm: over groups of channels and all pixels of an image.

    x             [N, C, H, W] or [N, F]   any float
    scale, shift  [C]                      float32; norms: y = (x - mean) / sqrt(variance + eps) * scale[c] + shift[c], biased variance
    y             as x                     float64; softmax: y = e^x / sum of e^x over the channels; log_softmax: its logarithm

Refused (ShapeError): a channel count other than the tensors'. Other axes: permute first.
"""

from __future__ import annotations

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, per_channel, require


def layer_norm(node: Node, x: Array) -> Array:
    scale, shift = node.tensors["scale"], node.tensors["shift"]
    require(x.shape[1] == len(scale), node, f"{len(scale)} channels", x)
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + node.attrs["eps"]) * per_channel(scale, x) + per_channel(shift, x)


def softmax(node: Node, x: Array) -> Array:
    axis = node.attrs["axis"]
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def group_norm(node: Node, x: Array) -> Array:
    scale, shift = node.tensors["scale"], node.tensors["shift"]
    require(x.shape[1] == len(scale), node, f"{len(scale)} channels", x)
    groups = x.reshape(len(x), node.attrs["groups"], -1)
    centred = groups - groups.mean(axis=2, keepdims=True)
    variance = (centred**2).mean(axis=2, keepdims=True)
    normal = (centred / np.sqrt(variance + node.attrs["eps"])).reshape(x.shape)
    return normal * per_channel(scale, x) + per_channel(shift, x)


def log_softmax(node: Node, x: Array) -> Array:
    axis = node.attrs["axis"]
    below = x - x.max(axis=axis, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=axis, keepdims=True))


REFERENCES: dict[str, Reference] = {"layer_norm": layer_norm, "group_norm": group_norm, "softmax": softmax, "log_softmax": log_softmax}
