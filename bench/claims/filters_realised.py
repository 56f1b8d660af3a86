"""Claim: filters removed come back as time: the engine's latency falls by at least 0.88 of what the multiply-adds fall by.

    python -m cosparse.bench.claims.filters_realised --cache DIR

ResNet-50 without 58.1 % and FCN-ResNet-50 without 44.1 % of its multiply-adds, the shares that the literature reports for SSR+PSO, filters
removed by magnitude and weights untrained: what runs is the same. Each runs in turn with the whole network on the same engine. The shares
themselves are held too, within 0.2 points. Exit status: 0 all bars kept, 1 some missed, 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.bench.claims.networks import Variant, artifact
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.settings import Settings
from cosparse.bench.sweep import together
from cosparse.bench.timing import Effort
from cosparse.engine.engine import default_threads

REALISED = 0.88
POINTS = 0.2

VARIANTS = (Variant("resnet50", filters=0.581), Variant("fcn_resnet50", filters=0.441, size=(360, 480)))


def measure(variant: Variant, cache: Path, settings: Settings) -> dict[str, Any]:
    """network, asked, flops_reduction, flop_speedup, dense_speedup, engine_ms, dense_ms, stable."""
    result = together({variant.network: artifact(variant, cache)}, artifact(replace(variant, filters=None), cache), settings)
    point = result["points"][0]
    figures = {key: point[key] for key in ("flops_reduction", "flop_speedup", "dense_speedup")}
    times = {"engine_ms": point["engine"]["median_ms"], "dense_ms": result["dense"]["median_ms"]}
    return {"network": variant.network, "asked": variant.filters, **figures, **times, "stable": result["verdict"]["stable"]}


def bars(found: Sequence[dict[str, Any]]) -> list[Bar]:
    made = []
    for one in found:
        asked, got = 100 * one["asked"], 100 * one["flops_reduction"]
        made.append(
            Bar(f"{one['network']}, points from -{asked:.1f} % FLOPs", abs(got - asked), POINTS, at_most=True, note=f"-{got:.2f} %")
        )
        share = one["dense_speedup"] / one["flop_speedup"] if one["dense_speedup"] else None
        note = "outputs differ"
        if share is not None:
            note = f"{one['dense_ms']:.3g} -> {one['engine_ms']:.3g} ms, {one['dense_speedup']:.2f} of {one['flop_speedup']:.2f}"
        made.append(Bar(f"{one['network']}, share of the FLOP ratio", share, REALISED, at_most=False, note=note))
    return made


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts; exported once.")],
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each candidate.")] = 2.0,
    out: OutOption = None,
) -> None:
    """Time networks without filters against the whole ones, on the engine."""
    settings = Settings(1, threads or default_threads(), (), effort=Effort(seconds), cold_start=False, layers=False)
    try:
        found = [measure(variant, cache, settings) for variant in VARIANTS]
    except (ValueError, OSError) as error:
        typer.echo(f"filters_realised: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.filters_realised " + " ".join(sys.argv[1:])
    conclude("filters_realised", "Latency of networks without filters, of what their FLOPs promise", command, bars(found), found, out)


if __name__ == "__main__":
    typer.run(main)
