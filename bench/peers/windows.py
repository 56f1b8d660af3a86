"""Pooling windows in the form that every runtime understands: explicit pads, no ceil rule, and the divisor of each average written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosparse.engine.graph import Node


def covering_pad(node: Node, source: Sequence[int], target: Sequence[int]) -> list[int]:
    """[top, left, bottom, right] with which exactly `target` [h, w] whole windows fit over `source` [h, w]."""
    a: Any = node.attrs
    dilation = a.get("dilation", [1, 1])
    need = [(target[i] - 1) * a["stride"][i] + dilation[i] * (a["kernel"][i] - 1) + 1 for i in (0, 1)]
    top, left = a["pad"][:2]
    return [top, left, max(0, need[0] - source[0] - top), max(0, need[1] - source[1] - left)]


def divisors(node: Node, source: Sequence[int], target: Sequence[int]) -> np.ndarray:
    """What each average of an `avg_pool` is divided by, [h, w] float32 (docs/artifact.md)."""
    a: Any = node.attrs
    if a["divisor"]:
        return np.full(tuple(target), a["divisor"], np.float32)
    along = []
    for i in (0, 1):
        before, after = (a["pad"][i], a["pad"][i + 2]) if a["count_pad"] else (0, 0)
        start = np.arange(target[i]) * a["stride"][i] - a["pad"][i]
        stop = start + a["kernel"][i]
        along.append(np.minimum(stop, source[i] + after) - np.maximum(start, -before))
    return np.maximum(np.outer(*along), 1).astype(np.float32)
