"""The whole network through torch's own operators: dense, channels-last, bias, addition and ReLU inside cuDNN's calls.

What the planner holds its own plan against at each set of shapes; where this is faster, this runs. Weights are the artifact's, transformed
back; values are float16 or bfloat16 as in the plan. torch's allocator gives the memory, inside the CUDA graph's own pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cosparse.engine.gpu.fuse import Step, fuse
from cosparse.engine.gpu.torch_ops import OPS, Function, constants
from cosparse.engine.graph import Graph
from cosparse.kernels.conv import unpack


class DenseNetwork:
    """Ready for one set of shapes (`shapes`: of every value)."""

    def __init__(self, graph: Graph, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device) -> None:
        self.names, self.outputs, self.dtype = [i.name for i in graph.inputs], list(graph.outputs), dtype
        self.steps = fuse(graph, shapes, ("relu",))
        make = {"conv": _conv, "linear": _linear}
        self.calls: list[Function] = []
        for step in self.steps:
            if step.node.op in make:
                self.calls.append(make[step.node.op](step, dtype, device))
            else:
                arrays = {role: torch.from_numpy(array.copy()) for role, array in step.node.tensors.items()} | constants(step.node, shapes)
                tensors = {role: tensor.to(device=device, dtype=dtype) for role, tensor in arrays.items()}
                self.calls.append(OPS[step.node.op](replace(step.node, tensors={}), tensors, shapes))
        self.last = {name: at for at, step in enumerate(self.steps) for name in step.reads}

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs for inputs [N, C, H, W] or [N, F] on the device, of any floating dtype."""
        values = {name: _laid(x.to(self.dtype)) for name, x in zip(self.names, inputs, strict=True)}
        for at, (step, call) in enumerate(zip(self.steps, self.calls, strict=True)):
            values[step.output] = call(*(values[name] for name in step.reads))
            for name in step.reads:
                if self.last[name] == at and name not in self.outputs:
                    values.pop(name, None)
        return [values[name] for name in self.outputs]


def _laid(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _placed(step: Step, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    bias = step.node.tensors.get("bias")
    weights = torch.from_numpy(unpack(step.node)).to(device=device, dtype=dtype)
    return _laid(weights), None if bias is None else torch.from_numpy(bias.copy()).to(device=device, dtype=dtype)


def _conv(step: Step, dtype: torch.dtype, device: torch.device) -> Function:
    weights, bias = _placed(step, dtype, device)
    attrs: Any = step.node.attrs
    top, left, bottom, right = attrs["pad"]
    even = (top, left) == (bottom, right)
    geometry = (attrs["stride"], [top, left] if even else [0, 0], attrs["dilation"], attrs["groups"])

    def run(x: Tensor, z: Tensor | None = None) -> Tensor:
        x = x if even else F.pad(x, (left, right, top, bottom))
        if step.act == "relu" and x.is_cuda:
            if z is None:
                return torch.cudnn_convolution_relu(x, weights, bias, *geometry)
            return torch.cudnn_convolution_add_relu(x, weights, z, 1.0, bias, *geometry)
        return _finished(F.conv2d(x, weights, bias, *geometry), z, step)

    return run


def _linear(step: Step, dtype: torch.dtype, device: torch.device) -> Function:
    weights, bias = _placed(step, dtype, device)
    matrix = weights[:, :, 0, 0].contiguous()
    return lambda x, z=None: _finished(F.linear(x, matrix, bias), z, step)


def _finished(y: Tensor, z: Tensor | None, step: Step) -> Tensor:
    y = y if z is None else y + z
    return torch.relu(y) if step.act == "relu" else y
