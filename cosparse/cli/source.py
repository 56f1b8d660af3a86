"""The network of a command line: its options, and the device that it is put on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cosparse.bench import source
from cosparse.bench.source import HELP, Source
from cosparse.cli.values import LARGEST, integers, require_regular
from cosparse.errors import Error

NetworkArgument = Annotated[str, typer.Argument(metavar="NETWORK", help=" ".join(HELP.split()))]
WeightsOption = Annotated[Path | None, typer.Option(help="Weights of the network, a safetensors file.")]
SizeOption = Annotated[str | None, typer.Option(metavar="C,H,W", help="Input size, where the network does not say or another is wanted.")]

ClassesOption = Annotated[
    int | None, typer.Option(min=1, max=LARGEST, help="Classes that a network of the zoo tells apart. Default: its data set's.")
]


def load(spec: str, weights: Path | None = None, size: str | None = None, classes: int | None = None) -> Source:
    """`bench.source.load` with the size as --size has it, "C,H,W"."""
    sides = None if size is None else integers("--size", size, 3)
    if sides is not None and math.prod(sides) > LARGEST:
        raise Error("--size", f"a product of at most {LARGEST}", repr(size))
    if weights is not None and weights.suffix == ".safetensors":
        require_regular("--weights", weights)
    return source.load(spec, weights, sides, classes)


def placed(source: Source, device: str) -> Source:
    """The network and its example on a torch device ("cpu", "cuda", "cuda:1"); Error where there is none of that name."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        here = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        raise Error("--device", f"one of {here}", repr(device), str(error).strip().partition("\n")[0]) from error
    example = tuple(x.to(device) for x in source.example) if isinstance(source.example, tuple) else source.example.to(device)
    return replace(source, model=source.model.to(device), example=example)
