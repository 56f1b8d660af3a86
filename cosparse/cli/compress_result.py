"""What `cosparse compress` does before and after the training: what kind of network it is, the scores, the artifact, the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosparse.cli.output import emit, table
from cosparse.cli.source import Source
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.data import Labelled

SCORES = {"top1": "top-1", "miou": "mIoU"}
"""The figure that stands for a network, by what it gives: classes, or masks."""


def outputs_of(source: Source) -> tuple[int, bool]:
    """(number of classes, whether one is given for each pixel) of the network's output on its example."""
    import torch

    example = source.example if isinstance(source.example, tuple) else (source.example,)
    with torch.no_grad():
        output = source.model.eval()(*example)
    if not isinstance(output, torch.Tensor) or output.ndim not in (2, 4):
        got = f"[{', '.join(map(str, output.shape))}]" if isinstance(output, torch.Tensor) else type(output).__name__
        raise Error(source.name, "one output [N, classes] or [N, classes, H, W]", got, "wrap the network in a module that gives it")
    return output.shape[1], output.ndim == 4 and output.shape[2:] != (1, 1)


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


def show(out: Path, history: Any, dense: dict[str, Any], measured: dict[str, Any], notes: list[str], json: str | None) -> None:
    report = history.report
    size = out.stat().st_size
    key = next(key for key in SCORES if key in measured)
    result = {"file": str(out), "bytes": size, f"dense_{key}": dense[key], **measured, **report.totals()}
    change = f"{measured[key] - dense[key]:+.2f} points"
    rows = [
        (f"{SCORES[key]} on the test images", f"{dense[key]:.2f} %", f"{measured[key]:.2f} %", change),
        ("MFLOP, basis step included", f"{report.flops_dense / 1e6:.2f}", f"{report.flops / 1e6:.2f}", f"-{report.flops_reduction:.1%}"),
        ("parameters", f"{report.params_dense:,}", f"{report.params:,}", f"-{report.params_reduction:.1%}"),
        ("bytes", f"{4 * report.params_dense:,}", f"{size:,}", f"-{1 - size / (4 * report.params_dense):.1%}"),
    ]
    shown = table(str(out), ("", "dense", "compressed", "change"), rows, left=("",))
    emit(result | {"epochs": list(history.epochs)}, json, str(report), "", shown, "", *notes)
