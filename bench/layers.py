"""The per-layer part of a bench result: what each step of the engine costs, and what the same step costs dense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cosparse
from cosparse.bench.peers import Arrays
from cosparse.engine import artifact
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph

REPEAT = 50


def layer_rows(engine: Engine, dense: Graph, inputs: Arrays, folder: Path) -> list[dict[str, Any]]:
    """One row a step: name, kernel, density, flops, bytes, us, gflops, dense_us, realised, why.

    `flops` are the multiply-adds executed, basis step included; `gflops` counts two operations for each. `dense_us` is the same step in
    this engine with dense weights. `realised` = (dense_us / us) / (dense multiply-adds / executed ones), None for steps without weights.
    """
    path = folder / "twin.cosparse"
    artifact.write(path, dense)
    twin = cosparse.load(path, threads=engine.threads, isa=engine.isa)
    dense_us = {row.name: row.us for row in twin.profile(*inputs, repeat=REPEAT)}
    rows = []
    for step, timed in zip(engine.plan_for(*(x.shape for x in inputs)), engine.profile(*inputs, repeat=REPEAT), strict=True):
        executed, us, before = step.flops + step.basis_flops, timed.us, dense_us.get(step.name)
        realised = before / us * executed / step.dense_flops if before and us and step.dense_flops else None
        row = {"name": step.name, "kernel": step.kernel, "density": round(step.density, 5), "flops": executed, "bytes": step.bytes}
        row |= {"us": round(us, 3), "gflops": round(2e-3 * executed / us, 3) if us else None}
        row |= {"dense_us": None if before is None else round(before, 3), "realised": None if realised is None else round(realised, 4)}
        rows.append(row | {"why": step.why})
    return rows
