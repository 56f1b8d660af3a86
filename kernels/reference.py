"""The plain interpreter: what a network means, in float64 NumPy, node by node. Every faster way to run it is held against this."""

from __future__ import annotations

import numpy as np

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels import activation, conv, eltwise, norm, pool, resample, shape_ops
from cosparse.kernels.contract import Array, Graph, Node, Reference
from cosparse.kernels.view import outputs_of

REFERENCES: dict[str, Reference] = {
    op: reference for family in (conv, eltwise, activation, pool, norm, resample, shape_ops) for op, reference in family.REFERENCES.items()
}


def run_node(node: Node, *inputs: np.ndarray) -> Array:
    """The node's output for its inputs, float64; UnsupportedError for an unknown op, ShapeError where the inputs do not fit."""
    if node.op not in REFERENCES:
        raise UnsupportedError(f"node {node.name}", "op one of " + ", ".join(sorted(REFERENCES)), repr(node.op))
    # NaN and infinity are values like others here: they travel on as IEEE 754 has it.
    with np.errstate(all="ignore"):
        return REFERENCES[node.op](node, *(np.asarray(x, np.float64) for x in inputs))


def trace(graph: Graph, *inputs: np.ndarray) -> dict[str, Array]:
    """All values of the network by name, inputs included, in the order they come to be."""
    if len(inputs) != len(graph.inputs):
        raise ShapeError("inputs", f"{len(graph.inputs)} ({', '.join(i.name for i in graph.inputs)})", f"{len(inputs)}")
    values: dict[str, Array] = {}
    for declared, given in zip(graph.inputs, inputs, strict=True):
        x = np.asarray(given, np.float64)
        if x.ndim != len(declared.shape) or x.shape[1] != declared.shape[1]:
            expected = f"shape {list(declared.shape)}, where batch, height and width are free"
            raise ShapeError(f"input {declared.name}", expected, str(list(x.shape)))
        values[declared.name] = x
    for node in graph.nodes:
        values[node.name] = run_node(node, *(values[name] for name in node.inputs))
    return values


def run(graph: Graph, *inputs: np.ndarray) -> tuple[Array, ...]:
    """The network's outputs, float64, in the shapes of their views, for inputs [N, C, H, W] or [N, F] of any float dtype."""
    return outputs_of(graph, trace(graph, *inputs))
