"""Instances of COCO (Lin et al. 2014) as masks of classes: ROOT/annotations/instances_SPLIT*.json and the images in ROOT/SPLIT*.

Label 0 is the background, then come the categories by rising id. Large instances are painted first, so that a small one on top of them
stays; crowds are ignored where no instance covers them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from cosparse.compress.data.augment import Labels
from cosparse.compress.data.samples import decoded, mask_image, only_one
from cosparse.compress.score import IGNORED
from cosparse.errors import Error

BACKGROUND = "background"


@dataclass(frozen=True, eq=False)
class Coco:
    """`photographs`: (file, height, width, instances) of each image; `numbers`: category id -> label."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    numbers: dict[int, int]
    photographs: list[tuple[str, int, int, list[dict[str, Any]]]]
    masks: ClassVar[bool] = True
    labels: ClassVar[torch.Tensor] = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.photographs)

    def read(self, index: int) -> tuple[Image.Image, Labels]:
        file, height, width, instances = self.photographs[index]
        image = decoded(self.folder / file, str(self.folder / file))
        if (image.height, image.width) != (height, width):
            raise Error(str(self.folder / file), f"{width} x {height} pixels as annotated", f"{image.width} x {image.height}")
        mask = np.zeros((height, width), np.int32)
        for instance in sorted(instances, key=lambda one: (not one.get("iscrowd"), -float(one.get("area", 0)), one["id"])):
            label = IGNORED if instance.get("iscrowd") else self.numbers[instance["category_id"]]
            mask[covered(instance["segmentation"], height, width, f"{self.name}, annotation {instance['id']}")] = label
        return image, mask_image(mask)


def covered(segmentation: Any, height: int, width: int, about: str) -> np.ndarray:
    """Which pixels an instance covers, bool [height, width]: from polygons, or from run lengths, compressed or not."""
    from pycocotools import mask as codec

    expected = f"polygons of three or more corners, or run lengths of {height} x {width} pixels"
    try:
        if isinstance(segmentation, list):
            short = [len(corners) for corners in segmentation if len(corners) < 6 or len(corners) % 2]
            if short or not segmentation:
                raise Error(about, expected, f"polygons of {short} numbers" if short else "no polygon")
            coded = codec.merge(codec.frPyObjects(segmentation, height, width))
        else:
            counts, size = segmentation["counts"], list(segmentation["size"])
            if size != [height, width] or (isinstance(counts, list) and sum(counts) != height * width):
                raise Error(about, expected, f"run lengths of {' x '.join(map(str, size))} pixels")
            coded = codec.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
        return codec.decode(coded).astype(bool)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, Error):
            raise
        raise Error(about, expected, str(error) or type(error).__name__) from error


def annotation_files(root: Path, split: str) -> list[Path]:
    return sorted((root / "annotations").glob(f"instances_{split}*.json"))


def read_coco(root: str | Path, split: str = "train") -> Coco:
    """The images of a split with their instances; Error that names the file where annotations and images do not fit together."""
    root = Path(root)
    path = only_one(annotation_files(root, split), root / "annotations", f"instances_{split}*.json")
    tag = path.stem.removeprefix("instances_")
    places = [root / tag, root / "images" / tag, root / "images"]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise Error(str(root), f"the images of {path.name} in a folder {tag}", "none")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda category: category["id"])
        numbers = {category["id"]: label for label, category in enumerate(categories, start=1)}
        names = (BACKGROUND, *(str(category["name"]) for category in categories))
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for one in content["annotations"]:
            if one["image_id"] not in by_image or one["category_id"] not in numbers or "segmentation" not in one:
                raise Error(f"{path.name}, annotation {one['id']}", "an image, a category and a segmentation of this file", "others")
            by_image[one["image_id"]].append(one)
        photographs = [(str(i["file_name"]), int(i["height"]), int(i["width"]), by_image[i["id"]]) for i in content["images"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise Error(str(path), "instances as COCO writes them", f"{type(error).__name__}: {error}") from error
    if not photographs:
        raise Error(str(path), "at least one image", "none")
    return Coco(f"{root.name}/{tag}", folder, names, numbers, sorted(photographs, key=lambda p: p[0]))
