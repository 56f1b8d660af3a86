"""A set of a few images with annotations as COCO 2017 has them, for proofs that the recipe runs.

What the real files hold is all there: JPEG files of several sizes, one of them grey, one without an instance; polygons of one and of two
parts, run lengths, crowds; category ids with gaps. A category is a colour, so that there is something to learn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = {1: ("person", "person"), 13: ("stop sign", "outdoor"), 18: ("dog", "animal"), 90: ("toothbrush", "indoor")}
"""id -> (name, supercategory), as in COCO."""

COLOURS = {1: (230, 60, 60), 13: (60, 230, 60), 18: (60, 60, 230), 90: (230, 230, 60)}

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, the last two excluded."""


def tiny_coco(folder: Path, images: int = 30, seed: int = 0) -> Path:
    """Writes annotations/instances_SPLIT2017.json and SPLIT2017/*.jpg, `images` for training and 4 for validation, under `folder`."""
    rng = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in (("train2017", images), ("val2017", 4)):
        (folder / split).mkdir(exist_ok=True)
        content: dict[str, Any] = {
            "info": {"year": 2017, "version": "1.0", "description": "a tiny set in the format of COCO 2017"},
            "licenses": [{"id": 1, "name": "none", "url": ""}],
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name, "supercategory": above} for number, (name, above) in CATEGORIES.items()],
        }
        for number in range(count):
            height, width = (int(side) for side in rng.integers(72, 144, size=2))
            picture = Image.fromarray(rng.integers(0, 120, (height, width, 3), dtype=np.uint8))
            identity, file = 1000 + 7 * number, f"{1000 + 7 * number:012d}.jpg"
            content["images"].append({"id": identity, "file_name": file, "height": height, "width": width, "license": 1})
            for one in _instances(picture, number, rng) if number != 1 else ():
                content["annotations"].append({"id": 1 + len(content["annotations"]), "image_id": identity, **one})
            (picture.convert("L") if number == 2 else picture).save(folder / split / file, quality=90)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _instances(picture: Image.Image, number: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Paints a few instances, one in each quarter of the picture, and gives their annotations without ids."""
    across, down = picture.width // 2, picture.height // 2
    ids = list(CATEGORIES)
    for quarter in range(4):
        left, top = quarter % 2 * across, quarter // 2 * down
        box = (left + int(rng.integers(2, 8)), top + int(rng.integers(2, 8)), left + across - 4, top + down - 4)
        category = ids[(number + quarter) % len(ids)]
        if quarter == 3 and number % 3 == 0:
            yield _of_pixels(picture, box, category, crowd=True)
        elif quarter == 2:
            yield _of_pixels(picture, box, category, crowd=False)
        else:
            yield _of_polygons(picture, box, category, parts=1 + quarter % 2)


def _of_polygons(picture: Image.Image, box: Box, category: int, parts: int) -> dict[str, Any]:
    """A triangle, or a rectangle that something hides the middle of."""
    left, top, right, bottom = box
    third = (right - left) // 3
    strips = [(left, left + third), (right - third, right)]
    corners = [[(left, bottom), ((left + right) // 2, top), (right, bottom)]]
    if parts == 2:
        corners = [[(start, top), (end, top), (end, bottom), (start, bottom)] for start, end in strips]
    for one in corners:
        ImageDraw.Draw(picture).polygon(one, fill=COLOURS[category])
    area = (bottom - top) * (2.0 * third if parts == 2 else (right - left) / 2)
    return _annotation([[float(value) for corner in one for value in corner] for one in corners], box, area, category)


def _of_pixels(picture: Image.Image, box: Box, category: int, crowd: bool) -> dict[str, Any]:
    """An ellipse as run lengths; a crowd is of several."""
    left, top, right, bottom = box
    mask = Image.new("L", picture.size)
    middle = (left + right) // 2
    for part in [(left, top, middle - 1, bottom - 1), (middle + 1, top, right - 1, bottom - 1)] if crowd else [box]:
        ImageDraw.Draw(mask).ellipse(part, fill=1)
    covered = np.asarray(mask).astype(bool)
    picture.paste(COLOURS[category], mask=Image.fromarray(covered))
    runs = {"counts": run_lengths(covered), "size": list(covered.shape)}
    return _annotation(runs, box, float(covered.sum()), category) | {"iscrowd": int(crowd)}


def run_lengths(covered: np.ndarray) -> list[int]:
    """Of a mask, bool [H, W]: lengths of the runs down the columns, starting with what is not covered, so the first may be 0."""
    flat = covered.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def _annotation(segmentation: Any, box: Box, area: float, category: int) -> dict[str, Any]:
    left, top, right, bottom = box
    bounds = [float(left), float(top), float(right - left), float(bottom - top)]
    return {"segmentation": segmentation, "bbox": bounds, "area": area, "category_id": category, "iscrowd": 0}
