"""What the references ask of a node and a graph, so that they depend on no particular graph class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cosparse.errors import ShapeError

Array = NDArray[np.float64]
Reference = Callable[..., Array]  # (node, *inputs) -> output


class Node(Protocol):
    """One operator with its settings; docs/artifact.md says which attributes and tensors an op has."""

    @property
    def name(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def attrs(self) -> Mapping[str, Any]: ...
    @property
    def tensors(self) -> Mapping[str, np.ndarray]: ...


class Input(Protocol):
    """A value that the caller provides."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | None]: ...


class Graph(Protocol):
    """Nodes in topological order; a node's value has the node's name."""

    @property
    def inputs(self) -> Sequence[Input]: ...
    @property
    def nodes(self) -> Sequence[Node]: ...
    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def views(self) -> Sequence[Any]: ...  # kernels/view.py; empty where there are none


def require(condition: bool, node: Node, expected: str, *inputs: np.ndarray) -> None:
    """Raises ShapeError that names the node unless the condition holds."""
    if not condition:
        raise ShapeError(f"node {node.name} ({node.op})", expected, " and ".join(str(x.shape) for x in inputs))


def per_channel(vector: np.ndarray, x: np.ndarray) -> Array:
    """A tensor [C], float64, in the shape that broadcasts along axis 1 of x."""
    return vector.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))
