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


def isas_of(dtype: str) -> list[str]:
    """The instruction sets that have convolutions of their own for this dtype and that this machine runs."""
    return list(dict.fromkeys(row["isa"] for row in _C.kernels() if row["op"] == "conv" and row["dtype"] == dtype and row["available"]))


def engine_of(
    graph: Graph, *, isa: str = "", threads: int = 2, tile: int = 0, dtype: str = "float32", calibration: Sequence[np.ndarray] = ()
) -> Engine:
    """calibration: for int8, one array for each input of the graph."""
    content = _C.parse_artifact(artifact.to_bytes(graph))
    samples = [calibration] if calibration else []
    return Engine(content, threads=threads, isa=isa, tile=tile, poison=True, dtype=dtype, calibration=samples)


def in_transform(engine: Engine) -> bool:
    """Whether the first step works on transformed activations; else its weights were transformed back."""
    return engine.plan.rows[0].why.startswith("sparse in the DCT")


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
