"""A network as an ONNX model with fixed shapes, which lets a runtime fold and plan as much as it can."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from cosparse.bench.peers import Shapes
from cosparse.bench.peers.onnx_build import Builder
from cosparse.bench.peers.onnx_ops import OPS
from cosparse.engine.graph import Graph
from cosparse.kernels.view import view_sizes, views_of

OPSET, IR_VERSION = 20, 10  # read by every ONNX Runtime from 1.18 on


def to_onnx(graph: Graph, shapes: Shapes) -> onnx.ModelProto:
    """The dense `graph` (cosparse.bench.dense.densify) for inputs of the shapes given; inputs and outputs are called in0.., out0.. ."""
    model = Builder({})
    names: dict[str, str] = {}
    for place, value in enumerate(graph.inputs):
        names[value.name] = f"in{place}"
        model.shapes[f"in{place}"] = shapes[value.name]
    for node in graph.nodes:
        model.shapes[node.name] = shapes[node.name]
        names[node.name] = OPS[node.op](model, node, *(names[source] for source in node.inputs))
        model.shapes[names[node.name]] = shapes[node.name]
    given = [view_sizes(view, shapes[output]) for output, view in zip(graph.outputs, views_of(graph), strict=True)]
    for place, (output, sizes) in enumerate(zip(graph.outputs, given, strict=True)):
        same = sizes == tuple(shapes[output])
        op, sources = ("Identity", [names[output]]) if same else ("Reshape", [names[output], model.integers(sizes)])
        model.nodes.append(helper.make_node(op, sources, [f"out{place}"]))
    inputs = [helper.make_tensor_value_info(names[v.name], TensorProto.FLOAT, shapes[v.name]) for v in graph.inputs]
    outputs = [helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, sizes) for i, sizes in enumerate(given)]
    content = helper.make_graph(model.nodes, graph.name, inputs, outputs, model.constants)
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cosparse")
