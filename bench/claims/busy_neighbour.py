"""Claim: with one busy process beside it, a network takes at most 2.5 times its quiet time.

    python -m cosparse.bench.claims.busy_neighbour --cache DIR

Quiet and busy turns alternate. The neighbour is one process that does nothing but count. Exit status: 0 the bar is kept, 1 it is missed,
2 bad input.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cosparse
from cosparse.bench import neighbours
from cosparse.bench.claims.networks import Variant, artifact
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.timing import summary
from cosparse.engine.engine import default_threads

MOST = 2.5
TURNS = 4
COUNT = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@contextmanager
def neighbour(seconds: float) -> Iterator[None]:
    """One busy process for as long as the block lasts, at most `seconds`."""
    process = subprocess.Popen([sys.executable, "-c", COUNT.format(seconds)])
    try:
        time.sleep(0.3)  # its interpreter has started by then
        yield
    finally:
        process.kill()
        process.wait()


def measure(path: Path, threads: int, seconds: float) -> dict[str, Any]:
    """`quiet` and `busy`: figures of the times of single runs, batch 1; `ratio` of the medians; `others`: processors busy before."""
    engine = cosparse.load(path, threads=threads)
    generator = np.random.default_rng(0)
    shapes = [[1 if size is None else size for size in value.shape] for value in engine.inputs]
    inputs = [generator.standard_normal(shape, np.float32) for shape in shapes]
    others = neighbours.sample()
    times: dict[str, list[float]] = {"quiet": [], "busy": []}
    for _ in range(TURNS):
        times["quiet"] += _run(engine, inputs, seconds / TURNS)
        with neighbour(10 + 4 * seconds / TURNS):
            times["busy"] += _run(engine, inputs, seconds / TURNS)
    figures = {name: summary(np.array(values)) for name, values in times.items()}
    return {**figures, "ratio": figures["busy"]["median_ms"] / figures["quiet"]["median_ms"], "others": others, "threads": threads}


def _run(engine: Any, inputs: list[np.ndarray], seconds: float) -> list[float]:
    engine(*inputs)
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        engine(*inputs)
        times.append(time.perf_counter() - start)
    return times


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifact; exported once.")],
    network: Annotated[str, typer.Option(help="A zoo network.")] = "resnet50",
    flops: Annotated[float, typer.Option(help="Share of the multiply-adds that masks take away.")] = 0.789,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    seconds: Annotated[float, typer.Option(min=0.4, help="Timed seconds, quiet and busy each.")] = 4.0,
    out: OutOption = None,
) -> None:
    """Time a network alone and beside one busy process."""
    try:
        found = measure(artifact(Variant(network, flops=flops), cache), threads or default_threads(), seconds)
    except (ValueError, OSError) as error:
        typer.echo(f"busy_neighbour: {error}", err=True)
        raise typer.Exit(2) from error
    note = f"median {found['quiet']['median_ms']:.3g} -> {found['busy']['median_ms']:.3g} ms"
    bar = Bar(f"{network}, {found['threads']} threads: time beside one busy process / alone", found["ratio"], MOST, True, note)
    command = "python -m cosparse.bench.claims.busy_neighbour " + " ".join(sys.argv[1:])
    conclude("busy_neighbour", "Beside a busy process", command, [bar], found, out)


if __name__ == "__main__":
    typer.run(main)
