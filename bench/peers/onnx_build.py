"""Nodes and constants of an ONNX model under construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cosparse.bench.peers import Shapes


class Builder:
    """`shapes` maps the names of the model's values to their shapes in this run, for those values that stand for one of the network's."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes: dict[str, tuple[int, ...]] = dict(shapes)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray | np.generic) -> str:
        """Name of a new constant with that content."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; name of its output. An input "" is one that the operator may lack."""
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        return self.add("Slice", x, *(self.integers([value]) for value in (start, stop, axis, step)))
