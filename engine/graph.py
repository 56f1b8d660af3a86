"""The network as data: what an artifact holds (docs/artifact.md), what an importer builds and an executor reads.

Nodes stand in topological order. A node has one output value, which bears the node's name; values are named, never numbered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from cosparse.kernels.view import View

Attr = int | float | str | list[int]


@dataclass(frozen=True)
class Input:
    """A graph input. `shape` is that of the example, [N, C, H, W] or [N, F], with None for the batch.

    `sizes`: least and greatest height, least and greatest width for which the graph computes what its source did; None: any.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. `inputs` name graph inputs or earlier nodes; `tensors` maps the role (docs/artifact.md) to its array."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Attr] = field(default_factory=dict)
    tensors: dict[str, numpy.ndarray] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Equal where every field is, arrays bit for bit (dtype and shape included)."""
        if not isinstance(other, Node):
            return NotImplemented
        return (
            (self.name, self.op, self.inputs, self.attrs) == (other.name, other.op, other.inputs, other.attrs)
            and self.tensors.keys() == other.tensors.keys()
            and all(_same(array, other.tensors[role]) for role, array in self.tensors.items())
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Graph:
    """A network: inputs, nodes in topological order, and the values that are its outputs.

    `views`: for each output the shape in which it is given, None where that is the stored value's; empty where no output has one.
    `preprocessing` and `provenance` are JSON objects that the runtime hands on and never interprets.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    preprocessing: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    views: tuple[View | None, ...] = ()

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError where there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def consumers(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Value name -> names of the nodes that read it, once each, in order. Every value has an entry; graph outputs are not counted."""
    values = [*(i.name for i in graph.inputs), *(n.name for n in graph.nodes)]
    readers: dict[str, list[str]] = {name: [] for name in values}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers[name].append(node.name)
    return {name: tuple(nodes) for name, nodes in readers.items()}


def replace_nodes(graph: Graph, new: Mapping[str, Node]) -> Graph:
    """The graph with each node named in `new` exchanged. The order stays, so a replacement reads only what stood before it."""
    return replace(graph, nodes=tuple(new.get(node.name, node) for node in graph.nodes))


def drop_nodes(graph: Graph, successor: Mapping[str, str]) -> Graph:
    """The graph without the nodes that are keys of `successor`; whoever read such a node (outputs too) reads its successor instead."""

    def follow(name: str) -> str:
        while name in successor:
            name = successor[name]
        return name

    nodes = (replace(n, inputs=tuple(map(follow, n.inputs))) for n in graph.nodes if n.name not in successor)
    return replace(graph, nodes=tuple(nodes), outputs=tuple(map(follow, graph.outputs)))


def unique_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or `wanted#2`, `wanted#3`, ... where it is taken already."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}#{count}"
    return name


def _same(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
