"""The networks that claims are about, as artifacts in a folder: exported once, found again later."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cosparse.bench import zoo
from cosparse.compress import Budget, export, impose, impose_filters


@dataclass(frozen=True)
class Variant:
    """A zoo network with random weights, and what is taken from it: multiply-adds by masks (`flops`) or whole filters (`filters`)."""

    network: str
    flops: float | None = None
    filters: float | None = None
    block: int = 8

    @property
    def file(self) -> str:
        cut = "".join(f"-{key}{value:g}" for key, value in (("flops", self.flops), ("filters", self.filters)) if value is not None)
        return f"{self.network}{cut}{f'-r{self.block}' * (self.flops is not None)}.cosparse"


def artifact(variant: Variant, cache: Path) -> Path:
    """The variant's file in the folder `cache`, exported now if it is not there. The name tells everything that decides its content."""
    path = cache / variant.file
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status(f"exporting {path.name}") if sys.stderr.isatty() else Console(stderr=True, quiet=True):
        model, example = zoo.build(variant.network), zoo.example(variant.network)
        if variant.filters is not None:
            model = impose_filters(model, variant.filters, example)
        if variant.flops is not None:
            model = impose(model, Budget(flops=variant.flops), example, block=variant.block)
        export(model, example, path, name=variant.network, preprocessing=zoo.preprocessing(variant.network))
    return path
