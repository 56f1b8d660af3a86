"""A small residual network as an artifact: dense stem, two block-sparse DCT convolutions, classifier."""

from __future__ import annotations

import nodes
import numpy as np

from cosparse.engine.graph import Graph, Input, Node

RELU = {"kind": "relu", "alpha": 0.0, "beta": 0.0}


def small_net(channels: int = 16, size: int = 8, classes: int = 10, seed: int = 0, in_channels: int = 3) -> Graph:
    """Input [N, in_channels, size, size] -> logits [N, classes]; weights scaled so that activations keep their magnitude."""
    rng = np.random.default_rng(seed)

    def conv(name: str, source: str, from_channels: int, **options: object) -> Node:
        made = nodes.conv(rng, channels, from_channels, (3, 3), pad=(1, 1, 1, 1), **options)  # type: ignore[arg-type]
        made.tensors["values"] *= np.float32((9 * from_channels) ** -0.5)
        return Node(name, "conv", (source,), made.attrs, made.tensors)

    steps = [conv("stem", "x", in_channels), Node("relu", "activation", ("stem",), dict(RELU))]
    last = "relu"
    for place in (1, 2):
        steps += [
            conv(f"conv{place}", last, channels, transform="dct", block=8, density=0.3, extras=("scale", "bias")),
            Node(f"add{place}", "add", (f"conv{place}", last)),
            Node(f"relu{place}", "activation", (f"add{place}",), dict(RELU)),
        ]
        last = f"relu{place}"
    linear = {"filters": classes, "channels": channels, "transform": "identity", "format": "dense", "block": 1}
    tensors = {"values": nodes.normal(rng, classes, channels), "bias": nodes.normal(rng, classes)}
    steps += [Node("pool", "mean", (last,), {"axes": [2, 3], "keep": 0}), Node("linear", "linear", ("pool",), linear, tensors)]
    preprocessing = {"channels": "RGB", "scale": 1 / 255, "mean": [0.5] * in_channels, "std": [0.25] * in_channels, "size": [size, size]}
    return Graph("small", (Input("x", (None, in_channels, size, size)),), ("linear",), tuple(steps), preprocessing, {"method": "random"})
