"""What lies in a folder, and the batches that fit it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosparse.compress.data import samples
from cosparse.compress.data.augment import View
from cosparse.compress.data.batches import Batches
from cosparse.compress.data.coco import annotation_files, read_coco
from cosparse.compress.data.folder import class_folders, read_folder
from cosparse.compress.data.images import Images
from cosparse.compress.data.parquet import columns, read_masks, read_parquet, tables
from cosparse.compress.data.samples import Samples
from cosparse.compress.data.stream import Stream
from cosparse.errors import Error

NAMES = {"test": ("test", "val")}
"""Splits by the names under which folders of images and COCO keep them: ImageNet's and COCO's own test sets have no labels."""

MASK_SCALE = (0.25, 1.0)
"""Shares of its area at which an image with a mask is seen; a twelfth of a street would be one class."""

Labelled = Images | Samples


def open_data(path: str | Path, split: str, masks: bool | None = None) -> Labelled:
    """The labelled images of a split ("train", "test", ...), from whichever layout `path` has; where it has none, Error lists the layouts.

    `masks`: whether a mask (True) or a class (False) is wanted of each image; None takes what is there, classes first.
    """
    path = Path(path)
    opened = _opened(path, split, masks) if path.exists() else None
    if opened is None:
        raise Error(str(path), _layouts(split, masks), _content(path))
    return opened


def _layouts(split: str, masks: bool | None) -> str:
    names = NAMES.get(split, (split,))
    classes = [f"one *_{split}.parquet with columns image and label", *(f"{name}/CLASS/*" for name in names)]
    pixels = [f"one *_{split}.parquet with columns image and mask", *(f"annotations/instances_{name}*.json with images" for name in names)]
    return ", or ".join(([] if masks else classes) + (pixels if masks is not False else []))


def _opened(path: Path, split: str, masks: bool | None) -> Labelled | None:
    if path.is_file():
        return _file(path, split, masks)
    if not masks and tables(path, split, "label"):
        return read_parquet(path, split)
    if masks is not False and tables(path, split, "mask"):
        return read_masks(path, split)
    for name in NAMES.get(split, (split,)):
        if not masks and (path / name).is_dir() and class_folders(path / name):
            training = path / "train"
            return read_folder(path / name, class_folders(training) if training.is_dir() and name != "train" else None)
        if masks is not False and annotation_files(path, name):
            return read_coco(path, name)
    return None


def _file(path: Path, split: str, masks: bool | None) -> Labelled | None:
    if path.suffix != ".parquet":
        return None
    label = "label" in columns(path)
    return read_parquet(path, split) if label and not masks else read_masks(path, split) if masks is not False else None


def _content(path: Path) -> str:
    if not path.exists():
        return "nothing there"
    if path.is_file():
        return f"a table of {', '.join(columns(path))}" if path.suffix == ".parquet" else "another file"
    inside = sorted(entry.name for entry in path.iterdir())
    return ", ".join(inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "") or "an empty folder"


def hold_out(data: Labelled, share: float, seed: int = 0) -> tuple[Labelled, Labelled]:
    """(the rest, a random `share` held out), the same at every call with the same seed."""
    return data.split(share, seed) if isinstance(data, Images) else samples.split(data, share, seed)


def describe(data: Labelled) -> str:
    """The set in a few words: its name, how many images, how many classes, and what was passed over."""
    origin = getattr(data, "samples", data)
    skipped = getattr(origin, "skipped", 0)
    classes = f" in {len(data.classes)} classes" if data.classes else ""
    return f"{data.name or 'images'}: {len(data):,} images{classes}" + (f", {skipped:,} other files passed over" if skipped else "")


def loader(
    data: Labelled,
    preprocessing: Mapping[str, Any],
    batch: int = 128,
    *,
    train: bool = False,
    flip: bool = True,
    colour: float = 0.0,
    workers: int | None = None,
    seed: int = 0,
) -> Batches | Stream:
    """Batches for training, shuffled and changed at random, or for scoring, in order and unchanged.

    Images in memory are mirrored and shifted by up to 4 pixels; images that are decoded on the fly, by `workers` processes, are seen in
    parts (`View`). `flip` and `colour` are of both, though the first kind has no colours changed: Error where it is asked for.
    """
    if isinstance(data, Images):
        if colour:
            raise Error("colour", "0 for images in memory", repr(colour), "only images that are decoded on the fly have colours changed")
        return Batches(data, preprocessing, batch, shuffle=train, augment=train, flip=flip, seed=seed)
    size = preprocessing.get("size", (0, 0))
    scale = MASK_SCALE if data.masks else View.scale
    view = View((size[0], size[1]), scale, flip=flip, colour=colour) if train else None
    return Stream(data, preprocessing, batch, view=view, workers=workers, seed=seed)
