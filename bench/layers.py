"""The per-layer part of a bench result: what each step of the engine costs, what the same step costs dense, and what the machine allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosparse.bench.peers import Arrays, Shapes
from cosparse.bench.roofline import Roofline
from cosparse.bench.rounding import BYTES
from cosparse.bench.traffic import step_bytes
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph

ROUNDS, REPEAT = 5, 10
# Medians of a step's time move by several percent from run to run; in a step of some microseconds the wake-up of a thread weighs more.
LOSS_FACTOR, LOSS_US = 1.10, 5.0


def layer_rows(engine: Engine, twin: Engine, graph: Graph, shapes: Shapes, inputs: Arrays, limits: Roofline | None) -> list[dict[str, Any]]:
    """One row a step.

    name, kernel, density, why: as in the plan. flops: multiply-adds executed, basis step included. bytes: weights as the kernel reads them.
    us: median. gflops, dense_gflops: operations a second, two a multiply-add, of those executed and of those of the dense layer.
    dense_us: the same step of `twin`, which is this engine with dense weights. realised: (dense_us / us) / (dense multiply-adds /
    executed ones). intensity: operations a byte of weights, inputs and outputs, each moved once. roof_gflops: what `limits` allow at this
    intensity; roof_share: gflops over it. None where a figure has no meaning, such as rates of a step without multiply-adds. A layer that
    runs by Winograd's tiles counts what its mask leaves, so its rates may exceed the machine's.
    """
    steps = list(engine.plan_for(*(x.shape for x in inputs)))
    us, dense_us = _in_turn(engine, twin, inputs)
    moved = step_bytes(graph, shapes, {step.name: step.bytes for step in steps}, BYTES[engine.dtype])
    rows = []
    for step in steps:
        executed, time, before = step.flops + step.basis_flops, us[step.name], dense_us.get(step.name)
        rate, dense_rate = (2e-3 * count / time if count and time else None for count in (executed, step.dense_flops))
        realised = before / time * executed / step.dense_flops if before and time and step.dense_flops else None
        intensity = 2 * executed / moved[step.name] if executed and moved[step.name] else None
        roof = limits.roof(intensity) if limits and intensity else None
        row = {"name": step.name, "kernel": step.kernel, "density": round(step.density, 5), "flops": executed, "bytes": step.bytes}
        row |= {"us": round(time, 3), "gflops": _rounded(rate, 3), "dense_gflops": _rounded(dense_rate, 3)}
        row |= {"dense_us": _rounded(before, 3), "realised": _rounded(realised, 4), "intensity": _rounded(intensity, 3)}
        row |= {"roof_gflops": _rounded(roof, 2), "roof_share": _rounded(rate / roof if rate and roof else None, 4)}
        rows.append(row | {"why": step.why})
    return rows


def losing_layers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The layers with weights that take longer than on our dense kernels, beyond what noise explains."""
    weighted = (row for row in rows if row["realised"] is not None)
    return [row["name"] for row in weighted if loses(row["us"], row["dense_us"])]


def loses(us: float, dense_us: float) -> bool:
    """Whether a time is longer than the dense one by more than noise: LOSS_FACTOR and LOSS_US."""
    return us > LOSS_FACTOR * dense_us + LOSS_US


def _in_turn(engine: Engine, twin: Engine, inputs: Arrays) -> tuple[dict[str, float], dict[str, float]]:
    """Median us of each step of both engines, in turn, so that drift hits both alike."""
    taken: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for _ in range(ROUNDS):
        for who, times in zip((engine, twin), taken, strict=True):
            for row in who.profile(*inputs, repeat=REPEAT):
                times.setdefault(row.name, []).append(row.us)
    own, dense = ({name: float(np.median(times)) for name, times in one.items()} for one in taken)
    return own, dense


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
