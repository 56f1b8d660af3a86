"""ResNet-50 on a tree of ImageNet folders, to the budget that the literature reports: 78.9 % of the FLOPs and 75.6 % of the parameters.

    python -m cosparse.bench.recipes.imagenet --data IMAGENET --weights resnet50.safetensors --out out/resnet50.cosparse --device cuda
    python -m cosparse.bench.recipes.imagenet --tiny out/tiny --out out/tiny.cosparse

IMAGENET holds train/CLASS/*.JPEG and val/CLASS/*.JPEG; the weights have torchvision's names. The second line proves that everything works:
it makes a tree of a few images and trains on it for two epochs. It says nothing about accuracy; nor does this recipe promise any: it has
not been run on ImageNet. Epochs and rates are those of usual fine-tuning schedules.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from cosparse.bench.recipes import command

BUDGET = ("--flops", "0.789", "--params", "0.756")
SCHEDULE = ("--epochs", "6,54", "--batch", "256", "--lr", "0.02", "--weight-decay", "5e-5", "--ema", "0.9998", "--precision", "bfloat16")
TINY = ("--size", "3,64,64", "--epochs", "1,1", "--batch", "8", "--lr", "0.001", "--workers", "0")


def tiny_tree(folder: Path, classes: int = 3, images: int = 10, seed: int = 0) -> Path:
    """Writes train/ and val/ of JPEG files of several sizes under `folder`; the class is the mean colour."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for split, count in (("train", images), ("val", 2)):
        for label in range(classes):
            place = folder / split / f"n{label:08d}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                height, width = (int(side) for side in rng.integers(180, 320, size=2))
                pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[:, :, label % 3] += 120
                Image.fromarray(pixels).save(place / f"{split}_{number}.JPEG", quality=90)
    return folder


def arguments(options: argparse.Namespace) -> list[str]:
    """The `cosparse compress` command of the recipe, or of its proof on a tiny tree."""
    data = tiny_tree(options.tiny) if options.tiny else options.data
    weights = ["--weights", str(options.weights)] if options.weights else []
    line = ["compress", f"zoo:{options.network}", *weights, "--data", str(data), *BUDGET, *(TINY if options.tiny else SCHEDULE)]
    return [*line, "--device", options.device, "--out", str(options.out), *(["--resume"] if options.resume else [])]


def main(given: list[str] | None = None) -> int:
    data, tiny = "tree with train/CLASS/* and val/CLASS/*", "make a tiny tree there and train two epochs on it"
    return command.main(__doc__ or "", data, tiny, "resnet50", arguments, given)


if __name__ == "__main__":
    sys.exit(main())
