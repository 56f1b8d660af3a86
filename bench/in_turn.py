"""Artifacts as engines that are profiled in turn, layer by layer: what the tools that measure latency tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cosparse
from cosparse.bench.peers import Arrays
from cosparse.bench.settings import Settings
from cosparse.compress.pack import owner
from cosparse.engine.engine import Engine
from cosparse.engine.graph import Graph, consumers


def load(path: Path, settings: Settings, calibration: Arrays) -> Engine:
    """The engine of an artifact as `settings` want it; `calibration` is for int8 alone."""
    options: dict[str, Any] = {"calibration": calibration} if settings.dtype == "int8" else {}
    return cosparse.load(path, threads=settings.threads, isa=settings.isa, dtype=settings.dtype, **options)


def own_layer(layers: Iterable[str]) -> Callable[[str], str]:
    """Step -> the layer whose step it is, "" where it is none of these."""
    names = dict.fromkeys(layers)
    return lambda step: owner(step, names) or ""


def next_layer(graph: Graph, layers: Iterable[str]) -> Callable[[str], str]:
    """Step -> its own layer, else the first that reads what it gives, through further steps; "" where none does.

    A pool or an addition has the channels that the next layer reads, so its time is a function of that layer's widths.
    """
    own, readers = own_layer(layers), consumers(graph)
    found: dict[str, str] = {}
    for node in reversed(graph.nodes):
        found[node.name] = own(node.name) or next((found[reader] for reader in readers[node.name] if found[reader]), "")
    return lambda step: found.get(step) or own(step)


def layer_medians(
    engines: Mapping[str, Engine], inputs: Arrays, layers: Sequence[str], charged: Callable[[str], str], rounds: int, repeat: int
) -> dict[str, dict[str, float]]:
    """Engine -> layer -> median us of the steps that are `charged` to it; under "" those of all that are charged to none.

    Each of the rounds runs every engine `repeat` times, one engine after the other, so that drift hits all alike.
    """
    taken: dict[str, dict[str, list[float]]] = {label: {} for label in engines}
    for _ in range(rounds):
        for label, engine in engines.items():
            sums = dict.fromkeys(["", *layers], 0.0)
            for row in engine.profile(*inputs, repeat=repeat):
                sums[charged(row.name)] += row.us
            for name, us in sums.items():
                taken[label].setdefault(name, []).append(us)
    return {label: {name: float(np.median(us)) for name, us in one.items()} for label, one in taken.items()}
