"""Measures what each layer of a network costs on the engine as a function of its widths: the table that removes filters by time.

    python -m cosparse.bench.width_table zoo:resnet56 --threads 1 --out T.json

The network is cut to up to 16 vectors of widths (`width_design`), the full one among them, exported dense, and all are profiled in turn, so
that drift hits all alike. A layer's medians become its grid (`width_grid`); `misfit` in the table says how far off that is at worst. A step
that belongs to no layer, a pool or an addition, is charged to the next one, which reads its channels; where there is none, its time in the
full network is charged whatever the widths. Exit status: 0 written, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from cosparse.atomic import replacing, require_writable
from cosparse.bench import source
from cosparse.bench.environment import cpu_model, version
from cosparse.bench.in_turn import layer_medians, load, next_layer
from cosparse.bench.settings import DTYPE, Settings, calibration_of, inputs_of, require
from cosparse.bench.width_design import colours, design, widths
from cosparse.bench.width_grid import WidthSample, layer_widths
from cosparse.compress.width_latency import WidthTable
from cosparse.engine import artifact
from cosparse.engine.engine import Engine, default_threads
from cosparse.errors import Error

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cosparse.compress.prune.coupling import ChannelGroup, Coupling

ROUNDS, REPEAT = 7, 10
MULTIPLE = 8

Widths = Mapping[str, tuple[int, int]]
"""Layer -> (input channels, filters)."""


@dataclass(frozen=True)
class Network:
    """One of the networks that are timed: the widths of its layers, and their median times; under "" those of the steps behind them all."""

    widths: Widths
    us: Mapping[str, float]


def measure(
    model: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    settings: Settings | None = None,
    *,
    groups: Coupling | None = None,
    name: str = "",
    multiple: int = MULTIPLE,
    progress: Callable[[str], None] | None = None,
) -> WidthTable:
    """The table of a torch network at batch 1. `groups`: the channels that go together, default `coupled(model, example)`.

    Widths are multiples of `multiple`. Raises Error where no group may lose channels, or a layer has no step of its own.
    """
    from cosparse.compress import count, given
    from cosparse.compress.count import as_tuple
    from cosparse.compress.prune.coupling import coupled

    model, settings, tell = given.taken(model), settings or Settings(against=()), progress or (lambda text: None)
    require(settings)
    free = (groups or coupled(model, example)).free
    layers = {layer.name: layer for layer in count(model, example).layers if layer.calls}
    vectors = plan(free, layers, multiple, tell)
    if len(vectors) == 1:
        raise Error(name or "network", f"channels that can go, {multiple} at a time", "none", "a smaller multiple, or see why: coupled()")
    networks, isa = _timed(model, example, settings, free, vectors, list(layers), tell)
    table = WidthTable(
        network=name or type(model).__name__,
        inputs=tuple(tuple(x.shape) for x in as_tuple(example)),
        threads=settings.threads,
        isa=isa,
        dtype=settings.dtype,
        cpu=cpu_model(),
        cosparse=version("cosparse") or "unknown",
        other_us=networks[0].us[""],
        layers={
            layer: layer_widths(layer, one.shape, one.pixels, [WidthSample(*net.widths[layer], net.us[layer]) for net in networks])
            for layer, one in layers.items()
        },
    )
    tell(f"whole networks by the table: off by {' to '.join(f'{error:+.1%}' for error in errors(table, networks))}")
    return table


def plan(free: Sequence[ChannelGroup], layers: Mapping[str, object], multiple: int, tell: Callable[[str], None]) -> list[dict[str, int]]:
    """Group -> width for each network to measure, the full one first; says which groups meet whose widths had to change together."""
    levels = {group.name: widths(group.channels, multiple, group.sections) for group in free}
    read: dict[str, set[str]] = {layer: set() for layer in layers}
    neighbours: dict[str, list[str]] = {group.name: [] for group in free}
    for group in free:
        for member in group.on("in"):
            read.setdefault(member.module, set()).add(group.name)
    for group in free:
        meets = {name for member in group.on("out") for name in read.get(member.module, ())}
        for other in sorted(meets):
            neighbours[group.name].append(other)
            neighbours[other].append(group.name)
    colour = colours(neighbours)
    alike = [
        f"{name} and {other}" for name, others in neighbours.items() for other in others if name < other and colour[name] == colour[other]
    ]
    if alike:
        tell(f"seen at fewer pairs of widths, as five colours do not suffice: {', '.join(dict.fromkeys(alike))}")
    return design(levels, colour)


def errors(table: WidthTable, networks: Sequence[Network]) -> tuple[float, float]:
    """Least and largest of (time by the table / time measured) - 1 of whole networks."""
    found = []
    for net in networks:
        by_table = table.other_us + sum(table.layers[layer].at(*pair) for layer, pair in net.widths.items())
        found.append(by_table / sum(net.us.values()) - 1)
    return min(found), max(found)


def _timed(
    model: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    settings: Settings,
    free: Sequence[ChannelGroup],
    vectors: Sequence[Mapping[str, int]],
    layers: Sequence[str],
    tell: Callable[[str], None],
) -> tuple[list[Network], str]:
    """The networks at these vectors of widths, and the instruction set that they ran on."""
    from cosparse.compress import export
    from cosparse.compress.prune.cut import cut

    engines: dict[str, Engine] = {}
    sizes: dict[str, Widths] = {}
    with TemporaryDirectory(prefix="cosparse-") as folder:
        path = Path(folder) / "net.cosparse"
        for number, vector in enumerate(vectors, 1):
            label = f"network {number} of {len(vectors)}"
            tell(label)
            small = cut(model, free, {group.name: first(group, vector[group.name]) for group in free})
            sizes[label] = {layer: _widths(small.get_submodule(layer), model.get_submodule(layer)) for layer in layers}
            export(small, example, path, name=label)
            graph = artifact.read(path)
            engines[label] = load(path, settings, calibration_of(graph, settings))
        tell("timing")
        times = layer_medians(engines, inputs_of(graph, settings), layers, next_layer(graph, layers), ROUNDS, REPEAT)
    return [Network(sizes[label], times[label]) for label in engines], next(iter(engines.values())).isa


def first(group: ChannelGroup, count: int) -> np.ndarray:
    """`count` channels of the group, the first of each section."""
    import numpy as np

    size, each = group.channels // group.sections, count // group.sections
    return np.concatenate([section * size + np.arange(each) for section in range(group.sections)])


def _widths(module: torch.nn.Module, full: torch.nn.Module) -> tuple[int, int]:
    """(input channels, filters); a depthwise layer's inputs count as full, as its filters say what it reads."""
    from cosparse.compress.prune.cut import depthwise, width

    return width(full if depthwise(full) else module, "in"), width(module, "out")


def main(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=" ".join(source.HELP.split()))],
    out: Annotated[Path, typer.Option(help="The table to write, JSON.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the network, a safetensors file.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    multiple: Annotated[int, typer.Option(min=1, help="Widths are multiples of it.")] = MULTIPLE,
    dtype: Annotated[str, typer.Option(help="What convolutions multiply: float32, bfloat16, int8.")] = DTYPE,
    isa: Annotated[str | None, typer.Option(help="Instruction set. Default: the best.")] = None,
) -> None:
    """Measure a network's layers over their widths and write the table that `Latency(table=...)` reads."""
    try:
        require_writable("--out", out)
        loaded = source.load(network, weights)
        settings = Settings(threads=threads or default_threads(), against=(), dtype=dtype, isa=isa)
        tell = lambda text: typer.echo(text, err=True)  # noqa: E731
        table = measure(loaded.model, loaded.example, settings, name=loaded.name, multiple=multiple, progress=tell)
        with replacing(out) as part:
            part.write_text(table.to_json() + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"width_table: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{out}: {len(table.layers)} layers, full network {table.dense_us / 1e3:.3f} ms")


if __name__ == "__main__":
    typer.run(main)
