"""Claim: bfloat16 costs at most 0.2 points of top-1, int8 at most 1, on the test images of CIFAR-10.

    python -m cosparse.bench.claims.dtype_accuracy --data ../shared/data --cache DIR

A trained ResNet is exported as it is, and with masks imposed in the DCT domain (no training after them, so few enough to keep its
accuracy), and runs on all test images in float32, bfloat16 and int8, the last calibrated on images of the training set. Differences of
logits are against the engine's own float32. Exit status: 0 the bars are kept, 1 one is missed, 2 bad input.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import cosparse
from cosparse.bench import zoo
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.evaluate import accuracy, evenly, predict
from cosparse.bench.rounding import DTYPES
from cosparse.bench.timing import Effort, interleave, summary
from cosparse.compress import Budget, export, impose
from cosparse.compress.data import Batches, Images, read_parquet
from cosparse.engine.engine import Engine, default_threads

MOST_LOST = {"bfloat16": 0.2, "int8": 1.0}
"""Points of top-1 below float32."""
CALIBRATION, BATCH = 256, 50


def trained(network: str, data: Path, flops: float | None, cache: Path) -> Path:
    """The trained zoo network as an artifact in `cache`, with masks imposed at `flops`; exported now if it is not there."""
    path = cache / f"{network}-trained{'' if flops is None else f'-flops{flops:g}'}.cosparse"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        model, example = zoo.load_weights(zoo.build(network), data / f"cifar_{network}_jpeg.safetensors"), zoo.example(network)
        if flops is not None:
            model = impose(model, Budget(flops=flops), example)
        export(model, example, path, name=network, preprocessing=zoo.preprocessing(network))
    return path


def compare(logits: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """same_top1, a share; largest and rms difference of logits [images, classes] over the root mean square of the exact ones."""
    difference, size = np.abs(logits - exact), float(np.sqrt(np.mean(np.square(exact))))
    rms = float(np.sqrt(np.mean(np.square(difference))))
    same = float((logits.argmax(1) == exact.argmax(1)).mean())
    return {"same_top1": same, "largest": float(difference.max()) / size, "rms": rms / size}


def measure(path: Path, test: Images, calibration: np.ndarray, threads: int, latency: Effort | None) -> list[dict[str, Any]]:
    """One row a dtype: model, dtype, top1, same_top1, largest, rms, and with `latency` the figures of a call with one image."""
    engines: dict[str, Engine] = {}
    for dtype in DTYPES:
        samples = calibration if dtype == "int8" else None
        engines[dtype] = cosparse.load(path, threads=threads, dtype=dtype, calibration=samples).warmup((1, BATCH))
    preprocessing = engines["float32"].metadata["preprocessing"]
    logits = {dtype: predict(engine, test, preprocessing, BATCH) for dtype, engine in engines.items()}
    rows: list[dict[str, Any]] = [
        {"model": path.stem, "dtype": dtype, **accuracy(found, test.labels.numpy()), **compare(found, logits["float32"])}
        for dtype, found in logits.items()
    ]
    if latency:
        image = np.ascontiguousarray(calibration[:1])
        times = interleave({dtype: partial(engine, image) for dtype, engine in engines.items()}, latency)
        for row in rows:
            row["latency"] = summary(times[row["dtype"]])
    return rows


def bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """The loss of top-1 of each short dtype."""
    exact = {row["model"]: row for row in rows if row["dtype"] == "float32"}
    made = []
    for row in rows:
        if row["dtype"] in MOST_LOST:
            before = exact[row["model"]]
            note = f"{before['top1']:.2f} -> {row['top1']:.2f} %; equal top-1 {row['same_top1']:.2%}"
            note += f"; logits differ by {row['rms']:.2%} of their size (rms), {row['largest']:.2%} at the most{_times(before, row)}"
            what = f"{row['model']}, {row['dtype']}: points of top-1 lost"
            made.append(Bar(what, round(before["top1"] - row["top1"], 4), MOST_LOST[row["dtype"]], True, note))
    return made


def _times(before: dict[str, Any], row: dict[str, Any]) -> str:
    if "latency" not in row:
        return ""
    return f"; {before['latency']['median_ms']:.3g} -> {row['latency']['median_ms']:.3g} ms"


def main(
    data: Annotated[Path, typer.Option(help="Folder with cifar_NETWORK_jpeg.safetensors, *_train.parquet and *_test.parquet.")],
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts; exported once.")],
    network: Annotated[str, typer.Option(help="A trained zoo network.")] = "resnet20",
    flops: Annotated[float, typer.Option(help="Share of the multiply-adds that masks take away.")] = 0.3,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many test images, spread evenly.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    latency: Annotated[bool, typer.Option(help="Also time single images; of use on a quiet machine only.")] = True,
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed seconds for each dtype.")] = 2.0,
    out: OutOption = None,
) -> None:
    """Top-1 of a trained network in every dtype."""
    try:
        test = evenly(read_parquet(data, "test"), limit)
        samples = Batches(evenly(read_parquet(data, "train"), CALIBRATION), zoo.preprocessing(network), BATCH)
        images = np.ascontiguousarray(torch.cat([x for x, _ in samples]).numpy())
        effort, count = Effort(seconds) if latency else None, threads or default_threads()
        rows = []
        for share in (None, flops):
            rows += measure(trained(network, data, share, cache), test, images, count, effort)
    except (ValueError, OSError) as error:
        typer.echo(f"dtype_accuracy: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.dtype_accuracy " + " ".join(sys.argv[1:])
    conclude("dtype_accuracy", f"Accuracy of short dtypes, {len(test)} images", command, bars(rows), rows, out)


if __name__ == "__main__":
    typer.run(main)
