"""Claim: the engine and torch agree on every image of CIFAR-10's test set, on every instruction set, batch size and thread count.

    python -m cosparse.bench.agreement --data DIR

ResNet-56 with masks imposed at -60 % FLOPs is exported and run by the engine in every combination asked for; torch runs the masked network.
They agree if the largest logit difference is at most 1e-4 of the largest logit, and if every top-1 is the same but for ties
(cosparse.bench.evaluate.agreement). Exit status: 0 all agree, 1 some do not, 2 bad input.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import cosparse
from cosparse import _C
from cosparse.bench import zoo
from cosparse.bench.environment import processors
from cosparse.bench.evaluate import agreement, evenly, predict, torch_runner
from cosparse.compress import Budget, export, impose
from cosparse.compress.data import read_parquet

NETWORK, WEIGHTS, FLOPS = "resnet56", "cifar_resnet56_jpeg.safetensors", 0.6


def instruction_sets() -> list[str]:
    """Those that this build has kernels for and this machine can run, best first."""
    return list(dict.fromkeys(row["isa"] for row in _C.kernels() if row["available"]))


def measure(data: Path, isas: list[str], batches: list[int], threads: list[int], limit: int | None = None) -> list[dict[str, Any]]:
    """One row for each combination: isa, batch, threads, and what `evaluate.agreement` says of all logits."""
    preprocessing, example = zoo.preprocessing(NETWORK), zoo.example(NETWORK)
    model = zoo.load_weights(zoo.build(NETWORK), data / WEIGHTS)
    model = impose(model, Budget(flops=FLOPS), example)
    images = evenly(read_parquet(data, "test"), limit)
    torch.set_num_threads(len(processors()))
    theirs = predict(torch_runner(model), images, preprocessing, 128)
    rows = []
    with tempfile.TemporaryDirectory(prefix="cosparse-") as folder:
        path = Path(folder) / f"{NETWORK}.cosparse"
        export(model, example, path, name=NETWORK, preprocessing=preprocessing)
        combinations = list(product(isas, batches, threads))
        for isa, batch, count in track(combinations, "engine", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            engine = cosparse.load(path, threads=count, isa=isa)
            row = agreement(predict(engine, images, preprocessing, batch), theirs)
            rows.append({"isa": isa, "batch": batch, "threads": count, "images": len(images), **row})
    return rows


def agreed(row: dict[str, Any]) -> bool:
    return bool(row["passed"] and not row["differ"])


def main(
    data: Annotated[Path, typer.Option(help=f"Folder with {WEIGHTS} and *_test.parquet.")],
    isa: Annotated[str, typer.Option(help="Instruction sets with commas between. Default: all of this machine.")] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,7,128",
    threads: Annotated[str, typer.Option(help="Thread counts.")] = "1,2",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many images, spread evenly.")] = None,
) -> None:
    """Compare the engine's logits with torch's on labelled images, in every combination."""
    isas = isa.split(",") if isa else instruction_sets()
    try:
        rows = measure(data, isas, [int(n) for n in batch.split(",")], [int(n) for n in threads.split(",")], limit)
    except (ValueError, OSError) as error:
        typer.echo(f"agreement: {error}", err=True)
        raise typer.Exit(2) from error
    shown = Table(title=f"{NETWORK}, masks imposed at -{FLOPS:.0%} FLOPs, {rows[0]['images']} images", box=None, title_justify="left")
    for column in ("isa", "batch", "threads", "same top-1", "ties", "differ", "largest |difference|", "bound", "agree"):
        shown.add_column(column, justify="left" if column == "isa" else "right")
    for row in rows:
        difference = np.nan if row["max_abs_err"] is None else row["max_abs_err"]
        cells = (row["isa"], row["batch"], row["threads"], f"{row['same_top1']:.4%}", row["ties"], row["differ"])
        shown.add_row(*map(str, cells), f"{difference:.3g}", f"{row['tolerance']:.3g}", "yes" if agreed(row) else "NO")
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if not all(map(agreed, rows)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
