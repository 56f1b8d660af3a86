"""`cosparse demo`: the main job, from training to a running artifact, on data that needs no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from cosparse.atomic import require_folder
from cosparse.cli.output import JsonOption, Phases, emit, progress, table
from cosparse.cli.training import share_processors
from cosparse.cli.values import SecondsOption, SeedOption, integers


def command(
    out: Annotated[Path, typer.Option(help="Folder for the artifacts and the picture of the masks.")] = Path("out/demo"),
    epochs: Annotated[str, typer.Option(metavar="D,A,B", help="Epochs: dense, before and after the masks are chosen.")] = "8,1,8",
    seconds: SecondsOption = 1.0,
    seed: SeedOption = 0,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads. Default: COSPARSE_THREADS, else all.")] = None,
    json: JsonOption = None,
) -> None:
    """Train a small network on handwritten digits, compress it, export it, run it, and compare it with other runtimes."""
    dense, before, after = integers("--epochs", epochs, count=3, least=0)
    require_folder(f"--out {out}", out)
    share_processors()
    from cosparse.bench.demo import Plan, run

    plan = Plan(epochs=(dense, before, after), seed=seed, seconds=seconds)
    if threads is not None:
        plan = replace(plan, threads=threads)
    with progress() as bar:
        result = run(out, plan, Phases(bar))
    emit(result, json, _comparison(result), *_notes(result))


def _comparison(result: dict[str, Any]) -> RenderableType:
    dense, compressed = result["dense"], result["compressed"]
    rows = [
        ("parameters", f"{dense['params']:,}", f"{compressed['params']:,}", _change(dense["params"], compressed["params"])),
        ("MFLOP (multiply-adds)", *_two(dense["flops"] / 1e6, compressed["flops"] / 1e6, ".2f")),
        ("file, bytes", f"{dense['bytes']:,}", f"{compressed['bytes']:,}", _change(dense["bytes"], compressed["bytes"])),
        (
            f"top-1 of {result['test_images']} test images, %",
            f"{dense['top1']:.2f}",
            f"{compressed['top1']:.2f}",
            f"{compressed['top1'] - dense['top1']:+.2f}",
        ),
    ]
    for who in dense["latency_ms"]:
        times = dense["latency_ms"][who], compressed["latency_ms"][who]
        label = "cosparse engine" if who == "engine" else f"{who} (always dense)"
        rows.append((f"latency, {label}, ms", *(_two(*times, ".3f") if None not in times else ("not timed: outputs differ", "", ""))))
    title = f"Handwritten digits, residual network, batch 1, {result['threads']} threads"
    return table(title, ("", "dense", "compressed", "change"), rows, left=("",))


def _two(a: float, b: float, form: str) -> tuple[str, str, str]:
    return f"{a:{form}}", f"{b:{form}}", _change(a, b)


def _change(a: float, b: float) -> str:
    return f"{b / a - 1:+.1%}" if a else ""


def _notes(result: dict[str, Any]) -> list[str]:
    from cosparse.bench.report import verdict

    compressed = {who: ms for who, ms in result["compressed"]["latency_ms"].items() if ms is not None}
    notes = [""]
    if len(compressed) > 1:
        peer = min((who for who in compressed if who != "engine"), key=compressed.__getitem__)
        notes.append(f"The compressed network runs {compressed[peer] / compressed['engine']:.2f} x as fast as on {peer}, the fastest peer.")
    notes.append(verdict(result["verdict"]))
    files = result["files"]
    notes.append(f"Written: {', '.join(files.values())}. Next: cosparse inspect {files['compressed.cosparse']}")
    return notes
