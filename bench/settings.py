"""What is measured and how: the settings of a bench, and the inputs that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cosparse.bench.environment import processors
from cosparse.bench.peers import Arrays, find, installed
from cosparse.bench.rounding import DTYPES
from cosparse.bench.timing import Effort
from cosparse.engine.engine import default_threads
from cosparse.engine.graph import Graph
from cosparse.errors import Error

DTYPE = "float32"
CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class Settings:
    """`against` names peers (cosparse.bench.peers.PEERS); empty: the engine alone, checked against the plain reference.

    Without `cold_start`, load_ms, first_run_ms, peak_rss_mb and grown_mb stay None; without `layers`, that list stays empty. `calibration`:
    what int8 is calibrated on, one array [M, ...] for each input; None: normal random numbers, others than those timed.
    """

    batch: int = 1
    threads: int = field(default_factory=default_threads)
    against: tuple[str, ...] = field(default_factory=installed)
    isa: str | None = None
    effort: Effort = field(default_factory=Effort)
    cold_start: bool = True
    layers: bool = True
    seed: int = 0
    dtype: str = DTYPE
    calibration: Arrays | None = None


def require(settings: Settings) -> None:
    """Raises Error for what cannot be measured here: numbers out of range, a peer that is unknown, missing or without the dtype."""
    limit = len(processors())
    if settings.batch < 1:
        raise Error("batch", "at least 1", str(settings.batch))
    if not 1 <= settings.threads <= limit:
        raise Error("threads", f"1 to {limit}, the processors that this process may use", str(settings.threads))
    if settings.dtype not in DTYPES:
        raise Error("dtype", f"one of {', '.join(DTYPES)}", repr(settings.dtype))
    for name in settings.against:
        find(name).require(settings.dtype)


def inputs_of(graph: Graph, settings: Settings) -> Arrays:
    """What is timed: normal random numbers, `batch` images."""
    return _normal(graph, settings.batch, settings.seed)


def calibration_of(graph: Graph, settings: Settings) -> Arrays:
    """What int8 is calibrated on, [M, ...] for each input; Error unless it fits the network and makes at least one batch."""
    if settings.calibration is None:
        return _normal(graph, -(-CALIBRATION_IMAGES // settings.batch) * settings.batch, settings.seed + 1)
    if len(settings.calibration) != len(graph.inputs):
        raise Error("calibration", f"{len(graph.inputs)} arrays, one for each input", str(len(settings.calibration)))
    for array, value in zip(settings.calibration, graph.inputs, strict=True):
        if array.shape[1:] != value.shape[1:]:
            raise Error("calibration", f"images of shape {tuple(value.shape[1:])} for input '{value.name}'", str(array.shape[1:]))
        if len(array) < settings.batch or len(array) != len(settings.calibration[0]):
            raise Error("calibration", f"at least {settings.batch} images, as many for each input", str(len(array)))
    return settings.calibration


def batches(calibration: Arrays, batch: int) -> list[Arrays]:
    """Calibration inputs cut into runs of `batch` images; what is left over is not used."""
    count = len(calibration[0])
    return [tuple(np.ascontiguousarray(array[i : i + batch]) for array in calibration) for i in range(0, count - batch + 1, batch)]


def _normal(graph: Graph, count: int, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    shapes = [[count if size is None else size for size in value.shape] for value in graph.inputs]
    return tuple(generator.standard_normal(shape, np.float32) for shape in shapes)
