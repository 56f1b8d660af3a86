"""The engine's layers beside stand-alone programs that show what is reachable on this machine.

    python -m cosparse.bench.yardsticks ../shared/yardsticks

The folder holds block_spmm.cpp (1x1 layers) and dct_conv3x3.cpp (3x3 layers in the DCT): programs without packing, tails or checks. They
are compiled here with g++ and run in turn with the engine; each layer gets the ratio of the engine's GFLOP/s on coefficients (the basis
step is paid, not counted, in both) to the program's in float32 with the same number of filters a block. Exit status: 0 measured, or
nothing to measure; 2 bad input.
"""

from __future__ import annotations

import json as jsonlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import cosparse
from cosparse.bench import neighbours
from cosparse.bench.layer_net import Layer, image, network
from cosparse.engine import artifact
from cosparse.engine.engine import Engine, default_threads
from cosparse.errors import Error

PROGRAMS = ("block_spmm", "dct_conv3x3")
FLAGS = ("-O3", "-march=native", "-fopenmp")
POINT = re.compile(r"^\s*(\d+) filters\s+(\d+) channels\s+(\d+) pixels")
SPACE = re.compile(r"^\s*(\d+) channels\s+(\d+)x\s*(\d+):")


@dataclass(frozen=True)
class Line:
    """One layer of a program's output: its best GFLOP/s in float32 with blocks of `block` filters."""

    layer: Layer
    gflops: float


def read(text: str, block: int) -> Iterator[Line]:
    """The layers that a program printed; those without a figure for this block size are left out."""
    for line in text.splitlines():
        if found := POINT.match(line):
            filters, channels, pixels = map(int, found.groups())
            layer = Layer(filters, channels, round(pixels**0.5), 1)
            figures = re.findall(rf"fp32 {block}x\d+ ([\d.]+)", line)
        elif found := SPACE.match(line):
            channels, size = int(found[1]), int(found[2])
            layer = Layer(channels, channels, size, 3)
            figures = re.findall(rf"\b{block}x\d+ ([\d.]+) GFLOP/s", line)
        else:
            continue
        if figures:
            yield Line(layer, max(map(float, figures)))


def build(source: Path, folder: Path) -> Path:
    """Compiles one program; Error with the compiler's last line where that fails."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise Error("yardsticks", "a C++ compiler", f"no {compiler}", "install g++, or name yours with CXX=...")
    program = folder / source.stem
    done = subprocess.run([compiler, *FLAGS, "-o", str(program), str(source)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Error(source.name, "to compile", (done.stderr.strip().splitlines() or ["no message"])[-1])
    return program


def run(program: Path, density: float, threads: int) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([str(program), str(density)], capture_output=True, text=True, timeout=300, env=environment)
    if done.returncode:
        raise Error(program.name, "exit status 0", str(done.returncode))
    return done.stdout


def measure(folder: Path, density: float = 0.2, block: int = 8, threads: int | None = None, turns: int = 3) -> list[dict[str, Any]]:
    """One row for each layer: layer, yardstick and engine in GFLOP/s on coefficients (medians over turns), kernel, ratio."""
    count = threads or default_threads()
    theirs: dict[Layer, list[float]] = {}
    ours: dict[Layer, list[float]] = {}
    engines: dict[Layer, Engine] = {}
    with TemporaryDirectory(prefix="cosparse-") as name:
        programs = [build(folder / f"{program}.cpp", Path(name)) for program in PROGRAMS]
        for _ in range(turns):
            for program in programs:
                for line in read(run(program, density, count), block):
                    theirs.setdefault(line.layer, []).append(line.gflops)
                    if line.layer not in engines:
                        path = Path(name) / "layer.cosparse"
                        artifact.write(path, network(line.layer, density, block))
                        engines[line.layer] = cosparse.load(path, threads=count)
                    ours.setdefault(line.layer, []).append(_gflops(engines[line.layer], line.layer))
    rows = []
    for layer, gflops in theirs.items():
        yardstick, engine = median(gflops), median(ours[layer])
        kernel = next(step.kernel for step in engines[layer].plan if step.name == "conv")
        rows.append(
            {"layer": str(layer), "kernel": kernel, "yardstick": yardstick, "engine": round(engine, 1), "ratio": engine / yardstick}
        )
    return rows


def _gflops(engine: Engine, layer: Layer) -> float:
    return next(step.gflops for step in engine.profile(image(layer), repeat=30) if step.name == "conv")


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with the two programs.")] = Path("../shared/yardsticks"),
    density: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the blocks that exist.")] = 0.2,
    block: Annotated[int, typer.Option(help="Filters a block: 1, 4 or 8.")] = 8,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Rounds of programs and engine.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
) -> None:
    """Compare the engine's layers with the programs of a folder."""
    if missing := [name for name in PROGRAMS if not (folder / f"{name}.cpp").is_file()]:
        typer.echo(f"yardsticks: skipped, {folder} has no {' and no '.join(f'{name}.cpp' for name in missing)}")
        return
    try:
        before = neighbours.sample()
        rows = measure(folder, density, block, threads, turns)
    except (ValueError, OSError) as error:
        typer.echo(f"yardsticks: {error}", err=True)
        raise typer.Exit(2) from error
    shown = Table(title=f"GFLOP/s on coefficients, density {density:g}, r = {block}", box=None, title_justify="left")
    for column in ("layer", "kernel", "yardstick", "engine", "ratio"):
        shown.add_column(column, justify="left" if column in ("layer", "kernel") else "right")
    for row in rows:
        shown.add_row(row["layer"], row["kernel"], f"{row['yardstick']:.0f}", f"{row['engine']:.0f}", f"{row['ratio']:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if not neighbours.quiet(before):
        typer.echo(f"Others kept {before:.2f} processors busy: the programs' threads wait for each other there; measure again.")
    if json:
        json.write_text(jsonlib.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
