"""Chains of convolutions of small whole numbers, for the tests of layouts: what lies between them, who reads it, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from engines import graph_of
from nodes import FakeNode, conv

from cosparse.engine.graph import Graph

RNG = np.random.default_rng


def layer(
    name: str, source: str, filters: int, channels: int, kernel: int = 1, *, seed: int = 0, keep: float = 1.0, **options: Any
) -> FakeNode:
    """A conv of weights -1, 0, 1, `keep` of them not 0, and biases -2..2; blocks keep their zeros behind the last filter."""
    part = conv(RNG(seed), filters, channels, (kernel, kernel), pad=(kernel // 2,) * 4, **options)
    values = np.sign(part.tensors["values"])
    values *= RNG(seed + 1).random(values.shape) < keep
    bias = RNG(seed).integers(-2, 2, filters, endpoint=True).astype(np.float32)
    return FakeNode(name, "conv", (source,), part.attrs, part.tensors | {"values": values, "bias": bias})


def linear(name: str, source: str, filters: int, channels: int) -> FakeNode:
    part = layer(name, source, filters, channels)
    attrs = {key: part.attrs[key] for key in ("filters", "channels", "transform", "format", "block")}
    values = part.tensors["values"].reshape(filters, channels)
    return FakeNode(name, "linear", (source,), attrs, part.tensors | {"values": values})


def clip(name: str, source: str, least: float, most: float) -> FakeNode:
    return FakeNode(name, "activation", (source,), {"kind": "clip", "alpha": float(least), "beta": float(most)})


def add(name: str, first: str, second: str) -> FakeNode:
    return FakeNode(name, "add", (first, second))


Limit = Callable[[str, str], FakeNode]


def bottleneck(limit: Limit) -> list[FakeNode]:
    """3x3 -> 1x1 -> 1x1 + the 3x3's own output -> 1x1: three tiled values, one of them read as residual too."""
    return [
        layer("a0", "x", 24, 3, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 24, keep=0.3, seed=1),
        limit("b", "b0"),
        layer("c0", "b", 24, 16, keep=0.3, seed=2),
        add("c1", "c0", "a"),
        limit("c", "c1"),
        layer("d", "c", 19, 24, keep=0.3, seed=3),
    ]


def planar_residual(limit: Limit) -> list[FakeNode]:
    """A tiled result that adds an input of the network, which lies in planes; its reader adds a tiled value to an output in planes."""
    return [
        layer("a0", "x", 3, 3),
        add("a1", "a0", "x"),
        limit("a", "a1"),
        layer("b0", "a", 3, 3, seed=1),
        add("b", "b0", "a"),
    ]


def read_twice(limit: Limit) -> list[FakeNode]:
    """One value that two 1x1 convolutions read, and one that a 1x1 and a 3x3 read, so that it stays planar."""
    return [
        layer("a0", "x", 12, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 9, 12, keep=0.3, seed=1),
        layer("c0", "a", 9, 12, keep=0.3, seed=2),
        add("c1", "b0", "c0"),
        limit("c", "c1"),
        layer("d", "c", 8, 9, keep=0.3, seed=3),
        layer("e", "c", 8, 9, 3, keep=0.1, seed=4),
        add("f", "d", "e"),
    ]


def outputs_on_the_way(limit: Limit) -> list[FakeNode]:
    """Values that are outputs and read on."""
    return [
        layer("a0", "x", 16, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 16, keep=0.2, seed=1),
        limit("b", "b0"),
        layer("c", "b", 7, 16, keep=0.2, seed=2),
    ]


def grouped(limit: Limit) -> list[FakeNode]:
    """Grouped 1x1 convolutions read tiles; a depthwise one does not."""
    return [
        layer("a0", "x", 24, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 24, keep=0.4, seed=1, groups=4),
        limit("b", "b0"),
        layer("c0", "b", 16, 16, keep=0.4, seed=2, groups=2),
        limit("c", "c0"),
        layer("d0", "c", 16, 16, 3, keep=0.4, seed=3, groups=16),
        limit("d", "d0"),
        layer("e", "d", 8, 16, keep=0.3, seed=4),
    ]


def joined_and_cut(limit: Limit) -> list[FakeNode]:
    """Concatenations and slices of convolutions' results: all in planes."""
    return [
        layer("a0", "x", 8, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 8, keep=0.3, seed=1),
        limit("b", "b0"),
        FakeNode("c", "concat", ("a", "b"), {"axis": 1}),
        layer("d0", "c", 16, 24, keep=0.2, seed=2),
        limit("d", "d0"),
        FakeNode("e", "slice", ("d",), {"axis": 1, "start": 0, "stop": 9, "step": 1}),
        layer("f", "e", 8, 9, keep=0.3, seed=3),
    ]


def classifier(limit: Limit) -> list[FakeNode]:
    """Pool, then linear layers, of which the one between lies in tiles of 16 images."""
    return [
        layer("a0", "x", 16, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 16, keep=0.2, seed=1),
        limit("b", "b0"),
        FakeNode("c", "adaptive_max_pool", ("b",), {"size": [1, 1]}),
        FakeNode("d", "reshape", ("c",), {"shape": [16]}),
        linear("e0", "d", 24, 16),
        limit("e", "e0"),
        linear("f", "e", 10, 24),
    ]


