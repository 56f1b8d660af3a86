"""The figures of one candidate of a bench result, from its times in turn with the others and from its start alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosparse.bench import cold
from cosparse.bench.check import Check
from cosparse.bench.contest import Opened, way_of
from cosparse.bench.environment import version
from cosparse.bench.timing import SUMMARY, samples_ms, summary

Times = Mapping[str, np.ndarray]
Alone = Mapping[str, Mapping[str, float]]


def figures(seconds: np.ndarray | None, alone: Mapping[str, float] | None) -> dict[str, Any]:
    """Summary and samples of times [calls], and the cold start; None where it was not timed or not started."""
    timed: dict[str, Any] = dict.fromkeys(SUMMARY) if seconds is None else summary(seconds)
    samples = {"samples_ms": [] if seconds is None else samples_ms(seconds)}
    return timed | samples | (dict(alone) if alone else dict.fromkeys(cold.FIGURES))


def engine_row(times: Times, twin: str, alone: Alone, needed_bytes: int) -> dict[str, Any]:
    """The engine's figures, and what only it has.

    dense_ms: median of its dense `twin`. memory_ratio: what loading and one run added to the process, over `needed_bytes`.
    """
    cold_start = alone.get(cold.ENGINE)
    dense_ms = round(float(np.median(times[twin])) * 1e3, 5) if twin in times else None
    ratio = round(cold_start["grown_mb"] * 1e6 / needed_bytes, 3) if cold_start else None
    return figures(times.get(cold.ENGINE), cold_start) | {"dense_ms": dense_ms, "memory_ratio": ratio}


def peer_row(one: Opened, times: Times, alone: Alone, checks: Mapping[str, Check], dtype: str) -> dict[str, Any]:
    """A peer's figures in its fastest way, whose `label` is given, and how close that way's outputs are."""
    label = way_of(one, times)
    key = f"{one.peer.name}/{label}"
    about = {"dtype": dtype, "version": version(one.peer.package), "label": label}
    return figures(times.get(key), alone.get(one.peer.name)) | about | checks[key].closeness.to_json()
