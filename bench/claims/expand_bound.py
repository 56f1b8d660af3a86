"""Claim: `expand`, coefficients turned back into taps on chip and multiplied as a dense layer, wins on no layer where bytes rule.

    python -m cosparse.bench.claims.expand_bound --cache DIR

There is no `expand` kernel; what is timed is the best that one could do. It reads the coefficients that are stored, as the cosparse form
does, and executes the multiply-adds of the dense form. Granted for nothing: turning coefficients into taps, all overlap of reading with
computing. So it takes at least

    max(bytes stored / bandwidth, min(time of the dense product with hot weights, dense operations / peak))

with the larger of what torch reaches and what our own layers reach as peak and bandwidth. Hot: the layer alone, dense, again and again.
Against that stands the layer in the form that the engine took, inside the network, its weights from memory. Where the first term rules,
both wait for the same bytes, and `expand` could win what it reads less: an index of two bytes a block where the engine's has four. The
layers are the last stage and the classifier of ResNet-50, where few pixels share each weight; the classifier, which keeps all its weights
in the network, gets random blocks of the same density. Exit status: 0 no layer could win, 1 one could, 2 bad input.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cosparse
from cosparse import _C
from cosparse.bench import roofline
from cosparse.bench.claims.networks import Variant
from cosparse.bench.claims.networks import artifact as artifact_of
from cosparse.bench.claims.verdict import Bar, OutOption, conclude
from cosparse.bench.dense import densify, density
from cosparse.bench.peers import Shapes
from cosparse.bench.settings import DTYPE
from cosparse.compress.pack import to_blocks
from cosparse.engine import artifact
from cosparse.engine.engine import Engine, default_threads
from cosparse.engine.graph import Graph, Input, Node, replace_nodes

NETWORK, STAGE, CLASSIFIER, BLOCK = "resnet50", "layer4.", "fc", 8
MORE_BYTES = 1.1
"""Most bytes that a layer whose time is reading may read, over those stored."""


def thin(node: Node, share: float, seed: int = 0) -> Node:
    """A dense linear node with `share` of its blocks, at random."""
    weights = node.tensors["values"]  # [O, F]
    keep = np.random.default_rng(seed).random((-(-len(weights) // BLOCK), weights.shape[1])) < share
    bias = {role: array for role, array in node.tensors.items() if role == "bias"}
    return replace(node, attrs={**node.attrs, "format": "block", "block": BLOCK}, tensors={**to_blocks(weights, keep, BLOCK), **bias})


def kinds(graph: Graph, shapes: Shapes) -> Iterator[Node]:
    """The first layer of each kind (operator, sizes, geometry) of the last stage, and the classifier."""
    seen = set()
    for node in graph.nodes:
        if node.name == CLASSIFIER or (node.op == "conv" and node.name.startswith(STAGE)):
            attrs = sorted((key, str(value)) for key, value in node.attrs.items())
            kind = (node.op, shapes[node.inputs[0]], *attrs)
            if kind not in seen:
                seen.add(kind)
                yield node


def hot_us(graph: Graph, node: Node, shapes: Shapes, folder: Path, threads: int, repeat: int) -> float:
    """Least time of the dense layer alone, microseconds: its weights lie in the nearest cache that holds them."""
    source = Input("x", (None, *shapes[node.inputs[0]][1:]))
    layer = densify(Graph(node.name, (source,), (node.name,), (replace(node, inputs=("x",)),)))
    path = folder / "layer.cosparse"
    artifact.write(path, layer)
    x = np.random.default_rng(0).standard_normal(shapes[node.inputs[0]], np.float32)
    return next(row.min_us for row in cosparse.load(path, threads=threads, dense=True).profile(x, repeat=repeat) if row.name == node.name)


def times(engine: Engine, x: np.ndarray, repeat: int) -> dict[str, float]:
    """Step -> median microseconds in the network."""
    return {row.name: row.us for row in engine.profile(x, repeat=repeat)}


def measure(path: Path, threads: int, repeat: int = 50) -> dict[str, Any]:
    """`layers`, one row each: name, density, why (the form); us in the network in this form, dense_us there dense; hot_us, peak_us,
    bytes_us, the three terms of the bound; best_us, the bound; bytes as the kernel reads them, stored_bytes. `peak_gflops`,
    `bandwidth_gbs`."""
    graph = artifact.read(path)
    share = float(np.median([density(node) for node in graph.nodes if node.op == "conv"]))
    graph = replace_nodes(graph, {CLASSIFIER: thin(graph.node(CLASSIFIER), share)})
    with tempfile.TemporaryDirectory(prefix="cosparse-") as name:
        file = Path(name) / path.name
        artifact.write(file, graph)
        x = np.random.default_rng(0).standard_normal([size or 1 for size in graph.inputs[0].shape], np.float32)
        shapes = _C.infer_shapes(_C.read_artifact(file), [x.shape])
        engine, twin = cosparse.load(file, threads=threads), cosparse.load(file, threads=threads, dense=True)
        ours, dense = times(engine, x, repeat), times(twin, x, repeat)
        plan = {row.name: row for row in engine.plan}
        rows: list[dict[str, Any]] = [
            {
                "name": node.name,
                "density": density(node),
                "why": plan[node.name].why,
                "us": ours[node.name],
                "dense_us": dense[node.name],
                "dense_flops": plan[node.name].dense_flops,
                "bytes": plan[node.name].bytes,
                "stored_bytes": sum(array.nbytes for array in node.tensors.values()),
                "dense_bytes": densify(graph).node(node.name).tensors["values"].nbytes,
                "hot_us": hot_us(graph, node, shapes, Path(name), threads, repeat),
            }
            for node in kinds(graph, shapes)
        ]
    limits = roofline.measure(threads, DTYPE)
    peak = max([2e-3 * row["dense_flops"] / row["hot_us"] for row in rows] + [limits.peak_gflops if limits else 0.0])
    bandwidth = max([1e-3 * row["dense_bytes"] / row["dense_us"] for row in rows] + [limits.bandwidth_gbs if limits else 0.0])
    for row in rows:
        row["peak_us"], row["bytes_us"] = 2e-3 * row["dense_flops"] / peak, 1e-3 * row["stored_bytes"] / bandwidth
        row["best_us"] = max(row["bytes_us"], min(row["hot_us"], row["peak_us"]))
    return {"layers": rows, "peak_gflops": peak, "bandwidth_gbs": bandwidth, "threads": threads}


def bars(found: dict[str, Any], share: float) -> list[Bar]:
    """One for each layer: its time against the best case of `expand`, or its bytes where these are that best case."""
    made = []
    for row in found["layers"]:
        what = f"density {share:g}, {row['name']}"
        terms = f"product at peak {row['peak_us']:.0f}, hot {row['hot_us']:.0f}, bytes {row['bytes_us']:.0f}"
        note = f"{row['us']:.0f} us to {row['best_us']:.0f} ({terms}); dense in the network {row['dense_us']:.0f}"
        if row["best_us"] > row["bytes_us"]:
            made.append(Bar(f"{what}: time / best case of expand", row["us"] / row["best_us"], 1.0, True, note))
        else:
            made.append(Bar(f"{what}: bytes read / stored", row["bytes"] / row["stored_bytes"], MORE_BYTES, True, note))
    return made


def main(
    cache: Annotated[Path, typer.Option(file_okay=False, help="Folder for the artifacts; exported once.")],
    densities: Annotated[str, typer.Option(help="Densities with commas between.")] = "0.1835",
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    repeat: Annotated[int, typer.Option(min=3, help="Runs that are timed.")] = 50,
    out: OutOption = None,
) -> None:
    """Hold the layers of ResNet-50's last stage against the best that coefficients expanded on chip could do."""
    try:
        held, data = [], []
        for share in map(float, densities.split(",")):
            found = measure(artifact_of(Variant(NETWORK, density=share, block=BLOCK), cache), threads or default_threads(), repeat)
            data.append(found | {"density": share})
            held += bars(found, share)
    except (ValueError, OSError) as error:
        typer.echo(f"expand_bound: {error}", err=True)
        raise typer.Exit(2) from error
    command = "python -m cosparse.bench.claims.expand_bound " + " ".join(sys.argv[1:])
    conclude("expand_bound", "Layers whose bytes rule against coefficients expanded on chip", command, held, data, out)


if __name__ == "__main__":
    typer.run(main)
