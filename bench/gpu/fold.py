"""Dense networks made ready for inference, so that the peer is as fast as it can be made: batch norms folded, what follows fused.

Both passes trace the module with torch.fx; the network that comes in is left as it was.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ADDS = (operator.add, operator.iadd, torch.add)
RELUS = (F.relu, torch.relu)


class Whole(nn.Module):
    """A module that tracing takes as one step and does not look into."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Whole) or super().is_leaf_module(m, module_qualified_name)


def folded(model: nn.Module) -> fx.GraphModule:
    """The network with each batch norm multiplied into the convolution before it, where nobody else reads that; same function."""
    own = copy.deepcopy(model).eval()
    traced = fx.GraphModule(own, _Tracer().trace(own))
    modules = dict(traced.named_modules())
    calls = _calls(traced)
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(_module(modules, node), nn.BatchNorm2d) or not isinstance(source, fx.Node):
            continue
        conv = _module(modules, source)
        if isinstance(conv, nn.Conv2d) and len(source.users) == 1 and calls[str(source.target)] == calls[str(node.target)] == 1:
            fused = fuse_conv_bn_eval(conv, modules[str(node.target)])
            modules[str(source.target)] = fused
            _replace(traced, str(source.target), fused)
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    return _finished(traced)


class ConvRelu(nn.Module):
    """relu(conv(x) + bias + z) in one call of cuDNN, z optional; on the CPU the same in single steps."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        if not x.is_cuda:
            y = F.conv2d(x, self.weight, self.bias, *self.geometry)
            return torch.relu(y if z is None else y + z)
        if z is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, *self.geometry)
        return torch.cudnn_convolution_add_relu(x, self.weight, z, 1.0, self.bias, *self.geometry)


def fused(model: nn.Module) -> fx.GraphModule:
    """`folded`, with convolution + ReLU and convolution + addition + ReLU as one call each where nobody reads what lies between."""
    traced = folded(model)
    modules = dict(traced.named_modules())
    calls = _calls(traced)

    def convolution(node: Any) -> nn.Conv2d | None:
        module = _module(modules, node) if isinstance(node, fx.Node) and len(node.users) == 1 else None
        plain = isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module if plain and calls[str(node.target)] == 1 else None  # type: ignore[return-value]

    for node in list(traced.graph.nodes):
        if not isinstance(_module(modules, node), nn.ReLU) and not (node.op == "call_function" and node.target in RELUS):
            continue
        before, other = node.args[0], None
        if before.op == "call_function" and before.target in ADDS and len(before.users) == 1:
            pair = [(a, b) for a, b in (before.args[:2], before.args[1::-1]) if convolution(a) is not None and isinstance(b, fx.Node)]
            # Of two convolutions that are added the one computed last: the other's value is there by then.
            order = {each: place for place, each in enumerate(traced.graph.nodes)}
            source, other = max(pair, key=lambda found: order[found[0]], default=(None, None))
        else:
            source = before
        conv = convolution(source)
        if conv is None or source is None:
            continue
        _replace(traced, str(source.target), ConvRelu(conv))
        with traced.graph.inserting_before(node):
            arguments = (source.args[0],) if other is None else (source.args[0], other)
            made = traced.graph.call_module(str(source.target), arguments)
        node.replace_all_uses_with(made)
        for spent in dict.fromkeys((node, before, source)):
            traced.graph.erase_node(spent)
    return _finished(traced)


def _module(modules: dict[str, nn.Module], node: fx.Node) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _calls(traced: fx.GraphModule) -> dict[str, int]:
    """Module path -> times it is called: one that is called twice has two sets of readers."""
    counts: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _replace(traced: fx.GraphModule, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(traced.get_submodule(parent), name, module)


def _finished(traced: fx.GraphModule) -> fx.GraphModule:
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
