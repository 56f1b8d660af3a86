"""What `cosparse bench` can give beside its tables: a report page, CSV files, and the sweep over densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosparse.atomic import write_text
from cosparse.cli import source
from cosparse.cli.output import writable
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.bench.harness import Progress
    from cosparse.bench.settings import Settings


ReportOption = Annotated[Path | None, typer.Option(callback=writable, help="Write one self-contained HTML page with plots.")]
RooflineOption = Annotated[
    Path | None, typer.Option(callback=writable, help="Write the layers under the machine's limits as an SVG file; one setting only.")
]
CsvOption = Annotated[Path | None, typer.Option(callback=writable, help="Write a row for each candidate and setting.")]
CsvLayersOption = Annotated[Path | None, typer.Option(callback=writable, help="Write a row for each layer and setting.")]
DensityOption = Annotated[
    str | None,
    typer.Option(help="Densities with commas between: impose masks on NETWORK at each, time all in one run, find the break-even."),
]
BlockOption = Annotated[int, typer.Option(help="With --density: filters that share each decision of a mask.")]


def write(
    results: Sequence[dict[str, Any]], report: Path | None, csv: Path | None, csv_layers: Path | None, roofline: Path | None = None
) -> None:
    """Writes the files that were asked for."""
    from cosparse.bench import csv_out

    if roofline:
        write_text(roofline, picture(results[0]))

    if report:
        from cosparse.bench.html import render

        write_text(report, render(results))
    if csv:
        write_text(csv, csv_out.candidates(results))
    if csv_layers:
        write_text(csv_layers, csv_out.layers(results))


def require_one_setting(roofline: Path | None, settings: int, layers: bool, density: str | None) -> None:
    """Raises Error where there would be no picture, or several."""
    if roofline and (settings > 1 or not layers or density):
        found = "--density" if density else "--no-layers" if not layers else f"{settings} of them"
        raise Error("--roofline", "one batch size and one thread count, with layers", found, "--report draws all settings in one page")


def picture(result: dict[str, Any]) -> str:
    """The roofline of a bench result as an SVG file; Error where the limits of the machine were not measured."""
    from cosparse.bench import plots, report, svg

    made = plots.roofline(result, "roofline")
    if made is None:
        raise Error("--roofline", "layers and limits of the machine", "none measured", "install torch, which measures the limits")
    return svg.document(made, f"{result['model']}, {report.setting(result)}, {result['dtype']}")


def densities(text: str) -> list[float]:
    """Shares from "1.0,0.5,0.2"; Error unless each is in (0, 1]."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= 1 for number in numbers):
        raise Error("--density", "shares in (0, 1] with commas between", repr(text), "1.0,0.5,0.2 keeps all, half and a fifth")
    return numbers


def sweeper(network: str, density: str, block: int) -> Callable[[Settings, Progress | None], dict[str, Any]]:
    """What times `network` at the densities for one setting; bad input is an Error at once."""
    wanted = densities(density)
    if not network.startswith("zoo:") and ".py:" not in network:
        next_step = "an artifact has its masks already; name the network that it was made from"
        raise Error("--density", "zoo:NAME or path/file.py:factory", repr(network), next_step)
    loaded = source.load(network)
    from cosparse.bench.sweep import density_sweep

    return lambda settings, progress: density_sweep(loaded.model, loaded.example, wanted, settings, progress, name=loaded.name, block=block)


def tables(result: dict[str, Any]) -> list[Any]:
    """The tables of a bench result or of a sweep."""
    from cosparse.bench import report, sweep_report

    return sweep_report.tables(result) if "points" in result else report.tables(result)


def failure(result: dict[str, Any]) -> str | None:
    """What `--strict` objects to in a bench result or a sweep."""
    from cosparse.bench import report, sweep_report

    return sweep_report.failure(result) if "points" in result else report.failure(result)
