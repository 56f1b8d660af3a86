"""Engines for tests: from nodes or a graph, without a file, with poisoned memory; and the bound that float32 results must keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from closeness import assert_close

from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.engine.graph import Graph, Input
from cosparse.kernels import reference

ISAS = [isa for isa in ("scalar", "avx2", "avx512") if any(row["isa"] == isa and row["available"] for row in _C.kernels())]
EPS = float(np.finfo(np.float32).eps)


def graph_of(nodes: Sequence[Any], inputs: dict[str, tuple[int, ...]], outputs: Sequence[str] | None = None) -> Graph:
    declared = tuple(Input(name, (None, *shape)) for name, shape in inputs.items())
    return Graph("test", declared, tuple(outputs or (nodes[-1].name,)), tuple(nodes))


def engine_of(graph: Graph, *, isa: str = "", threads: int = 2, tile: int = 0) -> Engine:
    return Engine(_C.parse_artifact(artifact.to_bytes(graph)), threads=threads, isa=isa, tile=tile, poison=True)


def check(graph: Graph, arrays: Sequence[np.ndarray], *, terms: int, gain: float = 1.0, **options: Any) -> None:
    """The engine's outputs against the float64 reference.

    terms: roundings behind one output; gain: the largest sum of |products| over max |input|.
    """
    engine = engine_of(graph, **options)
    got = engine(*arrays)
    want = reference.run(graph, *arrays)
    largest = max(float(np.abs(a).max()) for a in arrays)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        assert_close(g.astype(np.float64), w, terms=terms, scale=max(gain * largest, 1.0), eps=EPS)
