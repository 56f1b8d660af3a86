"""PyTorch, eager, in both memory layouts: which one is faster depends on the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosparse.bench.peers import Arrays, Runner, Shapes
from cosparse.bench.peers.torch_ops import OPS, Function
from cosparse.engine import artifact
from cosparse.engine.graph import Graph


def runners(graph: Graph, shapes: Shapes, threads: int) -> Sequence[Runner]:
    """The dense `graph` in planar and in channels-last layout, on `threads` threads (a setting of the whole process)."""
    torch.set_num_threads(threads)
    return [_runner(graph, shapes, "planar", torch.contiguous_format), _runner(graph, shapes, "channels_last", torch.channels_last)]


def save(graph: Graph, shapes: Shapes, folder: Path) -> Path:
    """Writes the dense network as an artifact: PyTorch has no file format of its own that is both plain and safe."""
    path = folder / "dense.cosparse"
    artifact.write(path, graph)
    return path


def load(path: Path, shapes: Shapes, threads: int) -> Callable[[Arrays], Arrays]:
    torch.set_num_threads(threads)
    return _runner(artifact.read(path), shapes, "channels_last", torch.channels_last).run


def _runner(graph: Graph, shapes: Shapes, label: str, layout: torch.memory_format) -> Runner:
    network = build(graph, shapes, layout)

    def bind(inputs: Arrays) -> Callable[[], object]:
        tensors = [_tensor(array, layout) for array in inputs]

        def call() -> object:
            with torch.inference_mode():
                return network(*tensors)

        return call

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return tuple(y.contiguous().numpy() for y in network(*(_tensor(array, layout) for array in inputs)))

    return Runner(label, run, bind)


def build(graph: Graph, shapes: Shapes, layout: torch.memory_format) -> Callable[..., tuple[Tensor, ...]]:
    """The network as a function of its input tensors. A value is dropped after its last reader, as the engine's arena does."""
    steps: list[tuple[Function, str, tuple[str, ...], list[str]]] = []
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        tensors = {role: _tensor(array, layout) for role, array in node.tensors.items()}
        done = [name for name in dict.fromkeys(node.inputs) if last_reader[name] == node.name and name not in graph.outputs]
        steps.append((OPS[node.op](node, tensors, shapes), node.name, node.inputs, done))
    names = [value.name for value in graph.inputs]

    def network(*inputs: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(names, inputs, strict=True))
        for function, name, sources, done in steps:
            values[name] = function(*[values[source] for source in sources])
            for spent in done:
                del values[spent]
        return tuple(values[name] for name in graph.outputs)

    return network


def _tensor(array: np.ndarray, layout: torch.memory_format) -> Tensor:
    # A copy: the artifact's arrays are read-only views, which PyTorch does not know.
    tensor = torch.from_numpy(np.array(array))
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor
