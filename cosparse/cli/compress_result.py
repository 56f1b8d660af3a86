"""What `cosparse compress` does before and after the training: what kind of network it is, the scores, the artifact, the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosparse.cli.compress_filters import shares
from cosparse.cli.output import emit, table
from cosparse.cli.source import Source
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.data import Labelled
    from cosparse.compress.prune.report import PruneReport

SCORES = {"top1": "top-1", "miou": "mIoU"}
"""The figure that stands for a network, by what it gives: classes, or masks."""


def outputs_of(source: Source) -> tuple[int, bool]:
    """(number of classes, whether one is given for each pixel) of the network's output on its example."""
    import torch

    from cosparse.compress.score import logits_of

    example = source.example if isinstance(source.example, tuple) else (source.example,)
    with torch.no_grad():
        logits = logits_of(source.model.eval()(*example), source.name)
    if logits.ndim not in (2, 4):
        expected, got = "one output [N, classes] or [N, classes, H, W]", f"[{', '.join(map(str, logits.shape))}]"
        raise Error(source.name, expected, got, "wrap the network in a module that gives it")
    return logits.shape[1], logits.ndim == 4 and logits.shape[2:] != (1, 1)


def require_classes(data: Labelled, classes: int) -> None:
    """Error where the data have a class that the network lacks."""
    have = len(data.classes) if data.masks or data.classes else int(data.labels.max()) + 1
    if have > classes:
        raise Error(data.name, f"at most {classes} classes, as the network gives", str(have), "choose the network of these data")


def torch_score(source: Source, test: Labelled, batch: int, workers: int | None) -> dict[str, Any]:
    from cosparse.bench.evaluate import score, torch_runner

    return score(torch_runner(source.model), test, source.preprocessing, batch, workers=workers)


def write_artifact(source: Source, out: Path, provenance: dict[str, Any]) -> None:
    from cosparse.compress import export

    export(source.model, source.example, out, name=source.name, preprocessing=source.preprocessing, provenance=provenance)


def stamp_score(out: Path, test: Labelled, dense: dict[str, Any], batch: int, workers: int | None) -> dict[str, Any]:
    """Measures the artifact with the engine and writes the result into its provenance."""
    import cosparse
    from cosparse.bench.evaluate import score
    from cosparse.engine import artifact

    engine = cosparse.load(out)
    measured = score(engine, test, engine.metadata["preprocessing"], batch, workers=workers)
    graph = artifact.read(out)
    notes = measured | {f"dense_{key}": dense[key] for key in SCORES if key in dense} | {"split": "test"}
    artifact.write(out, replace(graph, provenance=graph.provenance | {"accuracy": notes}))
    return measured


def show(
    out: Path,
    history: Any,
    dense: dict[str, Any],
    measured: dict[str, Any],
    notes: list[str],
    json: str | None,
    pruned: PruneReport | None = None,
) -> None:
    """The result for whoever asked; with `pruned` it counts from the network before filters went, and names both shares."""
    report, size = history.report, out.stat().st_size
    key = next(key for key in SCORES if key in measured)
    counts = shares(pruned, report) if pruned else report.totals()
    params, flops = counts["params_dense"], counts["flops_dense"]
    result = {
        "file": str(out),
        "bytes": size,
        f"dense_{key}": dense[key],
        **measured,
        **counts,
        "params": report.params,
        "flops": report.flops,
    }
    change = f"{measured[key] - dense[key]:+.2f} points"
    rows = [
        (f"{SCORES[key]} on the test images", f"{dense[key]:.2f} %", f"{measured[key]:.2f} %", change),
        ("MFLOP, basis step included", f"{flops / 1e6:.2f}", f"{report.flops / 1e6:.2f}", f"-{counts['flops_reduction']:.1%}"),
    ]
    if pruned and report.flops < report.flops_dense:
        rows.append(("  of which filters", f"{flops / 1e6:.2f}", f"{report.flops_dense / 1e6:.2f}", f"-{pruned.flops_reduction:.1%}"))
        rows.append(("  and masks", f"{report.flops_dense / 1e6:.2f}", f"{report.flops / 1e6:.2f}", f"-{report.flops_reduction:.1%}"))
    rows += [
        ("parameters", f"{params:,}", f"{report.params:,}", f"-{counts['params_reduction']:.1%}"),
        ("bytes", f"{4 * params:,}", f"{size:,}", f"-{1 - size / (4 * params):.1%}"),
    ]
    shown = table(str(out), ("", "dense", "compressed", "change"), rows, left=("",))
    details = ([str(pruned), ""] if pruned else []) + ([str(report), ""] if report.flops < report.flops_dense or not pruned else [])
    emit(result | {"epochs": list(history.epochs)}, json, *details, shown, "", *notes)
