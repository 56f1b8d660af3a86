"""The dense network of any artifact as a torch module, made from the artifact alone: what the GPU's peers fold, fuse, compile and run.

Convolutions, linear layers, batch norms and ReLUs are torch's own modules, so that `fold` knows them; every other operator is one step that
tracing does not look into.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from cosparse.bench.gpu.fold import Whole
from cosparse.bench.peers import Shapes
from cosparse.engine.gpu.torch_ops import OPS, constants
from cosparse.engine.graph import Graph, Node
from cosparse.errors import UnsupportedError
from cosparse.kernels.view import view_sizes, views_of


@dataclass(frozen=True)
class Dense:
    """`module` takes [N, C, H, W] of the shapes that it was built for and gives the output; `names`: path of a module in it -> its node."""

    module: fx.GraphModule
    names: dict[str, str]


def build(graph: Graph, shapes: Shapes) -> Dense:
    """`graph` is dense (`bench.dense.densify`); `shapes` are those of all its values in this run. float32, on the CPU, in eval mode."""
    require_one(graph)
    modules: dict[str, nn.Module] = {}
    names: dict[str, str] = {}
    made = fx.Graph()
    values = {graph.inputs[0].name: made.placeholder("x")}

    def call(path: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        modules[path] = module
        return made.call_module(path, inputs)

    for place, node in enumerate(graph.nodes):
        inputs, path = [values[name] for name in node.inputs], f"step{place}"
        names[path] = node.name
        if node.op == "add" and len(set(node.inputs)) == 2 and len({tuple(shapes[name]) for name in node.inputs}) == 1:
            values[node.name] = made.call_function(torch.add, tuple(inputs))
            continue
        if node.op == "conv" and not _even_pad(node):
            top, left, bottom, right = _attrs(node)["pad"]
            inputs = [call(f"pad{place}", nn.ZeroPad2d((left, right, top, bottom)), *inputs)]
        values[node.name] = call(path, MODULES.get(node.op, Op)(node, shapes), *inputs)
    result, (view,) = values[graph.outputs[0]], views_of(graph)
    made.output(result if view is None else made.call_method("reshape", (result, view_sizes(view, shapes[graph.outputs[0]]))))
    made.lint()
    return Dense(fx.GraphModule(modules, made).eval(), names)


def require_one(graph: Graph) -> None:
    """Raises UnsupportedError unless the network has one input and one output: peers on a GPU take no more."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        found = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise UnsupportedError(f"network '{graph.name}'", "one input and one output to bench on a GPU", found, "bench it on the CPU")


class Op(Whole):
    """One operator of docs/artifact.md; its tensors are buffers, and the function is made anew when they move."""

    def __init__(self, node: Node, shapes: Shapes) -> None:
        super().__init__()
        for role, array in node.tensors.items():
            self.register_buffer(role, torch.tensor(array))
        for role, tensor in constants(node, shapes).items():
            self.register_buffer(role, tensor)
        self.node = replace(node, tensors={})
        self.shapes = {name: tuple(shapes[name]) for name in (*node.inputs, node.name)}
        self._make()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def _make(self) -> None:
        self.function: Callable[..., Tensor] = OPS[self.node.op](self.node, dict(self.named_buffers(recurse=False)), self.shapes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Op:
        super()._apply(fn, recurse)
        self._make()
        return self


def _conv(node: Node, shapes: Shapes) -> nn.Module:
    a = _attrs(node)
    pad = tuple(a["pad"][:2]) if _even_pad(node) else (0, 0)
    geometry = (tuple(a["kernel"]), tuple(a["stride"]), pad, tuple(a["dilation"]), a["groups"])
    return _with(node, nn.Conv2d(a["channels"], a["filters"], *geometry, bias="bias" in node.tensors, device="meta"))


def _linear(node: Node, shapes: Shapes) -> nn.Module:
    a = _attrs(node)
    return _with(node, nn.Linear(a["channels"], a["filters"], bias="bias" in node.tensors, device="meta"))


def _affine(node: Node, shapes: Shapes) -> nn.Module:
    if len(shapes[node.name]) != 4:
        return Op(node, shapes)
    made = nn.BatchNorm2d(node.tensors["scale"].size, eps=0.0)
    made.weight, made.bias = _parameter(node, "scale"), _parameter(node, "shift")
    return made


def _activation(node: Node, shapes: Shapes) -> nn.Module:
    return nn.ReLU() if node.attrs["kind"] == "relu" else Op(node, shapes)


MODULES: dict[str, Callable[[Node, Shapes], nn.Module]] = {"conv": _conv, "linear": _linear, "affine": _affine, "activation": _activation}


def _with(node: Node, made: Any) -> nn.Module:
    """The module with the node's weights, which it was made without."""
    made.weight = _parameter(node, "values")
    if "bias" in node.tensors:
        made.bias = _parameter(node, "bias")
    return made


def _parameter(node: Node, role: str) -> nn.Parameter:
    return nn.Parameter(torch.tensor(node.tensors[role]), requires_grad=False)


def _even_pad(node: Node) -> bool:
    pad = _attrs(node)["pad"]
    return pad[:2] == pad[2:]


def _attrs(node: Node) -> Any:
    return node.attrs
