"""Batches of images that lie in memory, shifted and mirrored whole batches at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cosparse.compress.data.augment import seeded, shifts
from cosparse.compress.data.images import Images
from cosparse.compress.data.normalise import Normalise
from cosparse.errors import Error


class Batches:
    """Iterates over (x float32 [n, C, H, W], labels int64 [n]).

    `augment`: each image is mirrored with probability 1/2 (where `flip`) and shifted by up to `pad` pixels, zeros moving in. Order and
    augmentation depend on (seed, epoch) alone: `set_epoch(e)` makes epoch e come out the same again.
    """

    def __init__(
        self,
        images: Images,
        preprocessing: Mapping[str, Any],
        batch: int = 128,
        *,
        shuffle: bool = False,
        augment: bool = False,
        flip: bool = True,
        pad: int = 4,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise Error("batch", "at least 1", repr(batch))
        self.images, self.batch, self.shuffle, self.seed = images, batch, shuffle, seed
        self.epoch = 0
        channels, height, width = images.pixels.shape[1:]
        self._normalise = Normalise.of(preprocessing, channels)
        self._augment = shifts((height, width), pad, flip) if augment else None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count = len(self.images)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for number, chosen in enumerate(order.split(self.batch)):
            x = self.images.pixels[chosen].float()
            if self._augment is not None:
                with seeded(self.seed, self.epoch, number):
                    x = self._augment(x)
            yield self._normalise(x), self.images.labels[chosen]
        self.epoch += 1
