"""A network of one convolution with random blocks: what micro-benchmarks and yardsticks run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosparse.engine.graph import Attr, Graph, Input, Node


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 whose output is as large as its input, [channels, size, size] -> [filters, size, size]."""

    filters: int
    channels: int
    size: int
    kernel: int

    @property
    def columns(self) -> int:
        return self.channels * self.kernel**2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel}-{self.channels}to{self.filters}-{self.size}px"


def network(layer: Layer, density: float, block: int = 8, seed: int = 0) -> Graph:
    """The layer with `density` of its blocks at random places, in the DCT where the kernel is larger than 1x1."""
    rng = np.random.default_rng(seed)
    keep = rng.random((-(-layer.filters // block), layer.columns)) < density
    row, column = np.nonzero(keep)
    values = rng.standard_normal((len(row), block), np.float32) / np.sqrt(layer.columns * density)
    values[row * block + block > layer.filters, layer.filters % block or block :] = 0  # a partial block row is padded with zeros
    index = np.uint16 if layer.columns <= 1 << 16 else np.uint32
    ends = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.uint32)
    geometry: dict[str, Attr] = {
        "kernel": [layer.kernel] * 2,
        "stride": [1, 1],
        "dilation": [1, 1],
        "pad": [layer.kernel // 2] * 4,
        "groups": 1,
    }
    stored: dict[str, Attr] = {"transform": "dct" if layer.kernel > 1 else "identity", "format": "block", "block": block}
    tensors = {"values": values.astype(np.float32), "columns": column.astype(index), "rows": ends}
    conv = Node("conv", "conv", ("x",), {"filters": layer.filters, "channels": layer.channels, **geometry, **stored}, tensors)
    return Graph(str(layer), (Input("x", (None, layer.channels, layer.size, layer.size)),), ("conv",), (conv,))


def image(layer: Layer, seed: int = 0) -> np.ndarray:
    """A normal random input, float32 [1, C, H, W]."""
    return np.random.default_rng(seed).standard_normal((1, layer.channels, layer.size, layer.size), np.float32)
