"""Claim: latency falls with density throughout, and sparsity pays from a density of 0.6 on.

    python -m cosparse.bench.claims.monotone --network resnet50

Exit status: 0 both hold, 1 one does not, 2 bad input.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from cosparse.bench import zoo
from cosparse.bench.break_even import NOISE
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.settings import Settings
from cosparse.bench.sweep import density_sweep
from cosparse.bench.timing import Effort
from cosparse.engine.engine import default_threads

BREAK_EVEN = 0.6


def bars(result: dict) -> list[Bar]:
    """The two bars of a density sweep: break-even, and the largest step up from one density to the next lower one."""
    points = result["points"]
    medians = [point["engine"]["median_ms"] for point in points]
    worst = None if None in medians else max((b / a for a, b in pairwise(medians)), default=0.0)
    curve = ", ".join(f"{p['density']:g}: {ms:.3g} ms" for p, ms in zip(points, medians, strict=True) if ms is not None)
    name = f"{result['model']}, r = {result['block']}"
    return [
        Bar(f"{name}: break-even density", result["break_even"], BREAK_EVEN, False, f"our dense kernels {_ms(result)}"),
        Bar(f"{name}: largest time ratio of one density to the next higher one", worst, 1 + NOISE, True, curve),
    ]


def _ms(result: dict) -> str:
    median = result["dense"]["median_ms"]
    return "not timed: outputs differ" if median is None else f"{median:.3g} ms"


def main(
    network: Annotated[str, typer.Option(help="A zoo network.")] = "resnet50",
    density: Annotated[str, typer.Option(help="Densities with commas between.")] = "1.0,0.8,0.6,0.5,0.3,0.2,0.1,0.05",
    block: Annotated[int, typer.Option(help="Filters that share each decision of a mask.")] = 8,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each density.")] = 2.0,
    report: Annotated[Path | None, typer.Option(help="Also write the page with the curve.")] = None,
    out: OutOption = None,
) -> None:
    """Time a network at falling densities beside our own dense kernels."""
    try:
        settings = Settings(threads=threads or default_threads(), against=(), effort=Effort(seconds))
        densities = [float(part) for part in density.split(",")]
        result = density_sweep(zoo.build(network), zoo.example(network), densities, settings, name=network, block=block)
        if report:
            from cosparse.bench.html import render

            report.write_text(render([result]), encoding="utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"monotone: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.monotone " + " ".join(sys.argv[1:])
    conclude("monotone", "Latency over density", command, bars(result), result, out)


if __name__ == "__main__":
    typer.run(main)
