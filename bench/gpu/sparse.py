"""Sparse peers of single layers: products W x of the shape of a 1x1 convolution, by what torch itself has for sparse weights.

    dense     cuBLAS, the same product with all weights
    bsr       block compressed rows (torch.sparse), square blocks of the best of SIZES, random ones at the density asked for
    2:4       semi-structured: two of four, whatever the density asked for, since it knows no other

The blocks of `bsr` lie as suits it, not as an artifact's do: at equal density a mask of its own shape is the best case for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosparse.bench.gpu.device import require_cuda
from cosparse.bench.gpu.peers import Peer, capture
from cosparse.bench.gpu.timing import Device, in_turn
from cosparse.bench.layer_net import Layer, network
from cosparse.engine import artifact
from cosparse.errors import UnsupportedError

SIZES = (16, 32, 64)
LAYERS = tuple(Layer(o, c, size, 1) for o, c, size in ((256, 64, 56), (128, 512, 28), (1024, 256, 14), (256, 1024, 14), (512, 2048, 7)))
"""Five of ResNet-50, one or two of each stage."""


@dataclass(frozen=True, eq=False)
class Product:
    """weight [O, K] and x [K, pixels], float16 on the GPU."""

    weight: Tensor
    x: Tensor


def product(layer: Layer, batch: int, seed: int = 0) -> Product:
    """Normal random weights and pixels of so many images."""
    require_cuda()
    generator = torch.Generator("cuda").manual_seed(seed)
    pixels = batch * layer.size**2

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda").half()

    return Product(normal(layer.filters, layer.columns) * layer.columns**-0.5, normal(layer.columns, -(-pixels // 8) * 8))


def dense(case: Product) -> Peer:
    replay, output = capture(lambda x: torch.mm(case.weight, x), case.x)
    return Peer("dense", replay, output, f"torch {torch.__version__}, cuBLAS")


def bsr(case: Product, density: float, size: int, seed: int = 0) -> Peer:
    """x W^T with W in blocks of size x size; output [pixels, O]."""
    rows, columns = (length // size for length in case.weight.shape)
    if rows * size != case.weight.shape[0] or columns * size != case.weight.shape[1]:
        raise UnsupportedError("peer bsr", f"sides that are multiples of {size}", str(list(case.weight.shape)))
    keep = _random_blocks(rows, columns, density, seed)
    masked = case.weight * keep.repeat_interleave(size, 0).repeat_interleave(size, 1)
    weight = masked.to_sparse_bsr((size, size))
    replay, output, how = _captured(lambda x: torch.nn.functional.linear(x, weight), case.x.t().contiguous())
    note = f"torch.sparse {torch.__version__}, {size}x{size} blocks, density {float(keep.mean()):.3f}{how}"
    return Peer(f"bsr{size}", replay, output, note)


def two_of_four(case: Product) -> Peer:
    """W x with the two largest of each four weights; output [O, pixels]."""
    groups = case.weight.reshape(case.weight.shape[0], -1, 4)
    keep = torch.zeros_like(groups).scatter_(2, groups.abs().topk(2, 2).indices, 1.0)
    weight = torch.sparse.to_sparse_semi_structured((groups * keep).reshape(case.weight.shape))
    replay, output, how = _captured(lambda x: torch.mm(weight, x), case.x)
    return Peer("2:4", replay, output, f"torch.sparse {torch.__version__}, half of the weights{how}")


def _captured(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Callable[[], object], Callable[[], Tensor], str]:
    """(replay, output, note): as a CUDA graph or, where the product asks the host something on its way, as a plain call."""
    try:
        return *capture(forward, x), ""
    except RuntimeError as error:
        torch.cuda.synchronize()
        why = (str(error).splitlines() or [""])[0][:100]
        return lambda: forward(x), lambda: forward(x), f"; no CUDA graph: {why}"


def opened(case: Product, density: float) -> tuple[dict[str, Peer], dict[str, str]]:
    """(peers by name, what each of the others answered)."""
    makers: dict[str, Callable[[], Peer]] = {"dense": lambda: dense(case), "2:4": lambda: two_of_four(case)}
    for size in SIZES:
        makers[f"bsr{size}"] = lambda size=size: bsr(case, density, size)  # type: ignore[misc]
    return tried(makers)


def tried(makers: Mapping[str, Callable[[], Peer]]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Opens each by itself: (those that run, what was wrong with the others)."""
    peers, missing = {}, {}
    for name, make in makers.items():
        try:
            peers[name] = make()
        except Exception as error:  # a peer's library raises what it likes; the others are measured all the same
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    return peers, missing


def measure(layer: Layer, batch: int, density: float, seconds: float, device: Device | None = None) -> dict[str, Any]:
    """One layer at so many images: us of each candidate."""
    peers, missing = opened(product(layer, batch), density)
    times = in_turn({name: peer.replay for name, peer in peers.items()}, seconds, device=device)
    us = {name: round(found.median_ms * 1e3, 2) for name, found in times.items()}
    notes = {name: peer.note for name, peer in peers.items()} | missing
    return {"layer": str(layer), "batch": batch, "density": density, "us": us, "notes": notes}


def engine_us(layer: Layer, batch: int, density: float, load: Callable[..., Any], block: int = 64) -> tuple[float, str]:
    """(us, kernel) of the same layer on the engine, random blocks of `block` filters. Its step alone: an engine's call also turns its input
    and output from and to the caller's layout, which inside a network happens once."""
    with tempfile.TemporaryDirectory(prefix="cosparse-") as folder:
        path = Path(folder) / "layer.cosparse"
        artifact.write(path, network(layer, density, block))
        engine = load(path, device="cuda", dtype="float16")
    x = torch.randn(batch, layer.channels, layer.size, layer.size, device="cuda")
    step = max(engine.profile(x), key=lambda row: row.us)
    return float(step.us), str(step.kernel)


def _random_blocks(rows: int, columns: int, density: float, seed: int) -> Tensor:
    """float16 [rows, columns] of 0 and 1: the share `density` of ones, to the nearest block, at random places."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.zeros(rows * columns)
    keep[torch.randperm(rows * columns, generator=generator)[: max(1, round(density * rows * columns))]] = 1.0
    return keep.reshape(rows, columns).half().cuda()
