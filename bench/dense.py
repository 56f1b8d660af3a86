"""The dense twin of a network: what the peers run, and what the FLOP ratio is taken against."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cosparse.engine.graph import Graph, Node
from cosparse.kernels.conv import unpack, weight_shape
from cosparse.kernels.transform import plain

WEIGHTED = ("conv", "linear")


def densify(graph: Graph) -> Graph:
    """The same network with ordinary dense weights: coefficients transformed back, scale multiplied in. Same outputs up to rounding."""
    return replace(graph, nodes=tuple(_dense(node) if node.op in WEIGHTED else node for node in graph.nodes))


def _dense(node: Node) -> Node:
    weights = unpack(node)  # [O, C/G, R, S]
    if node.op == "linear":
        weights = weights[:, :, 0, 0]  # [O, F]
    tensors = {"values": np.ascontiguousarray(weights, dtype=np.float32)}
    if "bias" in node.tensors:
        tensors["bias"] = node.tensors["bias"]
    return replace(node, attrs=plain(node.attrs), tensors=tensors)


@dataclass(frozen=True)
class Parameters:
    """Parameters of a network with its batch norms folded: `dense` of the twin, `stored` in the artifact (indices not counted)."""

    dense: int
    stored: int

    @property
    def reduction(self) -> float:
        return 1 - self.stored / self.dense if self.dense else 0.0


def parameters(graph: Graph) -> Parameters:
    """Counts weights, biases, scales and shifts. `scale` [O] of a convolution is folded into the twin, so it counts as stored only."""
    dense = stored = 0
    for node in graph.nodes:
        sizes = {role: array.size for role, array in node.tensors.items() if role not in ("columns", "rows")}
        stored += sum(sizes.values())
        if node.op in WEIGHTED:
            sizes["values"] = math.prod(weight_shape(node))
            sizes.pop("scale", None)
        dense += sum(sizes.values())
    return Parameters(dense, stored)


def density(node: Node) -> float:
    """Stored values of a convolution or linear layer over those of its dense twin."""
    return node.tensors["values"].size / math.prod(weight_shape(node))
