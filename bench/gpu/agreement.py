"""Does the GPU engine compute what the artifact says? Its error is held against that of cuDNN with the same numbers, in the same dtype.

The reference is the artifact's dense network (coefficients transformed back, zeros kept) in float64, on the GPU, where that takes a moment.
cuDNN in float16 makes an error against it by rounding weights and activations; the engine may make at most twice as much. Its inputs are
fresh normal random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosparse import _C
from cosparse.bench.check import PEER_FACTOR
from cosparse.bench.dense import densify
from cosparse.bench.gpu.device import require_cuda
from cosparse.engine import artifact
from cosparse.engine.gpu.torch_ops import OPS, Function
from cosparse.engine.graph import Graph
from cosparse.errors import Error
from cosparse.kernels.view import viewed, views_of

SLICE = 16
"""Images of one pass in float64: activations of a large batch would fill the memory."""

LARGEST_ERROR = {"float16": 0.02, "bfloat16": 0.16}
"""Of a dense peer, as `rms`, in any network."""

WRONG = 0.25
"""From this error on an answer is wrong, whoever else has it."""


class Network:
    """A dense graph as torch operators on one device, in one dtype."""

    def __init__(self, path: Path, number: torch.dtype, device: str = "cuda", graph: Graph | None = None) -> None:
        self.path, self.number, self.device = path, number, device
        self.graph = densify(artifact.read(path)) if graph is None else graph
        self.tensors = {
            node.name: {role: self._put(torch.tensor(array)) for role, array in node.tensors.items()} for node in self.graph.nodes
        }

    def __call__(self, x: Tensor) -> Tensor:
        """First output, [N, ...], of the input x [N, C, H, W]."""
        shapes = _C.infer_shapes(_C.read_artifact(self.path), [list(x.shape)])
        values = {self.graph.inputs[0].name: self._put(x)}
        last = {name: node.name for node in self.graph.nodes for name in node.inputs}
        with torch.no_grad():
            for node in self.graph.nodes:
                function: Function = OPS[node.op](node, self.tensors[node.name], shapes)
                values[node.name] = function(*(values[name] for name in node.inputs))
                for name in set(node.inputs):
                    if last[name] == node.name and name not in self.graph.outputs:
                        del values[name]
        return viewed(values[self.graph.outputs[0]], views_of(self.graph)[0])

    def _put(self, value: Tensor) -> Tensor:
        value = value.to(device=self.device, dtype=self.number if value.is_floating_point() else None)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 and self.number.itemsize == 2 else value


LARGEST_ERROR = {"float16": 0.02, "bfloat16": 0.16}
"""Of a peer in any network."""

WRONG = 0.25
"""From this error on an answer is wrong, whoever has it."""


@dataclass(frozen=True)
class Agreement:
    """Root mean square errors relative to the reference's own size: the engine's, cuDNN's in float16, and their ratio."""

    engine: float
    peer: float
    finite: bool

    @property
    def ratio(self) -> float:
        return self.engine / self.peer if self.peer else (float("inf") if self.engine else 0.0)

    @property
    def passed(self) -> bool:
        return self.finite and self.ratio <= PEER_FACTOR  # False for NaN

    def to_json(self) -> dict[str, Any]:
        figures = {"engine_rms_rel_err": self.engine, "cudnn_rms_rel_err": self.peer, "ratio": self.ratio}
        return {key: float(f"{value:.4g}") if math.isfinite(value) else None for key, value in figures.items()} | {"passed": self.passed}


def rms(got: Tensor, expected: Tensor) -> float:
    """||got - expected|| / ||expected|| in float64; infinite where the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    wide = expected.double()
    return float((got.double() - wide).norm() / wide.norm().clamp_min(1e-300))


def allowed_of_peers(half: float, dtype: str) -> float:
    """What a dense peer may be off, as `rms`: far above its roundings, far below a wrong answer. `half`: how far torch's own layers in
    `dtype` are, as networks whose parts cancel lose more than others."""
    return min(max(LARGEST_ERROR[dtype], PEER_FACTOR * half), WRONG)


class Referee:
    """The networks that an artifact's outputs are held against, made once for all batch sizes."""

    def __init__(self, path: Path) -> None:
        require_cuda()
        self.exact = Network(path, torch.float64)
        self.half = Network(path, torch.float16, graph=self.exact.graph)

    def judge(self, engine: Callable[[Tensor], Any], x: Tensor) -> Agreement:
        """x: [N, C, H, W] float32 on the GPU. The engine runs on all of it at once."""
        got = engine(x)
        if not isinstance(got, Tensor):
            raise Error("engine's output", "one torch tensor", type(got).__name__)
        wanted, peer = in_slices(self.exact, x), in_slices(self.half, x)
        finite = bool(torch.isfinite(got).all() and torch.isfinite(peer).all())
        return Agreement(rms(got, wanted), rms(peer, wanted), finite)


def in_slices(network: Callable[[Tensor], Tensor], x: Tensor, size: int = SLICE) -> Tensor:
    """The network's answers, a few images at a time."""
    return torch.cat([network(part).clone() for part in x.split(size)])


def random_input(shape: Sequence[int], seed: int) -> Tensor:
    """Normal random numbers, float32 on the GPU."""
    return torch.randn(tuple(shape), generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
