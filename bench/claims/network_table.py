"""Claim: operations saved come back as time, on whole networks, against the fastest dense peer of the same precision.

    python -m cosparse.bench.claims.network_table --cache DIR

ResNet-50 loses 78.9 % of its FLOPs and 75 % of its parameters with one density throughout; the row "-magnitude" loses as much by magnitude
over the whole network, and so does VGG-16 (-76.8 %, -94.8 %): the pairs that the literature reports. FCN-ResNet-50 is there with filters
removed and with masks.

Each row is timed in turn with the dense network on the peers. The first setting is held against the row's own bar; every other batch size
and thread count against 0.9 of what the first one reached. Exit status: 0 all bars kept, 1 some missed, 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.bench.claims.networks import Variant, artifact
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.harness import Progress, bench
from cosparse.bench.peers import PEERS, installed
from cosparse.bench.settings import DTYPE, Settings
from cosparse.bench.sweep import together
from cosparse.bench.timing import Effort
from cosparse.engine.engine import default_threads
from cosparse.errors import Error, UnsupportedError

OTHER_SETTINGS = 0.9
"""Share of the first setting's speed-up that every other batch size and thread count has to reach."""


@dataclass(frozen=True)
class Row:
    """One network, the speed-up that it must reach, and the one that is aimed at."""

    name: str
    variant: Variant
    least: float
    aim: float
    dtype: str = DTYPE


ROWS = {
    row.name: row
    for row in (
        Row("resnet50", Variant("resnet50", density=0.1835), 3.6, 4.4),
        Row("resnet50-magnitude", Variant("resnet50", flops=0.789, params=0.756), 3.6, 4.4),
        Row("vgg16", Variant("vgg16", flops=0.768, params=0.948), 3.4, 4.0),
        Row("resnet50-filters", Variant("resnet50", filters=0.581), 2.1, 2.35),
        Row("fcn_resnet50-filters", Variant("fcn_resnet50", filters=0.441, size=(360, 480)), 1.6, 1.75),
        Row("fcn_resnet50", Variant("fcn_resnet50", flops=0.441, size=(360, 480)), 1.6, 1.75),
        Row("resnet50-dense", Variant("resnet50"), 0.85, 1.0),
        Row("resnet50-bf16", Variant("resnet50", density=0.1835), 3.0, 4.0, "bfloat16"),
        Row("resnet50-int8", Variant("resnet50", density=0.1835), 2.0, 3.0, "int8"),
    )
}


def measure(row: Row, cache: Path, settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """setting, speedup, flop_speedup, realised, peer, engine_ms, peer_ms, stable of one row. Networks that lost filters are compared with
    the network that still has them."""
    path = artifact(row.variant, cache)
    able = set(installed(row.dtype))
    settings = replace(settings, dtype=row.dtype, against=tuple(name for name in settings.against if name in able))
    if row.variant.filters is None:
        result = point = bench(path, settings, progress)
    else:
        result = together({row.name: path}, artifact(_variants(row)[-1], cache), settings, progress)
        point = result["points"][0]
    peer = result["fastest_peer"]
    ratios = {key: point[key] for key in ("speedup", "flop_speedup", "realised")}
    times = {"engine_ms": point["engine"]["median_ms"], "peer": peer, "peer_ms": result["peers"][peer]["median_ms"] if peer else None}
    setting = {"row": row.name, "dtype": row.dtype, "batch": settings.batch, "threads": settings.threads}
    return {**setting, **ratios, **times, "stable": result["verdict"]["stable"], "machine": result["machine"]}


def bars(row: Row, measured: Sequence[dict[str, Any]]) -> list[Bar]:
    """The bars of one row: `measured` has its settings, the first one leading."""
    first = measured[0]["speedup"]
    made = []
    for index, result in enumerate(measured):
        bound = row.least if index == 0 else OTHER_SETTINGS * (first or row.least)
        what = f"{row.name}, {row.dtype}, batch {result['batch']}, {result['threads']} threads"
        made.append(Bar(what, result["speedup"], bound, at_most=False, note=_note(row, result)))
    return made


def _note(row: Row, result: dict[str, Any]) -> str:
    if result["speedup"] is None:
        return result.get("why", "outputs differ")
    times = f"{result['engine_ms']:.3g} ms, {result['peer']} {result['peer_ms']:.3g} ms"
    return f"{times}; ideal {result['flop_speedup']:.2f}, aim {row.aim:g}{'' if result['stable'] else '; not stable'}"


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts; exported once.")],
    rows: Annotated[str, typer.Option(help="Rows with commas between.")] = ",".join(ROWS),
    batch: Annotated[str, typer.Option(help="Batch sizes; the first leads.")] = "1",
    threads: Annotated[str, typer.Option(help="Thread counts; the first leads.")] = "",
    against: Annotated[str, typer.Option(help="Peers with commas between; rows leave out those without their dtype.")] = ",".join(PEERS),
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each candidate.")] = 2.0,
    out: OutOption = None,
) -> None:
    """Time the networks of the table against the fastest dense peer."""
    try:
        chosen = [_row(name) for name in rows.split(",")]
        counts = [int(n) for n in threads.split(",")] if threads else [default_threads()]
        settings = [
            Settings(b, t, tuple(against.split(",")), effort=Effort(seconds), cold_start=False, layers=False)
            for t, b in product(counts, map(int, batch.split(",")))
        ]
        data, held = [], []
        for row in chosen:  # a network that cannot be exported costs no row its measurement
            for variant in _variants(row):
                artifact(variant, cache)
        for row in chosen:
            measured = [_measured(row, cache, setting) for setting in settings]
            data += measured
            held += bars(row, measured)
    except (ValueError, OSError) as error:
        typer.echo(f"network_table: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.network_table " + " ".join(sys.argv[1:])
    conclude("network_table", "Speed-up against the fastest dense peer", command, held, data, out)


def _measured(row: Row, cache: Path, settings: Settings) -> dict[str, Any]:
    try:
        return measure(row, cache, settings)
    except UnsupportedError as error:  # a row that this build or machine cannot run fails its bar and says why
        return {"row": row.name, "batch": settings.batch, "threads": settings.threads, "speedup": None, "why": str(error)}


def _variants(row: Row) -> list[Variant]:
    """The row's own network and, where filters went, the whole one that it is compared with."""
    return [row.variant] + [Variant(row.variant.network, size=row.variant.size)] * (row.variant.filters is not None)


def _row(name: str) -> Row:
    if name not in ROWS:
        raise Error("--rows", f"some of {', '.join(ROWS)}", repr(name))
    return ROWS[name]


if __name__ == "__main__":
    typer.run(main)
