"""Parquet tables of encoded images, one row each: with a class (column label), or with a mask of classes (column mask)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from cosparse.compress.data.augment import Labels
from cosparse.compress.data.images import Images
from cosparse.compress.data.samples import decoded, mask_image, only_one
from cosparse.compress.score import IGNORED
from cosparse.errors import Error

VOID = ("void", "unlabelled", "unlabeled", "ignore")
"""Names of classes, in lower case, that stand for no label."""


def tables(folder: Path, split: str, column: str) -> list[Path]:
    """The `*_{split}.parquet` of the folder that have the columns image and `column`."""
    return [path for path in sorted(folder.glob(f"*_{split}.parquet")) if {"image", column} <= set(columns(path))]


def columns(path: Path) -> list[str]:
    """The names of a table's columns; Error where the file is no Parquet."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise Error(path.name, "a Parquet file", str(error)) from error


def find_parquet(folder: str | Path, split: str, column: str = "label") -> Path:
    """The one `*_{split}.parquet` with columns image and `column` in the folder; raises Error where there is none or several."""
    return only_one(tables(Path(folder), split, column), Path(folder), f"*_{split}.parquet with columns image and {column}")


def _open(path: str | Path, split: str, column: str) -> tuple[Path, Any]:
    """The file and its table of columns image and `column`; a folder stands for its one file of the split."""
    import pyarrow.parquet

    path = Path(path)
    if not path.exists():
        raise Error(str(path), "a Parquet file or a folder of them", "nothing there")
    path = find_parquet(path, split, column) if path.is_dir() else path
    if not {"image", column} <= set(columns(path)):
        raise Error(path.name, f"columns image and {column}", ", ".join(columns(path)))
    table = pyarrow.parquet.read_table(path, columns=["image", column])
    if len(table) == 0:
        raise Error(path.name, "at least one image", "none")
    return path, table


def _classes(table: Any) -> tuple[str, ...]:
    return tuple((table.schema.metadata or {}).get(b"class_names", b"").decode().split())


def read_parquet(path: str | Path, split: str = "train") -> Images:
    """Decodes a Parquet table of encoded images (columns image: bytes, label: integer); a folder stands for its one file of the split.

    All images must have the same height and width; they are read as RGB. Raises Error that names the file and the row.
    """
    path, table = _open(path, split, "label")
    images: np.ndarray | None = None
    for row, encoded in enumerate(table["image"]):
        pixels = np.asarray(decoded(encoded.as_py(), f"{path.name}, row {row}").convert("RGB"))
        if images is None:
            images = np.empty((len(table), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise Error(f"{path.name}, row {row}", f"{list(images.shape[1:])} as in row 0", str(list(pixels.shape)))
        images[row] = pixels
    if images is None:
        raise Error(path.name, "at least one image", "none")
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    return Images(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, _classes(table), path.name)


@dataclass(frozen=True, eq=False)
class EncodedMasks:
    """Rows of encoded images and of encoded masks, whose grey levels are the classes; `ignored` are the levels that count nowhere."""

    name: str
    classes: tuple[str, ...]
    table: Any
    ignored: tuple[int, ...]
    masks: ClassVar[bool] = True
    labels: ClassVar[torch.Tensor] = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> tuple[Image.Image, Labels]:
        about = f"{self.name}, row {index}"
        image, mask = (decoded(self.table[column][index].as_py(), f"{about}, {column}") for column in ("image", "mask"))
        if mask.mode not in ("L", "P", "I", "I;16") or mask.size != image.size:
            wanted = f"one class a pixel, {image.width} x {image.height} as the image"
            raise Error(f"{about}, mask", wanted, f"mode {mask.mode}, {mask.width} x {mask.height}")
        values = np.asarray(mask).astype(np.int32)
        count = len(self.classes)
        values[np.isin(values, self.ignored)] = IGNORED
        if count and values.max() >= count:
            raise Error(f"{about}, mask", f"classes 0 to {count - 1}", str(values.max()))
        return image, mask_image(values)


def read_masks(path: str | Path, split: str = "train", ignored: tuple[int, ...] | None = None) -> EncodedMasks:
    """A Parquet table of encoded images and masks (columns image, mask: bytes); a folder stands for its one file of the split.

    `classes` are the schema's `class_names`, words with spaces between. `ignored`: classes that count nowhere; None takes those called void
    or unlabelled, which must be the last, as the others keep their numbers.
    """
    path, table = _open(path, split, "mask")
    classes = _classes(table)
    if ignored is None:
        ignored = tuple(number for number, name in enumerate(classes) if name.lower() in VOID)
        if ignored and ignored != tuple(range(len(classes) - len(ignored), len(classes))):
            raise Error(path.name, "classes that stand for no label after all others", " ".join(classes), "say which are ignored")
        classes = classes[: len(classes) - len(ignored)]
    return EncodedMasks(path.name, classes, table.combine_chunks(), ignored)
