"""The graph under construction: nodes in order, names unique, weights in float64 until the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from cosparse.engine.graph import Node, unique_name


class Draft:
    """Collects nodes. Tensors stay float64, so that folding rounds once."""

    def __init__(self, inputs: Iterable[str]) -> None:
        self.nodes: list[Node] = []
        names = list(inputs)
        self.input = names[0]
        """The first of the graph's inputs, whose batch all values have."""
        self.taken: set[str] = set(names)
        self.arranged: dict[Any, str] = {}
        self.constants: dict[Any, str] = {}
        # Concatenations: the axis, and what was joined with its size there. A part of one is looked for among these.
        self.pieces: dict[str, tuple[int, list[tuple[str, Any]]]] = {}

    def add(self, name: str, op: str, inputs: list[str], attrs: dict[str, Any], tensors: dict[str, numpy.ndarray]) -> str:
        """Appends a node called `name`, or `name#2` where that is taken, and returns its name."""
        name = unique_name(name, self.taken)
        self.taken.add(name)
        self.nodes.append(Node(name, op, tuple(inputs), attrs, tensors))
        return name
