"""Where the time of a network goes: each step of the engine beside cuDNN's dense layer, and beside what the hardware allows.

floor      the larger of bytes / bandwidth and operations / peak, both measured: no form runs much faster
of floor   floor / measured; above 1 where what is read lies in the L2
realised   (dense us / us) / (dense operations / executed ones)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cosparse.bench.gpu.device import Ceilings
from cosparse.bench.gpu.fold import ConvRelu, fused
from cosparse.bench.gpu.peers import capture, half
from cosparse.bench.gpu.timing import median_s
from cosparse.engine.gpu.fuse import AND
from cosparse.engine.graph import Graph, Node

LAUNCHES = 10  # in one graph, so that the start of a graph does not count
ROUNDS = 20
WORD = 2  # bytes of a float16


def dense_us(model: nn.Module, x: Tensor, number: torch.dtype = torch.float16) -> dict[str, float]:
    """Module path -> us of that layer alone, dense, in 16 bits: cuDNN with bias, addition and ReLU in its call. x: [N, C, H, W].

    Layers of one signature are measured once. The inputs are random numbers, not the network's own.
    """
    network = half(fused(model), number)
    seen: dict[str, tuple[nn.Module, tuple[torch.Size, ...]]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[path] = module, tuple(value.shape for value in arguments)

        return hook

    handles = [
        module.register_forward_pre_hook(note(path))
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | ConvRelu)
    ]
    with torch.no_grad():
        network(x.to(number).contiguous(memory_format=torch.channels_last))
    for handle in handles:
        handle.remove()
    known: dict[str, float] = {}
    found = {}
    for path, (module, shapes) in seen.items():
        geometry = getattr(module, "geometry", None) or str(module)
        signature = f"{type(module).__name__} {geometry} {[list(p.shape) for p in module.parameters()]} {shapes}"
        if signature not in known:
            known[signature] = _alone(module, shapes, number)
        found[path] = known[signature]
    return found


def _alone(module: nn.Module, shapes: Sequence[torch.Size], number: torch.dtype) -> float:
    values = [torch.randn(shape, device="cuda", dtype=number) for shape in shapes]
    values = [v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in values]

    def several(x: Tensor) -> Tensor:
        for _ in range(LAUNCHES):
            y = module(x, *values[1:])
        return y

    replay, _ = capture(several, values[0])
    return 1e6 * median_s(replay, ROUNDS) / LAUNCHES


def moved_bytes(nodes: Sequence[Node], shapes: Mapping[str, Sequence[int]], weights: int, *, residual: bool) -> int:
    """Fewest bytes that a step moves: its weights, the input channels that it uses, its output, and the residual that it adds; float16.
    `nodes` that are one step have one output; what a pool reads of its convolution is not moved."""
    output = math.prod(shapes[nodes[-1].name])
    readers = [node for node in nodes if node.op == nodes[0].op]
    inputs = sum(math.prod(shapes[name]) * used_channels(node) for node in readers for name in node.inputs)
    return round(weights + WORD * (inputs + output * (2 if residual else 1)))


def used_channels(node: Node) -> float:
    """Share of the input channels that some stored column reads; 1 for a layer that is not stored in blocks."""
    if "columns" not in node.tensors or not node.attrs.get("channels"):
        return 1.0
    kernel: Any = node.attrs.get("kernel", [1, 1])
    taps = int(np.prod(kernel))
    return len(np.unique(node.tensors["columns"].astype(np.int64) // taps)) / int(node.attrs["channels"])  # type: ignore[arg-type]


def rows(
    profile: Sequence[Any],
    plan: Sequence[Any],
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    dense: Mapping[str, float],
    ceilings: Ceilings,
) -> list[dict[str, Any]]:
    """One entry for each step of the engine, in order. `profile` and `plan` are the engine's rows for the same shape."""
    nodes = {node.name: node for node in graph.nodes}
    made = []
    for timed, planned in zip(profile, plan, strict=True):
        us = float(getattr(timed, "median_us", None) or timed.us)
        executed = planned.flops + getattr(planned, "basis_flops", 0.0)
        names = planned.name.split(AND)
        parts = [nodes[name] for name in names if name in nodes]
        moved = moved_bytes(parts, shapes, planned.bytes, residual="+add" in planned.kernel) if parts else planned.bytes
        byte_us, flop_us = ceilings.floors_us(moved, executed)
        floor = max(byte_us, flop_us)
        layers = [name for name in names if name not in {node.name for node in parts[1:] if node.op == "max_pool"}]
        dense_time = sum(dense[name] for name in layers) if all(name in dense for name in layers) else None
        realised = dense_time / us * executed / planned.dense_flops if dense_time and us and planned.dense_flops else None
        made.append({
            "name": planned.name,
            "kernel": planned.kernel,
            "density": round(planned.density, 4),
            "us": round(us, 2),
            "dense_us": round(dense_time, 2) if dense_time is not None else None,
            "speedup": round(dense_time / us, 3) if dense_time and us else None,
            "realised": round(realised, 3) if realised is not None else None,
            "bytes": moved,
            "flops": executed,
            "dense_flops": planned.dense_flops,
            "floor_us": round(floor, 2),
            "bound": "bytes" if byte_us >= flop_us else "flops",
            "of_floor": round(floor / us, 3) if us else None,
            "why": planned.why,
        })  # fmt: skip
    return made


def totals(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the steps, us, and the losers: steps that are slower than cuDNN's dense layer."""
    return {
        "us": round(sum(row["us"] for row in made), 1),
        "floor_us": round(sum(row["floor_us"] for row in made), 1),
        "dense_us": round(sum(row["dense_us"] or 0.0 for row in made), 1),
        "losing": [row["name"] for row in made if row["speedup"] is not None and row["speedup"] < 1],
    }
