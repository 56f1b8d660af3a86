"""Measures what each layer of a network costs on the engine as a function of its mask: the table that a latency budget reads.

    python -m cosparse.bench.latency_table zoo:resnet20 --threads 2 --block 8 --out T.json

The network is exported dense and at every point of POINTS, (density, share of the input channels that blocks may use), and all of them are
profiled in turn, so that drift hits all alike. Each layer's medians are then fitted, errors relative and no term negative, by

    us = fixed_us + basis_us * (share of channels in use) + coefficient_us * (kept coefficients)

Channels are varied on their own because at most densities nearly all are in use, which would leave basis step and fixed part one figure.
`misfit` in the table says how far off the formula is at worst. Exit status: 0 written, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from cosparse.atomic import replacing
from cosparse.bench import source
from cosparse.bench.environment import cpu_model, version
from cosparse.bench.in_turn import layer_medians, load, own_layer
from cosparse.bench.settings import DTYPE, Settings, calibration_of, inputs_of, require
from cosparse.compress.latency import LatencyTable, LayerTime
from cosparse.engine import artifact
from cosparse.engine.engine import default_threads
from cosparse.errors import Error

if TYPE_CHECKING:
    import torch

    from cosparse.compress.layers import Choice

Point = tuple[float, float]
POINTS: tuple[Point, ...] = ((0.05, 1.0), (0.1, 1.0), (0.2, 1.0), (0.35, 1.0), (0.5, 1.0), (0.05, 0.5), (0.1, 0.5), (0.2, 0.5))
ROUNDS, REPEAT = 5, 10

LEAST_SLOPE = 0.01
"""Least cost of a coefficient, as a share of the dense layer's: where measurement cannot tell it from nothing, it still is not free."""


@dataclass(frozen=True)
class Sample:
    """One layer at one point: kept coefficients and used input channels as shares of all, and the median time in microseconds."""

    kept: float
    channels: float
    us: float


