"""Labelled images that are decoded one by one when they are needed: what the readers of large data return."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from cosparse.compress.data.augment import Labels
from cosparse.compress.data.images import two_parts
from cosparse.errors import Error


class Samples(Protocol):
    """`masks`: each label is a mask of labels, one a pixel, with IGNORED where none counts; else it is one class."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def masks(self) -> bool: ...

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N]; empty where the labels are masks."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Image.Image, Labels]:
        """The decoded image and its label; Error that names the file, or file and row, where it is broken."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some of the samples, by their indices int64 [n]."""

    samples: Samples
    order: torch.Tensor

    @property
    def name(self) -> str:
        return self.samples.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.samples.classes

    @property
    def masks(self) -> bool:
        return self.samples.masks

    @property
    def labels(self) -> torch.Tensor:
        return self.samples.labels if self.masks else self.samples.labels[self.order]

    def __len__(self) -> int:
        return len(self.order)

    def read(self, index: int) -> tuple[Image.Image, Labels]:
        return self.samples.read(int(self.order[index]))


def split(samples: Samples, share: float, seed: int = 0) -> tuple[Chosen, Chosen]:
    """(the rest, a random `share` held out), the same at every call with the same seed."""
    rest, held = two_parts(len(samples), share, seed)
    return Chosen(samples, rest), Chosen(samples, held)


def decoded(source: Path | bytes | None, about: str) -> Image.Image:
    """The image of a file or of encoded bytes, read to its last pixel; Error about `about` where it is none or broken."""
    try:
        if source is None:
            raise OSError("null")
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Error(about, "an encoded image", str(error), "replace or remove it") from error
    return image


def mask_image(values: np.ndarray) -> Image.Image:
    """A mask of labels [H, W] as the image that is cut and resized like its photograph."""
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.int32))


def only_one(found: Sequence[Path], about: Path, expected: str) -> Path:
    """The one path that was found; Error where there is none or several."""
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "none"
        raise Error(str(about), f"one {expected}", got, "name the folder or the file itself")
    return found[0]
