"""Labelled images for training and scoring: readers, one file each, and the two kinds of batches that they feed.

Small images lie decoded in memory (`Images`, batched by `Batches`); large ones are decoded on the fly by worker processes (`Samples`,
batched by `Stream`). `open_data` recognises what lies in a folder, `loader` makes the batches that fit it.
"""

from cosparse.compress.data.batches import Batches
from cosparse.compress.data.coco import read_coco
from cosparse.compress.data.digits import DIGITS, digits
from cosparse.compress.data.find import Labelled, describe, hold_out, loader, open_data
from cosparse.compress.data.folder import read_folder
from cosparse.compress.data.images import Images
from cosparse.compress.data.parquet import find_parquet, read_masks, read_parquet
from cosparse.compress.data.samples import Chosen, Samples
from cosparse.compress.data.stream import Stream

__all__ = [
    "DIGITS",
    "Batches",
    "Chosen",
    "Images",
    "Labelled",
    "Samples",
    "Stream",
    "describe",
    "digits",
    "find_parquet",
    "hold_out",
    "loader",
    "open_data",
    "read_coco",
    "read_folder",
    "read_masks",
    "read_parquet",
]
