"""The option --device: what it may be, what does not go with it, and an engine on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosparse.cli.values import read_calibration
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.engine.engine import Engine

DeviceOption = Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:N.")]


def on_gpu(device: str) -> bool:
    """Whether it names a GPU; Error for anything but cpu, cuda and cuda:N."""
    from cosparse.engine.engine import names_gpu

    return names_gpu(device, "--device")


def refuse(device: str, given: Mapping[str, object]) -> None:
    """Error where one of the options, name -> value, was given: they are the CPU's alone."""
    for option, value in given.items():
        if value:
            raise Error(option, "--device cpu", f"--device {device}", "leave it out: a GPU has no such setting")


def load(artifact: Path, device: str, dtype: str | None, threads: int | None, isa: str | None, calibration: list[Path] | None) -> Engine:
    """The engine that the options ask for; None stands for an option that was not given, and for the device's own dtype."""
    import cosparse

    if on_gpu(device):
        refuse(device, {"--threads": threads, "--isa": isa, "--calibration": calibration})
        made: Any = cosparse.load(artifact, device=device, dtype=dtype)
        return made
    number = dtype or "float32"
    return cosparse.load(artifact, threads=threads, dtype=number, isa=isa, calibration=read_calibration(number, calibration))
