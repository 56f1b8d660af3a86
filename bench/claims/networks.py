"""The networks that claims are about, as artifacts in a folder: exported once, found again later."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from cosparse.bench import zoo
from cosparse.compress import Budget, export, impose, impose_filters


@dataclass(frozen=True)
class Variant:
    """A zoo network with random weights, and what is taken from it: multiply-adds and parameters by masks (`flops`, `params`, or one
    `density` throughout) or whole filters (`filters`). `size`: height and width of the input, where the network's own is not meant."""

    network: str
    flops: float | None = None
    params: float | None = None
    density: float | None = None
    filters: float | None = None
    size: tuple[int, int] | None = None
    block: int = 8

    @property
    def masked(self) -> bool:
        return any(share is not None for share in (self.flops, self.params, self.density))

    @property
    def file(self) -> str:
        shares = (("flops", self.flops), ("params", self.params), ("density", self.density), ("filters", self.filters))
        cut = "".join(f"-{key}{value:g}" for key, value in shares if value is not None)
        size = "" if self.size is None else f"-{self.size[0]}x{self.size[1]}"
        return f"{self.network}{size}{cut}{f'-r{self.block}' * self.masked}.cosparse"


def artifact(variant: Variant, cache: Path) -> Path:
    """The variant's file in the folder `cache`, exported now if it is not there. The name tells everything that decides its content."""
    path = cache / variant.file
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status(f"exporting {path.name}") if sys.stderr.isatty() else Console(stderr=True, quiet=True):
        model, example = zoo.build(variant.network), zoo.example(variant.network)
        if variant.size is not None:
            example = torch.randn(1, example.shape[1], *variant.size, generator=torch.Generator().manual_seed(0))
        if variant.filters is not None:
            model = impose_filters(model, variant.filters, example)
        if variant.masked:
            budget = Budget(flops=variant.flops, params=variant.params, density=variant.density)
            model = impose(model, budget, example, block=variant.block)
        export(model, example, path, name=variant.network, preprocessing=zoo.preprocessing(variant.network))
    return path
