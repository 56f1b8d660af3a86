"""`cosparse eval`: accuracy of an artifact, measured by the engine itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.cli.output import JsonOption, emit, progress, table
from cosparse.cli.source import WeightsOption
from cosparse.cli.values import CalibrationOption, DtypeOption, IsaOption, ThreadsOption, read_calibration


def command(
    artifact: Annotated[Path, typer.Argument(help="The network, NAME.cosparse.")],
    data: Annotated[Path, typer.Option(help="Folder with one *_SPLIT.parquet of encoded images (columns image, label), or the file.")],
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "test",
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many images, spread evenly over the data.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Exit with status 1 if top-1 is below this, in per cent.")] = None,
    model: Annotated[str | None, typer.Option(help="Also a torch network on the same images: zoo:NAME or path/file.py:factory.")] = None,
    weights: WeightsOption = None,
    dtype: DtypeOption = "float32",
    calibration: CalibrationOption = None,
    threads: ThreadsOption = None,
    isa: IsaOption = None,
    json: JsonOption = None,
) -> None:
    """Measure top-1 and top-5 of a network on labelled images."""
    import cosparse
    from cosparse.bench.evaluate import accuracy, agreement, evenly, predict, torch_runner
    from cosparse.compress.data import read_parquet

    engine = cosparse.load(artifact, threads=threads, dtype=dtype, isa=isa, calibration=read_calibration(dtype, calibration))
    preprocessing = engine.metadata["preprocessing"]
    rows: dict[str, dict[str, Any]] = {}
    with progress(counted=True) as bar:
        task = bar.add_task("reading images", total=None)
        images = evenly(read_parquet(data, split), limit)

        def measure(name: str, run: Any) -> Any:
            bar.reset(task, description=name, total=len(images))
            logits = predict(run, images, preprocessing, batch, lambda count: bar.advance(task, count))
            rows[name] = accuracy(logits, images.labels.numpy())
            return logits

        ours = measure("engine", engine)
        if model is not None:
            from cosparse.cli.source import load

            theirs = measure("torch", torch_runner(load(model, weights).model))
            rows["torch"] |= agreement(ours, theirs)
    shown = [(name, *(f"{row[key]:.2f} %" for key in ("top1", "top5")), row["count"], _same(row)) for name, row in rows.items()]
    columns = ("runtime", "top-1", "top-5", "images", "same top-1 as engine")
    result = {"model": artifact.name, "dtype": engine.dtype, "split": split, **rows["engine"], "torch": rows.get("torch")}
    emit(result, json, table(f"{artifact.name} on {data.name} ({split}), {engine.dtype}", columns, shown, left=("runtime",)))
    if min_top1 is not None and rows["engine"]["top1"] < min_top1:
        typer.echo(f"cosparse: top-1 {rows['engine']['top1']:.2f} % is below --min-top1 {min_top1:g}", err=True)
        raise typer.Exit(1)


def _same(row: dict[str, Any]) -> str:
    return f"{row['same_top1']:.2%}" if "same_top1" in row else ""
