"""Small sets of images in the layouts that the readers know."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """RGB, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, images: dict[str, np.ndarray]) -> Path:
    """Writes each image to its path under `root`; the suffix says how it is encoded."""
    for place, pixels in images.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / place)
    return root


def write_masks(path: Path, images: list[np.ndarray], masks: list[np.ndarray], names: str = "") -> Path:
    """A Parquet table of images and masks, both as PNG."""
    table = pyarrow.table({"image": [png(image) for image in images], "mask": [png(mask) for mask in masks]})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"class_names": names} if names else {}), path)
    return path


def coco_content(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Categories 3 (dog) and 7 (cat), in this order of ids whatever the order of the file."""
    return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}


def write_coco(root: Path, split: str, content: dict[str, Any], folder: str | None = None) -> Path:
    """Annotations and a noise image for each that the content lists."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    for number, image in enumerate(content["images"]):
        write_folder(root / (folder or split), {image["file_name"]: noise(image["height"], image["width"], number)})
    return root
