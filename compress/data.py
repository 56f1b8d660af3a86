"""Labelled images held in memory, and fast batches of them.

Images are uint8 until a batch is made; a batch is x = (pixel scale - mean) / std, the preprocessing that an artifact records.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosparse.errors import Error


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` uint8 [N, C, H, W], `labels` int64 [N], and the names of the classes where the data gives them."""

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def split(self, share: float, seed: int = 0) -> tuple[Images, Images]:
        """(the rest, a random `share` held out), the same at every call with the same seed."""
        held = round(len(self) * share)
        if not 0 < held < len(self):
            raise Error("share", f"one that leaves images on both sides of {len(self)}", repr(share))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        rest, out = order[held:].sort().values, order[:held].sort().values
        return Images(self.pixels[rest], self.labels[rest], self.classes), Images(self.pixels[out], self.labels[out], self.classes)


def find_parquet(folder: str | Path, split: str) -> Path:
    """The one `*_{split}.parquet` with columns image and label in the folder; raises Error where there is none or several."""
    import pyarrow.parquet

    found = [
        path
        for path in sorted(Path(folder).glob(f"*_{split}.parquet"))
        if {"image", "label"} <= set(pyarrow.parquet.read_schema(path).names)
    ]
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "none"
        raise Error(str(folder), f"one *_{split}.parquet with columns image and label", got, "name the folder or the file itself")
    return found[0]


def read_parquet(path: str | Path, split: str = "train") -> Images:
    """Decodes a Parquet table of encoded images (columns image: bytes, label: integer); a folder stands for its one file of the split.

    All images must have the same height and width; they are read as RGB. Raises Error that names the file and the row.
    """
    import pyarrow.parquet
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.exists():
        raise Error(str(path), "a Parquet file or a folder of them", "nothing there")
    path = find_parquet(path, split) if path.is_dir() else path
    table = pyarrow.parquet.read_table(path, columns=["image", "label"])
    images: np.ndarray | None = None
    for row, encoded in enumerate(table["image"]):
        try:
            pixels = np.asarray(Image.open(io.BytesIO(encoded.as_py())).convert("RGB"))
        except (UnidentifiedImageError, OSError, TypeError) as error:
            raise Error(f"{path.name}, row {row}", "an encoded image", str(error)) from error
        if images is None:
            images = np.empty((len(table), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise Error(f"{path.name}, row {row}", f"{list(images.shape[1:])} as in row 0", str(list(pixels.shape)))
        images[row] = pixels
    if images is None:
        raise Error(path.name, "at least one image", "none")
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    return Images(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)


DIGITS = {"channels": "L", "scale": 1 / 16, "mean": [0.3053], "std": [0.3761], "size": [8, 8]}
"""Preprocessing of the digits: grey levels 0..16; mean and std over the data set."""


def digits(share: float = 0.2, seed: int = 0) -> tuple[Images, Images]:
    """scikit-learn's bundled handwritten digits, 1797 of 8 x 8 grey levels 0..16, as (training, test)."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    pixels = torch.from_numpy(bundle.images.astype(np.uint8))[:, None]
    images = Images(pixels, torch.from_numpy(bundle.target.astype(np.int64)), tuple(str(name) for name in bundle.target_names))
    return images.split(share, seed)


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
        self.images, self.batch, self.shuffle, self.augment, self.flip, self.pad, self.seed = (
            images,
            batch,
            shuffle,
            augment,
            flip,
            pad,
            seed,
        )
        self.epoch = 0
        channels = images.pixels.shape[1]
        mean, std = (torch.tensor(preprocessing[key], dtype=torch.float32) for key in ("mean", "std"))
        if mean.numel() != channels or std.numel() != channels:
            raise Error("preprocessing", f"mean and std of {channels} channels", f"{mean.numel()} and {std.numel()}")
        self._scale = (preprocessing["scale"] / std).reshape(1, -1, 1, 1)
        self._shift = (mean / std).reshape(1, -1, 1, 1)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count = len(self.images)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for chosen in order.split(self.batch):
            pixels = self.images.pixels[chosen]
            if self.augment:
                pixels = self._augmented(pixels, generator)
            x = pixels.float().mul_(self._scale).sub_(self._shift)
            yield x.contiguous(memory_format=torch.channels_last), self.images.labels[chosen]
        self.epoch += 1

    def _augmented(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Shifts and mirrors by one gather: row and column indices per image."""
        n, channels, height, width = pixels.shape
        offset = torch.randint(0, 2 * self.pad + 1, (2, n, 1), generator=generator)
        mirrored = torch.rand(n, 1, generator=generator) < (0.5 if self.flip else 0.0)
        rows = torch.arange(height) + offset[0]
        across = torch.arange(width)
        columns = torch.where(mirrored, width - 1 - across, across) + offset[1]
        padded = torch.nn.functional.pad(pixels, (self.pad,) * 4)
        image, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
