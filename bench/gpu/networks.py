"""The networks of the GPU's table: artifacts in a folder, made once, and the dense networks that they are held against.

    python -m cosparse.bench.gpu.networks --cache DIR [--rows resnet50,vgg16,filters]

Weights are random. Masks have blocks of 64 filters, what tensor cores multiply at once. By magnitude alone, random weights decide nothing
inside a layer and everything between layers: 64 random squares sum to much the same everywhere, so layers go to the floor of 2 % or stay
whole. The rows "-even" have the same multiply-adds with one density throughout, as the CPU's table has.
"""

from __future__ import annotations

import lzma
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from torch import nn

from cosparse.bench import zoo
from cosparse.bench.claims.networks import Variant
from cosparse.compress import Budget, export, impose, impose_filters
from cosparse.engine import artifact as files
from cosparse.engine.graph import Graph
from cosparse.errors import Error

BLOCK = 64
PACKED = ".xz"


@dataclass(frozen=True)
class Row:
    """What is taken from a zoo network, and batch size -> the speed-up over the fastest dense peer that it has to reach."""

    name: str
    variant: Variant
    bars: Mapping[int, float] = field(default_factory=dict)

    @property
    def network(self) -> str:
        return self.variant.network

    @property
    def ideal(self) -> float | None:
        """Dense multiply-adds over those left, as asked for; None where only the artifact knows."""
        share = self.variant.flops if self.variant.filters is None else self.variant.filters
        return None if share is None else 1 / (1 - share)


RESNET50, VGG16, FILTERS = {1: 2.0, 32: 1.6, 256: 1.6}, {1: 1.5, 32: 2.0, 256: 2.5}, {1: 1.5, 32: 1.5, 256: 1.6}
ROWS = {
    row.name: row
    for row in (
        Row("resnet50", Variant("resnet50", flops=0.789, block=BLOCK), RESNET50),
        Row("vgg16", Variant("vgg16", flops=0.768, block=BLOCK), VGG16),
        Row("filters", Variant("resnet50", filters=0.581), FILTERS),
        Row("resnet50-even", Variant("resnet50", density=0.1835, block=BLOCK), RESNET50),
        Row("vgg16-even", Variant("vgg16", density=0.2215, block=BLOCK), VGG16),
    )
}
BATCHES = (1, 32, 256)


def row_of(name: str) -> Row:
    if name not in ROWS:
        raise Error("row", f"one of {', '.join(ROWS)}", repr(name))
    return ROWS[name]


def artifact(row: Row, cache: Path) -> tuple[Path, nn.Module]:
    """The row's file in `cache` and the dense network in eval mode, with its own weights: what the artifact was made from.

    A file that is there is taken as it is; one that is there compressed (`pack`) is unpacked beside it; otherwise it is made, which needs
    torch-pruning for the row without filters. The name tells everything that decides the content.
    """
    path, model = cache / row.variant.file, zoo.build(row.network)
    if path.exists():
        return path, model
    cache.mkdir(parents=True, exist_ok=True)
    packed = path.with_name(path.name + PACKED)
    if packed.exists():
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(lzma.decompress(packed.read_bytes()))
        os.replace(temporary, path)
        return path, model
    variant, example = row.variant, zoo.example(row.network)
    made = model
    if variant.filters is not None:
        made = impose_filters(made, variant.filters, example)
    if variant.masked:
        budget = Budget(flops=variant.flops, params=variant.params, density=variant.density)
        made = impose(made, budget, example, block=variant.block, seed=0)
    export(made, example, path, name=row.name, preprocessing=zoo.preprocessing(row.network))
    return path, model


def pack(path: Path) -> Path:
    """NAME.cosparse.xz beside an artifact, with values rounded to float16 first, in the artifact too: half the bytes.

    A float16 engine multiplies rounded values anyhow. Only for an artifact without transforms, where the dense network rounds the very same
    numbers: coefficients that come rounded would spare the engine an error that its peers make.
    """
    graph = files.read(path)
    if moved := [node.name for node in graph.nodes if node.attrs.get("transform", "identity") != "identity"]:
        raise Error(str(path), "an artifact without transforms", f"{moved[0]} has one", "carry the file as it is")
    files.write(path, _rounded(graph))
    packed = path.with_name(path.name + PACKED)
    packed.write_bytes(lzma.compress(path.read_bytes(), preset=6))
    return packed


def _rounded(graph: Graph) -> Graph:
    def tensors(old: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {role: array.astype(np.float16).astype(np.float32) if role == "values" else array for role, array in old.items()}

    return replace(graph, nodes=tuple(replace(node, tensors=tensors(node.tensors)) for node in graph.nodes))


@dataclass(frozen=True)
class Blocks:
    """How the blocks of one layer lie: `kept` columns of `columns` for each of its block rows, the least and the most."""

    name: str
    transform: str
    block: int
    columns: int
    kept: tuple[int, ...]

    def __str__(self) -> str:
        share = sum(self.kept) / max(1, len(self.kept) * self.columns)
        spread = f"{min(self.kept)}..{max(self.kept)} of {self.columns} columns"
        return f"{self.name:28} {self.transform:9} {self.block}x1  {share:6.1%}  {len(self.kept):3} block rows, {spread}"


def blocks(path: Path) -> list[Blocks]:
    """Of every layer of an artifact that is stored in blocks."""
    found = []
    for node in files.read(path).nodes:
        if "rows" in node.tensors:
            attrs: Mapping[str, Any] = node.attrs
            columns = int(attrs["channels"]) * int(np.prod(attrs.get("kernel", [1, 1])))
            kept = tuple(int(n) for n in np.diff(node.tensors["rows"].astype(np.int64)))
            found.append(Blocks(node.name, str(attrs.get("transform", "identity")), int(attrs["block"]), columns, kept))
    return found


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts.")],
    rows: Annotated[str, typer.Option(help="Rows with commas between.")] = ",".join(ROWS),
) -> None:
    """Make the artifacts, and show how their blocks lie."""
    try:
        for row in map(row_of, rows.split(",")):
            path, _ = artifact(row, cache)
            small = pack(path) if row.variant.filters is not None else path
            notes = files.read(path).provenance
            typer.echo(f"{row.name}: {path}, {path.stat().st_size:,} bytes, to carry {small.stat().st_size:,}")
            typer.echo("  " + ", ".join(f"{key} {notes[key]:.4f}" for key in ("flops_reduction", "params_reduction")))
            for layer in blocks(path):
                typer.echo(f"  {layer}")
    except (ValueError, OSError) as error:
        typer.echo(f"networks: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    typer.run(main)
