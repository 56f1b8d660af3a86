"""`cosparse compress`: from a trained network and its data to a smaller one as an artifact."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cosparse.cli import compress_filters as filters
from cosparse.cli import compress_result as result
from cosparse.cli import pruning_options as pruning
from cosparse.cli import source, values
from cosparse.cli import training_options as options
from cosparse.cli.output import JsonOption, progress, stage
from cosparse.cli.training import share_processors
from cosparse.cli.values import GroupOption, GroupRowsOption, LatencyTableOption, SlackOption, TransformOption, given, integers, share
from cosparse.errors import Error

RECOVERIES = "closed, ista, fista, admm, omp, iht"
VALIDATION_SHARE = 0.02


def command(
    context: typer.Context,
    network: source.NetworkArgument,
    data: options.DataOption,
    out: Annotated[Path, typer.Option(help="The artifact to write, NAME.cosparse.")],
    weights: source.WeightsOption = None,
    method: Annotated[str, typer.Option(help="Compression method: " + ", ".join(pruning.METHODS) + ".")] = "nncs",
    flops: Annotated[float | None, typer.Option(help="Share of the multiply-adds to remove, basis step charged.")] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters to remove.")] = None,
    latency: Annotated[float | None, typer.Option(help="Share of the dense time to remove, by --latency-table.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Instead: milliseconds an image may take, by --latency-table.")] = None,
    latency_table: LatencyTableOption = None,
    score: Annotated[str, typer.Option(help="What a block is worth: energy, or fisher (the loss that dropping it costs).")] = "energy",
    group: GroupOption = False,
    regrow: Annotated[float | None, typer.Option(help="Let masks move in step 2: share of the blocks exchanged at first.")] = None,
    importance: pruning.ImportanceOption = "self-representation",
    search: pruning.SearchOption = "pso",
    evaluations: pruning.EvaluationsOption = 600,
    multiple: pruning.MultipleOption = None,
    max_rate: pruning.MaxRateOption = 0.9,
    residual: pruning.ResidualOption = True,
    search_workers: pruning.SearchWorkersOption = 1,
    filters_flops: pruning.FiltersFlopsOption = None,
    transform: TransformOption = "dct",
    block: Annotated[int, typer.Option(help="Filters that share each decision of a mask.")] = 8,
    group_rows: GroupRowsOption = None,
    slack: SlackOption = None,
    recovery: Annotated[str, typer.Option(help="Recovery of sparse coefficients before the masks: " + RECOVERIES + ".")] = "closed",
    measurement: Annotated[
        str, typer.Option(help="What they are recovered from: identity (the weights), gaussian, bernoulli.")
    ] = "identity",
    measure_share: Annotated[float | None, typer.Option(help="Random measurements by coefficients. Default: 0.5.")] = None,
    schedule: Annotated[str, typer.Option(help="How the pull towards them grows: ramp, constant, cosine, geometric.")] = "ramp",
    epochs: Annotated[str, typer.Option(metavar="A,B", help="Epochs before and after the masks are chosen.")] = "1,4",
    lr: options.LrOption = None,
    batch: Annotated[int, typer.Option(min=1, max=values.LARGEST, help="Images a training step.")] = 128,
    optimizer: options.OptimizerOption = None,
    weight_decay: options.WeightDecayOption = None,
    precision: options.PrecisionOption = None,
    distill: options.DistillOption = None,
    ema: options.EmaOption = None,
    flip: Annotated[bool, typer.Option(help="Mirror training images at random.")] = True,
    size: source.SizeOption = None,
    classes: source.ClassesOption = None,
    seed: values.SeedOption = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the artifact.")] = False,
    log: options.LogOption = None,
    tensorboard: options.TensorboardOption = False,
    pictures: options.PicturesOption = None,
    workers: options.WorkersOption = None,
    device: options.DeviceOption = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Training threads. Default: torch's.")] = None,
    json: JsonOption = None,
) -> None:
    """Compress a trained network: take filters away, mask it, or both, under a budget; fine-tune it on its data, export it, measure it."""
    if method not in pruning.METHODS:
        raise Error("--method", f"one of {', '.join(pruning.METHODS)}", repr(method))
    pruning.require_options_of(method, given(context))
    before, after = integers("--epochs", epochs, count=2, least=0)
    shares: dict[str, Any] = {"flops": share("--flops", flops), "params": share("--params", params)}
    share_processors()
    import torch

    from cosparse.compress import NNCS, Budget, Regrow, Step1
    from cosparse.compress.data import describe, hold_out, loader, open_data
    from cosparse.compress.importer import require_importable

    step1 = Step1(recovery, measurement, measure_share, schedule)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    settings = {"lr": lr, "optimizer": optimizer, "weight_decay": weight_decay, "precision": precision, "distill": distill, "ema": ema}
    recipe = options.recipe(seed, **settings)
    files = options.RunFiles(out, log, tensorboard, pictures)
    files.require_writable()
    loaded = source.placed(source.load(network, weights, size, classes), device)
    if not loaded.preprocessing:
        raise Error(network, "preprocessing (scale, mean, std)", "none", "return (module, example, preprocessing) from the factory")
    outputs, masks = result.outputs_of(loaded)
    require_importable(loaded.model, loaded.example, loaded.name)  # what could not be exported is refused before hours of training
    budget = Budget(**shares, latency=values.latency(latency_table, latency, latency_ms))
    masking: dict[str, Any] = {"score": score, "group": group, "regrow": None if regrow is None else Regrow(share=regrow)}
    masking |= {"group_rows": group_rows, "slack": slack, "transform": transform, "block": block, "step1": step1, "seed": seed}
    ranking = {"importance": importance, "search": search, "evaluations": evaluations, "multiple": multiple, "max_rate": max_rate}
    ranking |= {"residual": residual, "seed": seed, "precision": recipe.precision}
    first = filters.split(budget, filters_flops) if method == "ssr-pso+nncs" else budget
    nncs = NNCS(loaded.model, budget, loaded.example, **masking) if method == "nncs" else None
    epoch_log = files.epoch_log()
    with progress(counted=True) as bar:
        stage(bar, "reading images")
        everything, test = open_data(data, "train", masks), open_data(data, "test", masks)
        for images in (everything, test):
            result.require_classes(images, outputs)
        held_out = VALIDATION_SHARE if method == "nncs" else filters.validation_share(len(everything), VALIDATION_SHARE)
        training, validation = hold_out(everything, held_out, seed)
        batches = loader(training, loaded.preprocessing, batch, train=True, flip=flip, workers=workers, seed=seed)
        scored = loader(validation, loaded.preprocessing, batch, workers=workers)
        stage(bar, "dense network on the test images")
        dense = result.torch_score(loaded, test, batch, workers)
        pruner = None
        if nncs is None:
            task = stage(bar, "pruning filters", 1)
            tell = lambda what, done, of: bar.update(task, description=what, completed=done, total=of)  # noqa: E731
            pruner = filters.prune(loaded, ranking, first, search_workers, batches, scored, out, resume, tell)
            loaded = replace(loaded, model=pruner.model)
            if method == "ssr-pso+nncs":
                nncs = NNCS(loaded.model, filters.rest(budget, pruner.report), loaded.example, **masking)
        task = stage(bar, "training", (before + after) * len(batches))
        run: dict[str, Any] = {"save_to": files.checkpoint, "resume": resume, "on_epoch": epoch_log, **asdict(recipe)}
        run["progress"] = lambda step: bar.update(task, description=_step(step), completed=step.epoch * step.steps + step.step)
        teacher = {"teacher": pruner.dense} if pruner else {}
        if nncs is not None:
            history = nncs.fit(batches, scored, (before, after), **teacher, **run)
        elif pruner is not None:
            history = pruner.finetune(batches, scored, (before, after), **run)
        stage(bar, "exporting")
        loaded = source.placed(loaded, "cpu")
        weights_name = weights.name if weights else "random"
        provenance = {"source": network, "weights": weights_name, "method": method, "settings": history.settings}
        if pruner is not None:
            provenance |= filters.shares(pruner.report, history.report)
            pruner.save(out.with_suffix(".weights.safetensors"))
        result.write_artifact(loaded, out, provenance)
        drawn = files.draw(loaded.model, history.epochs, loaded.name, pruner.report if pruner else None)
        stage(bar, "compressed network on the test images")
        measured = result.stamp_score(out, test, dense, batch, workers)
    notes = [f"Trained on {describe(training)}; scored on {describe(test)}.", files.notes(drawn)]
    result.show(out, history, dense, measured, notes, json, pruner.report if pruner else None)


def _step(step: Any) -> str:
    accuracy = "" if step.accuracy is None else f", held-out accuracy {step.accuracy:.2%}"
    return f"step {step.phase}, epoch {step.epoch + 1} of {step.epochs}, loss {step.loss:.3f}{accuracy}"
