"""`cosparse eval`: accuracy of an artifact, measured by the engine itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from cosparse.cli.compress_result import SCORES
from cosparse.cli.device import DeviceOption, load
from cosparse.cli.output import JsonOption, emit, progress, stage, table
from cosparse.cli.source import ClassesOption, WeightsOption
from cosparse.cli.training_options import DataOption, WorkersOption
from cosparse.cli.values import CalibrationOption, DtypeOption, IsaOption, ThreadsOption
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.engine.engine import Engine


def command(
    artifact: Annotated[Path, typer.Argument(help="The network, NAME.cosparse.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "test",
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many images, spread evenly over the data.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Exit with status 1 if top-1 is below this, in per cent.")] = None,
    min_miou: Annotated[float | None, typer.Option(help="Exit with status 1 if mIoU is below this, in per cent.")] = None,
    model: Annotated[str | None, typer.Option(help="Also a torch network on the same images: zoo:NAME or path/file.py:factory.")] = None,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = None,
    calibration: CalibrationOption = None,
    threads: ThreadsOption = None,
    isa: IsaOption = None,
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Measure a network on labelled images: top-1 and top-5, or mIoU where it gives a class for each pixel."""
    from cosparse.bench.evaluate import accuracy, agreement, batches_of, evenly, predict, torch_runner
    from cosparse.bench.overlap import overlap
    from cosparse.compress.data import open_data

    for option, least in (("--min-top1", min_top1), ("--min-miou", min_miou)):
        if least is not None and not 0 <= least <= 100:
            raise Error(option, "per cent, from 0 to 100", f"{least:g}")
    engine = load(artifact, device, dtype, threads, isa, calibration)
    preprocessing = engine.metadata["preprocessing"]
    masks = gives_masks(engine)
    if masks and min_top1 is not None:
        raise Error("--min-top1", "a network that gives one class an image", "one that gives a class for each pixel", "use --min-miou")
    if not masks and min_miou is not None:
        raise Error("--min-miou", "a network that gives a class for each pixel", "one that gives one class an image", "use --min-top1")
    rows: dict[str, dict[str, Any]] = {}
    with progress(counted=True) as bar:
        stage(bar, "reading images")
        images = evenly(open_data(data, split, masks), limit)
        runs: dict[str, Any] = {"engine": engine}
        if model is not None:
            from cosparse.cli import source

            runs["torch"] = torch_runner(source.load(model, weights, classes=classes).model)
        if masks:
            task = stage(bar, " and ".join(runs), len(images))
            rows = overlap(runs, batches_of(images, preprocessing, batch, workers), partial(bar.advance, task))
        else:
            logits = {}
            for name, run in runs.items():
                task = stage(bar, name, len(images))
                logits[name] = predict(run, images, preprocessing, batch, partial(bar.advance, task), workers)
                rows[name] = accuracy(logits[name], images.labels.numpy())
            if "torch" in rows:
                rows["torch"] |= agreement(logits["engine"], logits["torch"])
    where = {"device": engine.device, "dtype": engine.dtype}
    result = {"model": artifact.name, **where, "split": split, **rows["engine"], "torch": rows.get("torch")}
    emit(result, json, _table(f"{artifact.name} on {data.name} ({split}), {engine.dtype}", rows, masks))
    for option, key, least in (("--min-top1", "top1", min_top1), ("--min-miou", "miou", min_miou)):
        if least is not None and rows["engine"][key] < least:
            typer.echo(f"cosparse: {SCORES[key]} {rows['engine'][key]:.2f} % is below {option} {least:g}", err=True)
            raise typer.Exit(1)


def gives_masks(engine: Engine) -> bool:
    """Whether the network gives a class for each pixel, by the shape of its output."""
    shape = engine.outputs[0].shape
    return len(shape) == 4 and tuple(shape[2:]) != (1, 1)


def _table(title: str, rows: dict[str, dict[str, Any]], masks: bool) -> RenderableType:
    figures = {"miou": "mIoU", "pixel_accuracy": "pixels right"} if masks else {"top1": "top-1", "top5": "top-5"}
    key, same = ("same_pixels", "same pixels as engine") if masks else ("same_top1", "same top-1 as engine")
    agreed = {name: f"{row[key]:.3%}" if key in row else "" for name, row in rows.items()}
    cells = [(name, *(f"{row[figure]:.2f} %" for figure in figures), row["count"], agreed[name]) for name, row in rows.items()]
    return table(title, ("runtime", *figures.values(), "images", same), cells, left=("runtime",))
