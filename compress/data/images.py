"""Labelled images decoded in memory: uint8 until a batch is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from cosparse.errors import Error


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` uint8 [N, C, H, W], `labels` int64 [N], the names of the classes where the data gives them, and what the set is called."""

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...] = ()
    name: str = ""
    masks: ClassVar[bool] = False

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def chosen(self, order: torch.Tensor) -> Images:
        """The images of these indices, int64 [n], in this order."""
        return replace(self, pixels=self.pixels[order], labels=self.labels[order])

    def split(self, share: float, seed: int = 0) -> tuple[Images, Images]:
        """(the rest, a random `share` held out), the same at every call with the same seed."""
        rest, held = two_parts(len(self), share, seed)
        return self.chosen(rest), self.chosen(held)


def two_parts(count: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted indices (of the rest, of a random `share` of `count`); Error where a side would be empty."""
    held = round(count * share)
    if not 0 < held < count:
        raise Error("share", f"one that leaves images on both sides of {count}", repr(share))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:].sort().values, order[:held].sort().values
