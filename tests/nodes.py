"""Nodes and graphs for tests, built without the engine: docs/artifact.md's attributes with defaults, and random block weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FakeNode:
    name: str
    op: str
    inputs: tuple[str, ...] = ("x",)
    attrs: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeInput:
    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class FakeGraph:
    inputs: tuple[FakeInput, ...]
    nodes: tuple[FakeNode, ...]
    outputs: tuple[str, ...]
    views: tuple[Any, ...] = ()


def node(op: str, tensors: dict[str, np.ndarray] | None = None, /, **attrs: Any) -> FakeNode:
    return FakeNode(f"a_{op}", op, ("x",), attrs, tensors or {})


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def random_blocks(rng: np.random.Generator, filters: int, columns: int, r: int, density: float) -> dict[str, np.ndarray]:
    """values, columns, rows of random r x 1 blocks over [filters, columns]; the first block row is empty, the last full if density > 0."""
    keep = rng.random((-(-filters // r), columns)) < density
    keep[0] = False
    keep[-1] = density > 0
    return kept_blocks(rng, filters, keep, r)


def kept_blocks(rng: np.random.Generator, filters: int, keep: np.ndarray, r: int) -> dict[str, np.ndarray]:
    """values, columns, rows of random blocks where keep [block rows, columns] says so."""
    columns = keep.shape[1]
    values = normal(rng, *keep.shape, r)
    values[-1, :, filters - (len(keep) - 1) * r :] = 0
    return {
        "values": values[keep],
        "columns": np.nonzero(keep)[1].astype(np.uint16 if columns <= 65536 else np.uint32),
        "rows": np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.uint32),
    }


def conv(
    rng: np.random.Generator,
    filters: int,
    channels: int,
    kernel: Sequence[int],
    *,
    stride: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0, 0, 0),
    groups: int = 1,
    transform: str = "identity",
    block: int = 0,
    density: float = 0.3,
    extras: Sequence[str] = ("bias",),
) -> FakeNode:
    """A conv with random weights; `block` 0 is the dense format, `extras` lists which of scale and bias it has."""
    per_group = channels // groups
    if block:
        tensors = random_blocks(rng, filters, per_group * kernel[0] * kernel[1], block, density)
    else:
        tensors = {"values": normal(rng, filters, per_group, *kernel)}
    tensors |= {role: normal(rng, filters) for role in extras}
    attrs = {"filters": filters, "channels": channels, "kernel": list(kernel), "stride": list(stride), "dilation": list(dilation)}
    attrs |= {"pad": list(pad), "groups": groups, "transform": transform, "format": "block" if block else "dense", "block": block or 1}
    return FakeNode("a_conv", "conv", ("x",), attrs, tensors)
