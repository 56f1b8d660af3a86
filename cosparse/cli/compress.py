"""`cosparse compress`: from a trained network and its data to a smaller one as an artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.cli import source
from cosparse.cli.output import JsonOption, emit, progress, table
from cosparse.cli.training import share_processors
from cosparse.cli.values import TransformOption, integers, share
from cosparse.errors import Error

METHODS = ("nncs",)
VALIDATION_SHARE = 0.02


def command(
    network: source.NetworkArgument,
    data: Annotated[Path, typer.Option(help="Folder with one *_train.parquet and one *_test.parquet (columns image, label).")],
    out: Annotated[Path, typer.Option(help="The artifact to write, NAME.cosparse.")],
    weights: source.WeightsOption = None,
    method: Annotated[str, typer.Option(help="Compression method: " + ", ".join(METHODS) + ".")] = "nncs",
    flops: Annotated[float | None, typer.Option(help="Share of the multiply-adds to remove, basis step charged.")] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters to remove.")] = None,
    transform: TransformOption = "dct",
    block: Annotated[int, typer.Option(help="Filters that share each decision of a mask.")] = 8,
    epochs: Annotated[str, typer.Option(metavar="A,B", help="Epochs before and after the masks are chosen.")] = "1,4",
    lr: Annotated[float | None, typer.Option(help="Learning rate. Default: the recipe's.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a training step.")] = 128,
    flip: Annotated[bool, typer.Option(help="Mirror training images at random.")] = True,
    size: source.SizeOption = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the artifact.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Training threads. Default: torch's.")] = None,
    json: JsonOption = None,
) -> None:
    """Compress a trained network: mask it under a budget, fine-tune it on its data, export it, measure it."""
    if method not in METHODS:
        raise Error("--method", f"one of {', '.join(METHODS)}", repr(method))
    before, after = integers("--epochs", epochs, count=2, least=0)
    shares = {"flops": share("--flops", flops), "params": share("--params", params)}
    share_processors()
    import torch

    from cosparse.compress import NNCS, Budget
    from cosparse.compress.data import Batches, read_parquet

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    loaded = source.load(network, weights, size)
    if not loaded.preprocessing:
        raise Error(network, "preprocessing (scale, mean, std)", "none", "return (module, example, preprocessing) from the factory")
    _require_folder(out)
    nncs = NNCS(loaded.model, Budget(**shares), loaded.example, transform=transform, block=block, seed=seed)
    with progress(counted=True) as bar:
        task = bar.add_task("reading images", total=None)
        training, validation = read_parquet(data, "train").split(VALIDATION_SHARE, seed)
        test = read_parquet(data, "test")
        bar.update(task, description="dense network on the test images")
        dense = _torch_top1(loaded, test)
        bar.reset(task, description="training", total=(before + after) * -(-len(training) // batch))
        history = nncs.fit(
            Batches(training, loaded.preprocessing, batch, shuffle=True, augment=True, flip=flip, seed=seed),
            Batches(validation, loaded.preprocessing, 500),
            (before, after),
            save_to=out.with_suffix(".training.safetensors"),
            resume=resume,
            progress=lambda step: bar.update(task, description=_step(step), completed=step.epoch * step.steps + step.step),
            seed=seed,
            **({} if lr is None else {"lr": lr}),
        )
        bar.reset(task, description="exporting", total=None)
        _export(loaded, network, weights, out, history)
        bar.update(task, description="compressed network on the test images")
        accuracy = _stamp_accuracy(out, test, dense)
    _show(out, history, dense, accuracy, json)


def _require_folder(out: Path) -> None:
    """Asked before the training, not after it."""
    if not out.parent.is_dir():
        raise Error(str(out), f"an existing folder {out.parent}", "none", "make it first")


def _step(step: Any) -> str:
    accuracy = "" if step.accuracy is None else f", held-out top-1 {step.accuracy:.2%}"
    return f"epoch {step.epoch + 1} of {step.epochs}, loss {step.loss:.3f}{accuracy}"


def _torch_top1(loaded: source.Source, test: Any) -> float:
    from cosparse.bench.evaluate import accuracy, predict, torch_runner

    logits = predict(torch_runner(loaded.model), test, loaded.preprocessing, 250)
    return accuracy(logits, test.labels.numpy())["top1"]


def _export(loaded: source.Source, network: str, weights: Path | None, out: Path, history: Any) -> None:
    from cosparse.compress import export

    provenance = {"source": network, "weights": weights.name if weights else "random", "method": "nncs", "settings": history.settings}
    export(loaded.model, loaded.example, out, name=loaded.name, preprocessing=loaded.preprocessing, provenance=provenance)


def _stamp_accuracy(out: Path, test: Any, dense: float) -> dict[str, Any]:
    """Measures the artifact with the engine and writes the result into its provenance."""
    import cosparse
    from cosparse.bench.evaluate import accuracy, predict
    from cosparse.engine import artifact

    engine = cosparse.load(out)
    measured = accuracy(predict(engine, test, engine.metadata["preprocessing"]), test.labels.numpy())
    graph = artifact.read(out)
    artifact.write(out, replace(graph, provenance=graph.provenance | {"accuracy": measured | {"dense_top1": dense, "split": "test"}}))
    return measured


def _show(out: Path, history: Any, dense: float, accuracy: dict[str, Any], json: str | None) -> None:
    report = history.report
    size = out.stat().st_size
    result = {"file": str(out), "bytes": size, "dense_top1": dense, **accuracy, **report.totals()}
    rows = [
        ("top-1 on the test images", f"{dense:.2f} %", f"{accuracy['top1']:.2f} %", f"{accuracy['top1'] - dense:+.2f} points"),
        ("MFLOP, basis step included", f"{report.flops_dense / 1e6:.2f}", f"{report.flops / 1e6:.2f}", f"-{report.flops_reduction:.1%}"),
        ("parameters", f"{report.params_dense:,}", f"{report.params:,}", f"-{report.params_reduction:.1%}"),
        ("bytes", f"{4 * report.params_dense:,}", f"{size:,}", f"-{1 - size / (4 * report.params_dense):.1%}"),
    ]
    shown = table(str(out), ("", "dense", "compressed", "change"), rows, left=("",))
    emit(result | {"epochs": list(history.epochs)}, json, str(report), "", shown)