def measure(
    model: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    settings: Settings | None = None,
    *,
    name: str = "",
    block: int = 8,
    transform: str = "dct",
    layers: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> LatencyTable:
    """The table of a torch network at batch 1; `layers` overrides single layers as in `impose`. Error where nothing can be masked."""
    from cosparse.compress import count, export, given
    from cosparse.compress.count import as_tuple
    from cosparse.compress.layers import choose

    model, settings, tell = given.taken(model), settings or Settings(against=()), progress or (lambda text: None)
    require(settings)
    choices = [choice for choice in choose(model, count(model, example), transform, block, layers) if choice.transform is not None]
    if not choices:
        raise Error(name or "network", "a layer that can carry a mask", "none", "its layers say why: count(impose(...))")
    shares: dict[str, dict[str, tuple[float, float]]] = {}
    with TemporaryDirectory(prefix="cosparse-") as folder:
        dense = Path(folder) / "dense.cosparse"
        export(model, example, dense, name=name)
        graph = artifact.read(dense)
        inputs, calibration = inputs_of(graph, settings), calibration_of(graph, settings)
        engines = {"dense": load(dense, settings, calibration)}
        for point in POINTS:
            label = f"density {point[0]:g}, channels {point[1]:g}"
            tell(label)
            masked = _imposed(model, example, point, choices, block, transform, layers)
            shares[label] = _shares(masked)
            path = Path(folder) / "masked.cosparse"
            export(masked, example, path, name=name)
            engines[label] = load(path, settings, calibration)
        tell("timing")
        names = [choice.name for choice in choices]
        times = layer_medians(engines, inputs, names, own_layer(names), ROUNDS, REPEAT)
    entries = {}
    for choice in choices:
        samples = [Sample(*shares[label][choice.name], times[label][choice.name]) for label in shares]
        entries[choice.name] = _entry(choice, samples, times["dense"][choice.name])
    return LatencyTable(
        network=name or type(model).__name__,
        inputs=tuple(tuple(x.shape) for x in as_tuple(example)),
        threads=settings.threads,
        isa=engines["dense"].isa,
        dtype=settings.dtype,
        cpu=cpu_model(),
        cosparse=version("cosparse") or "unknown",
        other_us=times["dense"][""],
        layers=entries,
    )


def _imposed(
    model: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    point: Point,
    choices: Sequence[Choice],
    block: int,
    transform: str,
    layers: Mapping[str, str] | None,
) -> torch.nn.Module:
    """The network with `point`'s density in every layer, in the first of its input channels only: the others score 0."""
    import torch

    from cosparse.compress import Budget, impose

    density, channels = point
    scores = {}
    for choice in choices:
        scores[choice.name] = torch.ones_like(choice.module.weight, dtype=torch.float64)
        scores[choice.name][:, max(1, round(channels * choice.module.weight.shape[1])) :] = 0
    return impose(model, Budget(density=density), example, block, transform=transform, layers=layers, fisher=scores)


def _shares(model: torch.nn.Module) -> dict[str, tuple[float, float]]:
    """Layer name -> shares of coefficients kept and of input channels used."""
    from cosparse.compress import masks

    return {
        name: (mask.kept() / mask.full.numel(), mask.channels_used() * mask.taps / mask.keep.shape[1])
        for name, _, mask in masks.masked(model)
    }


def _entry(choice: Choice, samples: Sequence[Sample], dense_us: float) -> LayerTime:
    fixed, basis, all_kept, misfit = fit(samples, LEAST_SLOPE * dense_us)
    weights = choice.module.weight.numel()
    return LayerTime(
        shape=tuple(choice.count.shape),
        pixels=choice.count.pixels,
        transform=str(choice.transform),
        block=choice.block,
        dense_us=dense_us,
        fixed_us=fixed,
        basis_us=basis,
        coefficient_us=all_kept / weights,
        misfit=misfit,
    )


def fit(samples: Sequence[Sample], least: float) -> tuple[float, float, float, float]:
    """(fixed, basis step of all channels, all coefficients) in microseconds, and the largest relative error.

    Least squares of relative errors; no term below 0, the last none below `least`. Raises Error for fewer than four samples or densities.
    """
    from scipy.optimize import lsq_linear

    if len({round(sample.kept, 4) for sample in samples}) < 4 or any(sample.us <= 0 for sample in samples):
        raise Error("samples", "times at four densities or more", f"{len(samples)} of them: {samples!r}", "a wider layer or other points")
    us = np.array([sample.us for sample in samples])
    terms = np.array([[1.0, sample.channels, sample.kept] for sample in samples])
    found = lsq_linear(terms / us[:, None], np.ones(us.size), bounds=([0.0, 0.0, max(least, 1e-9)], np.inf)).x
    error = float(np.abs(terms @ found / us - 1).max())
    return float(found[0]), float(found[1]), float(found[2]), error


def main(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=" ".join(source.HELP.split()))],
    out: Annotated[Path, typer.Option(help="The table to write, JSON.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the network, a safetensors file.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    block: Annotated[int, typer.Option(help="Filters that share each decision of a mask.")] = 8,
    transform: Annotated[str, typer.Option(help="Transform in which weights are sparse.")] = "dct",
    dtype: Annotated[str, typer.Option(help="What convolutions multiply: float32, bfloat16, int8.")] = DTYPE,
    isa: Annotated[str | None, typer.Option(help="Instruction set. Default: the best.")] = None,
) -> None:
    """Measure a network's layers over density and write the table that `Latency(table=...)` reads."""
    try:
        if not out.parent.is_dir():
            raise Error(str(out), f"an existing folder {out.parent}", "none", "make it first")
        loaded = source.load(network, weights)
        settings = Settings(threads=threads or default_threads(), against=(), dtype=dtype, isa=isa)
        tell = lambda text: typer.echo(text, err=True)  # noqa: E731
        table = measure(loaded.model, loaded.example, settings, name=loaded.name, block=block, transform=transform, progress=tell)
        with replacing(out) as part:
            part.write_text(table.to_json() + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"latency_table: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(
        f"{out}: {len(table.layers)} layers, dense {table.dense_us / 1e3:.3f} ms, of which other steps {table.other_us / 1e3:.3f} ms"
    )


if __name__ == "__main__":
    typer.run(main)
