"""PyTorch, eager, in both memory layouts: which one is faster depends on the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosparse.bench.peers import Arrays, Runner, Shapes
from cosparse.engine import artifact
from cosparse.engine.gpu.torch_ops import OPS, Function
from cosparse.engine.graph import Graph
from cosparse.kernels.view import outputs_of

LAYOUTS = {"planar": torch.contiguous_format, "channels_last": torch.channels_last}
Network = Callable[..., tuple[Tensor, ...]]


def ways(dtype: str) -> Sequence[str]:
    return tuple(LAYOUTS)


def save(graph: Graph, shapes: Shapes, folder: Path, threads: int, dtype: str, samples: Sequence[Arrays]) -> Path:
    """Writes the dense network as an artifact: PyTorch has no file format of its own that is both plain and safe."""
    path = folder / "dense.cosparse"
    artifact.write(path, graph)
    return path


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    """The network in one layout, all values in `dtype`, on `threads` threads (a setting of the whole process)."""
    torch.set_num_threads(threads)
    number, layout = getattr(torch, dtype), LAYOUTS[label]
    return runner(build(artifact.read(path), shapes, layout, number), label, layout, number)


def runner(network: Network, label: str, layout: torch.memory_format, number: torch.dtype) -> Runner:
    """`network` behind the interface of all peers."""

    def bind(inputs: Arrays) -> Callable[[], object]:
        tensors = [tensor(array, layout, number) for array in inputs]

        def call() -> object:
            with torch.inference_mode():
                return network(*tensors)

        return call

    def run(inputs: Arrays) -> Arrays:
        outputs = network(*(tensor(array, layout, number) for array in inputs))
        return tuple(y.to(torch.float32).contiguous().numpy() for y in outputs)

    return Runner(label, torch.inference_mode()(run), bind, str(number).removeprefix("torch."))


def build(graph: Graph, shapes: Shapes, layout: torch.memory_format, number: torch.dtype = torch.float32) -> Network:
    """The network as a function of its input tensors. A value is dropped after its last reader, as the engine's arena does."""
    steps: list[tuple[Function, str, tuple[str, ...], list[str]]] = []
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        tensors = {role: tensor(array, layout, number) for role, array in node.tensors.items()}
        done = [name for name in dict.fromkeys(node.inputs) if last_reader[name] == node.name and name not in graph.outputs]
        steps.append((OPS[node.op](node, tensors, shapes), node.name, node.inputs, done))
    names = [value.name for value in graph.inputs]

    def network(*inputs: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(names, inputs, strict=True))
        for function, name, sources, done in steps:
            values[name] = function(*[values[source] for source in sources])
            for spent in done:
                del values[spent]
        return outputs_of(graph, values)

    return network


def tensor(array: np.ndarray, layout: torch.memory_format, number: torch.dtype) -> Tensor:
    """A copy in that layout and dtype: the artifact's arrays are read-only views, which PyTorch does not know."""
    made = torch.from_numpy(np.array(array)).to(number)
    return made.contiguous(memory_format=layout) if made.ndim == 4 else made
