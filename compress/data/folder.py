"""Image files in one folder a class, ImageNet's layout: ROOT/train/CLASS/*, ROOT/val/CLASS/*. Classes are numbered by sorted name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from cosparse.compress.data.augment import Labels
from cosparse.compress.data.samples import decoded
from cosparse.errors import Error

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Folder:
    """`files`: paths under `root` as bytes, one array, since a million Python objects would be copied into every worker.

    `skipped`: how many files were none of SUFFIXES.
    """

    root: Path
    classes: tuple[str, ...]
    files: np.ndarray
    labels: torch.Tensor
    skipped: int
    masks: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"{self.root.parent.name}/{self.root.name}"

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, Labels]:
        path = self.root / os.fsdecode(self.files[index])
        return decoded(path, str(path)), int(self.labels[index])


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root`, hidden ones left out, sorted."""
    return tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")))


def read_folder(root: str | Path, classes: tuple[str, ...] | None = None) -> Folder:
    """The images below the class folders of `root`, of one split, at any depth.

    Raises Error where a class has no image, where there is no class at all, or where the classes are others than the given `classes`.
    """
    root = Path(root)
    if not root.is_dir():
        raise Error(str(root), "a folder with one folder a class", "nothing there")
    found = class_folders(root)
    if not found:
        raise Error(str(root), "one folder a class", "none")
    if classes is not None and found != classes:
        differing = ", ".join(sorted(set(found) ^ set(classes))[:5])
        raise Error(str(root), f"the {len(classes)} class folders of the training images", f"others: {differing}")
    files: list[bytes] = []
    labels: list[int] = []
    skipped = 0
    for number, name in enumerate(found):
        inside = sorted(os.path.join(top, file) for top, _, names in os.walk(root / name) for file in names)
        images = [os.fsencode(os.path.relpath(path, root)) for path in inside if path.lower().endswith(SUFFIXES)]
        if not images:
            raise Error(str(root / name), "at least one image", f"{len(inside)} other files" if inside else "an empty folder")
        files += images
        labels += [number] * len(images)
        skipped += len(inside) - len(images)
    return Folder(root, found, np.array(files), torch.tensor(labels), skipped)
