"""Bytes that a network moves and holds at the least: what its speed and its memory are measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cosparse.bench.peers import Shapes
from cosparse.engine.graph import Graph

# Ops that can write their output over an input that nobody needs any more.
IN_PLACE = ("activation", "affine", "prelu", "add", "sub", "mul", "div", "reshape")


def step_bytes(graph: Graph, shapes: Shapes, weights: Mapping[str, int], item: int) -> dict[str, int]:
    """Step -> its weights, its inputs and its outputs, each once. weights: step -> bytes; item: bytes of an activation.

    A node without a step of its own was folded into the step of the last input computed; what passes between them is not moved.
    """
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    owner: dict[str, str] = {}
    for node in graph.nodes:
        last = max((name for name in node.inputs if name in owner), key=order.__getitem__, default=None)
        owner[node.name] = node.name if node.name in weights or last is None else owner[last]
    read: dict[str, set[str]] = {step: set() for step in weights}
    written: dict[str, set[str]] = {step: set() for step in weights}
    for node in graph.nodes:
        step = owner[node.name]
        for name in node.inputs:
            if owner.get(name) != step:
                read.setdefault(step, set()).add(name)
                if name in owner:
                    written.setdefault(owner[name], set()).add(name)
    for name in graph.outputs:
        if name in owner:
            written.setdefault(owner[name], set()).add(name)
    return {step: size + item * sum(math.prod(shapes[name]) for name in (*read[step], *written[step])) for step, size in weights.items()}


def live_bytes(graph: Graph, shapes: Shapes, item: int) -> int:
    """Most bytes of values that are needed at one moment, in the order of the graph; its inputs, which the caller holds, not counted."""
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    size = {node.name: item * math.prod(shapes[node.name]) for node in graph.nodes}
    live = most = 0
    for node in graph.nodes:
        ending = _ending(node.inputs, node.name, last_reader, graph.outputs, size)
        freed = sum(size[name] for name in ending)
        reused = node.op in IN_PLACE and any(size[name] == size[node.name] for name in ending)
        most = max(most, live + (0 if reused else size[node.name]))
        live += size[node.name] - freed
    return most


def _ending(
    inputs: Sequence[str], reader: str, last_reader: Mapping[str, str], outputs: Sequence[str], size: Mapping[str, int]
) -> list[str]:
    """The values computed by the graph that nobody needs after `reader`."""
    return [name for name in dict.fromkeys(inputs) if last_reader[name] == reader and name in size and name not in outputs]
