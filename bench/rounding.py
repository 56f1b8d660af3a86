"""How far a network computed in a short dtype may lie from its float32 result.

Storing a value rounds it. `STEP` is the root mean square of that error over the root mean square of the values:

- bfloat16 has 8 bits of significand, so a value is off by at most 2^-8 of itself, evenly spread: 2^-8 / sqrt(3).
- int8 has 127 steps up to the largest value, which for a million values of normal distribution lies at 5 times their root mean square;
  an error is evenly spread over a step: 5 / 127 / sqrt(12).

A layer multiplies coefficients by maps made from stored activations: three roundings a product, independent and of either sign, so that
the error of a sum relative to the sum is sqrt(3) STEP. Layers add their errors like independent variables: after `depth` of them it is
sqrt(3 depth) STEP. Twice that is allowed, since a signal may lose to cancellation what its errors do not.
"""

from __future__ import annotations

import math

from cosparse.bench.dense import WEIGHTED
from cosparse.engine.graph import Graph

DTYPES = ("float32", "bfloat16", "int8")
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
STEP = {"bfloat16": 2**-8 / math.sqrt(3), "int8": 5 / 127 / math.sqrt(12)}
ROUNDINGS = 3
MARGIN = 2.0


def allowed(graph: Graph, dtype: str) -> float:
    """Largest error of an output relative to its size, both as root mean squares, that roundings to `dtype` explain."""
    return MARGIN * math.sqrt(ROUNDINGS * max(1, depth(graph))) * STEP[dtype]


def depth(graph: Graph) -> int:
    """Most layers with weights on any way from an input to an output."""
    longest: dict[str, int] = {}
    for node in graph.nodes:
        longest[node.name] = max((longest.get(name, 0) for name in node.inputs), default=0) + (node.op in WEIGHTED)
    return max((longest[name] for name in graph.outputs), default=0)
