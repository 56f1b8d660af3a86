"""PyTorch compiled by torch.compile, weights frozen into the code, which lets it fold and prepack them.

The compiler chooses the memory layout of every value itself, so that there is one way only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch._inductor import config
from torch.fx.experimental.proxy_tensor import make_fx

from cosparse.bench.peers import Runner, Shapes
from cosparse.bench.peers.time_limit import time_limit
from cosparse.bench.peers.torch_peer import build, runner, save
from cosparse.engine import artifact

__all__ = ["load", "save", "ways"]
LIMIT_S = 180
LABEL = "inductor, frozen"


def ways(dtype: str) -> Sequence[str]:
    return (LABEL,)


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    """The compiled network; Error where the compiler takes more than LIMIT_S seconds."""
    torch.set_num_threads(threads)
    graph, number = artifact.read(path), getattr(torch, dtype)
    example = [torch.zeros(shapes[value.name], dtype=number) for value in graph.inputs]
    with time_limit(LIMIT_S, "peer torch.compile", "leave it out of --against"), torch.inference_mode():
        # Traced to a module whose weights are its own: only such weights can be frozen.
        traced = make_fx(build(graph, shapes, torch.contiguous_format, number))(*example)
        with config.patch(freezing=True):
            network = torch.compile(traced, dynamic=False)
            network(*example)
    return runner(network, label, torch.contiguous_format, number)