def blocks_in_a_row(limit: Limit) -> list[FakeNode]:
    """Sparse blocks of 4 and of 8 filters, the first block row empty, the last ones partial."""
    return [
        layer("a0", "x", 22, 3, block=8, density=0.5),
        limit("a", "a0"),
        layer("b0", "a", 18, 22, block=4, density=0.3, seed=1),
        limit("b", "b0"),
        layer("c", "b", 11, 18, block=8, density=0.3, seed=2),
    ]


def strided(limit: Limit) -> list[FakeNode]:
    """A stage's first block: one tiled value, read with and without a stride, the small sizes down to one pixel."""
    return [
        layer("a0", "x", 24, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 9, 24, keep=0.3, seed=1),
        limit("b", "b0"),
        layer("c0", "b", 16, 9, 3, keep=0.1, seed=2, stride=(2, 2)),
        layer("d0", "a", 16, 24, keep=0.2, seed=3, stride=(2, 2), block=8, density=0.6),
        limit("d", "d0"),
        add("e0", "c0", "d"),
        limit("e", "e0"),
        layer("f", "e", 8, 16, keep=0.3, seed=4),
    ]


def strides_that_differ(limit: Limit) -> list[FakeNode]:
    """Two tiled values read with strides that differ from axis to axis, one of them larger than the row."""
    return [
        layer("a0", "x", 16, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 16, keep=0.2, seed=1, stride=(1, 3)),
        limit("b", "b0"),
        layer("c0", "b", 16, 16, keep=0.2, seed=2, stride=(2, 1)),
        limit("c", "c0"),
        layer("d0", "c", 8, 16, keep=0.2, seed=3, stride=(17, 19)),
        limit("d", "d0"),
        layer("e", "d", 8, 8, keep=0.3, seed=4),
    ]


def sparse_between(limit: Limit) -> list[FakeNode]:
    """A 3x3 of sparse blocks, each row with columns of its own, that writes tiles and whose residual lies in tiles."""
    return [
        layer("a0", "x", 16, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 24, 16, 3, keep=0.3, seed=1, block=8, density=0.5),
        limit("b", "b0"),
        layer("c0", "b", 24, 24, keep=0.3, seed=2, block=8, density=0.5),
        add("c1", "c0", "b"),
        limit("c", "c1"),
        layer("d0", "c", 30, 24, 3, keep=0.3, seed=3, block=8, density=0.5, stride=(2, 2)),
        limit("d", "d0"),
        layer("e", "d", 8, 30, keep=0.3, seed=4),
    ]


def identity_blocks(limit: Limit) -> list[FakeNode]:
    """A stage of two blocks: what the first adds is read by nobody else, what the second adds was read by its own first layer. Both sums
    lie where that lay."""
    return [
        layer("a0", "x", 24, 3, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 16, 24, keep=0.3, seed=1),
        limit("b", "b0"),
        layer("c0", "b", 16, 16, 3, keep=0.2, seed=2),
        limit("c", "c0"),
        layer("d0", "c", 24, 16, keep=0.3, seed=3),
        layer("s0", "a", 24, 24, keep=0.3, seed=4),
        limit("s", "s0"),
        add("d1", "d0", "s"),
        limit("d", "d1"),
        layer("e0", "d", 16, 24, keep=0.3, seed=5),
        limit("e", "e0"),
        layer("f0", "e", 24, 16, keep=0.3, seed=6, block=8, density=0.5),
        add("f1", "f0", "d"),
        limit("f", "f1"),
        layer("g", "f", 8, 24, keep=0.3, seed=7),
    ]


def adds_its_source(limit: Limit) -> list[FakeNode]:
    """A convolution's own source added to it, which its other tiles read still; then a residual that a later block adds once more."""
    return [
        layer("a0", "x", 24, 3, keep=0.5),
        limit("a", "a0"),
        layer("b0", "a", 24, 24, keep=0.3, seed=1),
        add("b1", "b0", "a"),
        limit("b", "b1"),
        layer("c0", "b", 24, 24, keep=0.3, seed=2),
        limit("c", "c0"),
        layer("d0", "c", 24, 24, keep=0.3, seed=3),
        add("d1", "d0", "b"),
        limit("d", "d1"),
        layer("e0", "d", 24, 24, keep=0.3, seed=4),
        add("e1", "e0", "b"),
        limit("e", "e1"),
        layer("f", "e", 8, 24, keep=0.3, seed=5),
    ]


CHAINS = [
    sparse_between,
    identity_blocks,
    adds_its_source,
    bottleneck,
    planar_residual,
    read_twice,
    outputs_on_the_way,
    grouped,
    joined_and_cut,
    classifier,
    blocks_in_a_row,
    strided,
    strides_that_differ,
]


OUTPUTS = {outputs_on_the_way: ("a", "c", "b")}
SIZES = ((1, 1), (1, 3), (4, 4), (1, 17), (7, 7), (10, 13))  # only a few pixels, whole groups, a few left over, a group left over


def chained(chain: Callable[[Limit], list[FakeNode]], most: float) -> Graph:
    """The chain with values limited to -most..most; for int8 to 0..255, and one filter so biased that 255 is reached: then steps are 1."""
    nodes = chain(lambda name, source: clip(name, source, 0 if most == 255 else -most, most))
    if most == 255:
        for n in nodes[:-2]:
            if "bias" in n.tensors:
                n.tensors["bias"][0] = 4000
    return graph_of(nodes, {"x": (3, 7, 7)}, outputs=OUTPUTS.get(chain))
