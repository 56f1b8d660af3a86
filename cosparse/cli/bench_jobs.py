"""The measurements that one `cosparse bench` makes, one for each setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    from cosparse.bench.harness import Progress
    from cosparse.bench.settings import Settings

Job = Callable[[Any], dict[str, Any]]
"""Takes what hears (phase, share done), gives the bench object."""
Measure = Callable[["Settings", "Progress | None"], dict[str, Any]]


def on_cpu(
    network: Path,
    dtype: str | None,
    sizes: Sequence[int],
    against: tuple[str, ...] | None,
    seconds: float,
    layers: bool,
    threads: Sequence[int] | None,
    isa: str | None,
    cold_start: bool,
    calibration: tuple[numpy.ndarray, ...] | None,
    measure: Measure | None,
) -> list[Job]:
    """One job for each thread count and batch size; `against` None: the peers that are installed. `measure` replaces `harness.bench`."""
    from cosparse.bench import harness
    from cosparse.bench.peers import installed
    from cosparse.bench.settings import Settings
    from cosparse.bench.timing import Effort
    from cosparse.engine.engine import default_threads

    number = dtype or "float32"
    peers = installed(number) if against is None else against
    jobs: list[Job] = []
    for count, batch in product(threads or [default_threads()], sizes):
        settings = Settings(batch, count, peers, isa, Effort(seconds), cold_start, layers, dtype=number, calibration=calibration)
        jobs.append(partial(measure, settings) if measure else partial(harness.bench, network, settings))
    return jobs


def on_gpu(
    network: Path, device: str, dtype: str | None, sizes: Sequence[int], against: tuple[str, ...] | None, seconds: float, layers: bool
) -> list[Job]:
    """One job for each batch size; Error, before the first of them, for what cannot be measured: no such GPU, peer or dtype."""
    from cosparse.bench.gpu.artifact_bench import Settings, bench, require
    from cosparse.bench.gpu.peers import installed

    peers = installed() if against is None else against
    settings = [Settings(device, dtype or "float16", batch, peers, seconds, layers) for batch in sizes]
    for one in settings:
        require(one)
    return [partial(bench, network, one) for one in settings]
