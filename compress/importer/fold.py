"""Simplifies a graph whose tensors are float64: scales and shifts go into the weights, padding into convolutions, identities away."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy

from cosparse.engine.graph import Graph, Node

WEIGHTED = ("conv", "linear")


def simplified(graph: Graph) -> Graph:
    """The same function with fewer nodes. A node is folded into a neighbour only where nobody else reads the value between them."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs)
    kept: dict[str, Node] = {}
    successor: dict[str, str] = {}
    for original in graph.nodes:
        node = replace(original, inputs=tuple(successor.get(name, name) for name in original.inputs))
        before = kept.get(node.inputs[0]) if readers[original.inputs[0]] == 1 else None
        if _is_identity(node):
            successor[node.name] = node.inputs[0]
        elif node.op == "affine" and before is not None and (folded := _after(kept, before, node, readers)):
            kept[folded.name] = folded
            successor[node.name] = before.name
        else:
            if before is not None and node.op in WEIGHTED and (absorbed := _before(before, node)):
                del kept[before.name]
                node = absorbed
            kept[node.name] = node
    outputs = tuple(successor.get(name, name) for name in graph.outputs)
    return _live(replace(graph, nodes=tuple(kept.values()), outputs=outputs))


def _is_identity(node: Node) -> bool:
    return node.op == "affine" and bool((node.tensors["scale"] == 1).all() and (node.tensors["shift"] == 0).all())


def _after(kept: dict[str, Node], before: Node, affine: Node, readers: Counter[str]) -> Node | None:
    """The node that computes what `affine` makes of `before`'s value: `before`, or the convolution whose phases `before` interleaves."""
    scale, shift = affine.tensors["scale"], affine.tensors["shift"]
    if before.op == "depth_to_space" and readers[before.inputs[0]] == 1 and (conv := kept.get(before.inputs[0])) and conv.op == "conv":
        block: Any = before.attrs["block"]
        phases = math.prod(block)
        spread = numpy.tile if before.attrs["order"] == "dcr" else numpy.repeat
        return _scaled(conv, spread(scale, phases), spread(shift, phases))
    if before.op in WEIGHTED:
        return _scaled(before, scale, shift)
    if before.op == "affine":
        return replace(before, tensors={"scale": before.tensors["scale"] * scale, "shift": before.tensors["shift"] * scale + shift})
    return None


def _scaled(node: Node, scale: numpy.ndarray, shift: numpy.ndarray) -> Node:
    values = node.tensors["values"]
    bias = node.tensors.get("bias", 0.0) * scale + shift
    return replace(node, tensors={"values": values * scale.reshape(-1, *[1] * (values.ndim - 1)), "bias": bias})


def _before(before: Node, node: Node) -> Node | None:
    """`node` with the affine or the padding that stands before it inside; None where that is not the same function."""
    pad: Any = node.attrs.get("pad", [0])
    if before.op == "affine" and not any(pad):
        return _preceded(before, node)
    if before.op == "pad" and node.op == "conv" and before.attrs["mode"] == "constant" and before.attrs["value"] == 0:
        front: Any = before.attrs["before"]
        behind: Any = before.attrs["after"]
        if front[0] == behind[0] == 0:
            total = [a + b for a, b in zip(pad, (*front[1:], *behind[1:]), strict=True)]
            return replace(node, inputs=before.inputs, attrs={**node.attrs, "pad": total})
    return None


def _preceded(affine: Node, node: Node) -> Node:
    """W (scale x + shift) + bias = (W scale) x + (W shift + bias), channel by channel within each group."""
    values = node.tensors["values"]
    filters, channels = values.shape[:2]
    groups: Any = node.attrs.get("groups", 1)
    # [G, 1, C/G] beside values [G, O/G, C/G, taps]
    grouped = values.reshape(groups, filters // groups, channels, -1)
    scale, shift = (affine.tensors[role].reshape(groups, 1, channels, 1) for role in ("scale", "shift"))
    bias = node.tensors.get("bias", 0.0) + (grouped * shift).sum((2, 3)).reshape(-1)
    return replace(node, inputs=affine.inputs, tensors={"values": (grouped * scale).reshape(values.shape), "bias": bias})


def _live(graph: Graph) -> Graph:
    """Without the nodes that no output needs."""
    needed = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=tuple(reversed(nodes)))
