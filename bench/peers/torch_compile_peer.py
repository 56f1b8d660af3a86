"""PyTorch compiled by torch.compile, weights frozen into the code, which lets it fold and prepack them.

The compiler chooses the memory layout of every value itself, so that there is one way only. A compilation cannot be stopped from within,
so the first one runs in a process of its own, under a time limit; the code that it made stays in PyTorch's cache for those that follow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch._inductor import config
from torch.fx.experimental.proxy_tensor import make_fx

from cosparse.bench.peers import Arrays, Runner, Shapes, torch_peer
from cosparse.engine import artifact
from cosparse.engine.graph import Graph
from cosparse.errors import Error

LIMIT_S = 180
LABEL = "inductor, frozen"
LAYOUT = torch.contiguous_format


def ways(dtype: str) -> Sequence[str]:
    return (LABEL,)


def save(graph: Graph, shapes: Shapes, folder: Path, threads: int, dtype: str, samples: Sequence[Arrays]) -> Path:
    """Writes the network as an artifact and compiles it once; Error where that fails or takes more than LIMIT_S seconds."""
    path = torch_peer.save(graph, shapes, folder, threads, dtype, samples)
    request = json.dumps({"path": str(path), "shapes": {k: list(v) for k, v in shapes.items()}, "threads": threads, "dtype": dtype})
    command = [sys.executable, "-P", "-m", __name__]
    next_step = "leave it out of --against"
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise Error("peer torch.compile", f"a compilation of at most {LIMIT_S:g} s", "a longer one", next_step) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Error("peer torch.compile", "exit status 0 of the compilation", f"{done.returncode}: {last}", next_step)
    return path


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    """The compiled network."""
    torch.set_num_threads(threads)
    graph, number = artifact.read(path), getattr(torch, dtype)
    example = [torch.zeros(tuple(shapes[value.name]), dtype=number) for value in graph.inputs]
    with torch.inference_mode(), config.patch(freezing=True):
        # Traced to a module whose weights are its own: only such weights can be frozen.
        network = torch.compile(make_fx(torch_peer.build(graph, shapes, LAYOUT, number))(*example), dynamic=False)
        network(*example)
    return torch_peer.runner(network, label, LAYOUT, number)


def main() -> None:
    request = json.load(sys.stdin)
    load(Path(request["path"]), request["shapes"], request["threads"], request["dtype"], LABEL)


if __name__ == "__main__":
    main()
