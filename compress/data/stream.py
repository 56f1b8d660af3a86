"""Batches of samples decoded on the fly by worker processes: whatever their number, (seed, epoch) alone decides what comes out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cosparse.compress.data.augment import View, centred, seeded, to_tensor
from cosparse.compress.data.normalise import Normalise
from cosparse.compress.data.samples import Samples
from cosparse.errors import Error

MARGIN = 0.875
"""Share of the larger central part that a photograph is scored at: 224 of 256 pixels, as ImageNet's figures are quoted."""

Item = tuple[torch.Tensor, torch.Tensor] | Error


class Stream:
    """Iterates over (x float32 [n, C, H, W], labels int64 [n] or [n, H, W]) with H, W the preprocessing's `size`.

    With a `view` each image is changed at random, in an order that is random as well; without one images come in order, resized and cut
    around their centre. `workers` decode; 0 leaves it to the process itself. A broken image ends the iteration by the Error that names it.
    The workers of a stream with a view live as long as the stream, those of one without as long as an iteration.
    """

    def __init__(
        self,
        samples: Samples,
        preprocessing: Mapping[str, Any],
        batch: int = 128,
        *,
        view: View | None = None,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        if batch < 1 or (workers is not None and workers < 0):
            raise Error("Stream", "batch at least 1, workers at least 0", f"batch {batch}, workers {workers}")
        height, width = size_of(preprocessing)
        self.mode = str(preprocessing.get("channels", "RGB"))
        self._normalise = Normalise.of(preprocessing, 1 if self.mode == "L" else 3)
        workers = processors() if workers is None else workers
        self._order = _Order(len(samples), seed, shuffle=view is not None)
        self._loader: DataLoader = DataLoader(
            _Decoder(samples, self.mode, (height, width), view, seed),
            batch_size=batch,
            sampler=self._order,
            num_workers=min(workers, -(-len(samples) // batch)),
            collate_fn=_collate,
            persistent_workers=view is not None and workers > 0,
            generator=torch.Generator(),  # its own: DataLoader would draw from torch's, which dropout shares
        )

    def __len__(self) -> int:
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        self._order.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for collated in self._loader:
            if isinstance(collated, Error):
                raise collated
            pixels, labels = collated
            yield self._normalise(pixels), labels
        self._order.epoch += 1


class _Order:
    """The sampler: (epoch, index) of each image. The epoch travels with the index, so that workers need not be started anew for each."""

    def __init__(self, count: int, seed: int, shuffle: bool) -> None:
        self.count, self.seed, self.shuffle, self.epoch = count, seed, shuffle, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator) if self.shuffle else torch.arange(self.count)
        epoch = self.epoch
        return ((epoch, index) for index in order.tolist())


class _Decoder(Dataset):
    """What a worker does for one image: reads it, takes its view, and gives uint8 pixels with the label."""

    def __init__(self, samples: Samples, mode: str, size: tuple[int, int], view: View | None, seed: int) -> None:
        self.samples, self.mode, self.size, self.view, self.seed = samples, mode, size, view, seed

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, index = place
        try:
            image, labels = self.samples.read(index)
        except Error as error:  # an exception that leaves a worker loses its sentence in a traceback
            return error
        image = image.convert(self.mode)
        if self.view is not None:
            with seeded(self.seed, epoch, index):
                image, labels = self.view(image, labels)
        else:
            whole = self.samples.masks or (image.height, image.width) == self.size
            image, labels = centred(image, labels, self.size, 1.0 if whole else MARGIN)
        return to_tensor(image), torch.tensor(labels) if isinstance(labels, int) else to_tensor(labels)[0].long()


def _collate(items: list[Item]) -> Item:
    broken = next((item for item in items if isinstance(item, Error)), None)
    if broken is not None:
        return broken
    pixels, labels = zip(*items, strict=True)
    return torch.stack(pixels), torch.stack(labels)


def size_of(preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the input that the preprocessing describes."""
    size = preprocessing.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise Error("preprocessing", "size [height, width], as images of any size come in", repr(size))
    return int(size[0]), int(size[1])


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
