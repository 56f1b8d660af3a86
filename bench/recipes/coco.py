"""FCN-ResNet-50 on COCO 2017, whole filters removed to the budget that the literature reports: 44.1 % of the FLOPs.

    python -m cosparse.bench.recipes.coco --data COCO --weights fcn.safetensors --out out/fcn.cosparse --device cuda
    python -m cosparse.bench.recipes.coco --tiny out/tiny --out out/tiny.cosparse

COCO holds annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/ and val2017/ as they are downloaded: 80
categories and the background are 81 classes. The weights have torchvision's names and 81 classes; bench.recipes.dense trains such. The
second line proves that everything works: it makes a set of a few images with annotations in COCO's format, and trains on it for an epoch.
It says nothing about accuracy; nor does this recipe promise any: it has not been run on COCO. Epochs and rates are those of usual
fine-tuning schedules.
"""

from __future__ import annotations

import argparse
import sys

from cosparse.bench.recipes import command
from cosparse.bench.recipes.coco_tiny import tiny_coco

METHOD = ("--method", "ssr-pso")
BUDGET = ("--flops", "0.441")
CLASSES = ("--classes", "81")
SCHEDULE = ("--size", "3,520,520", "--epochs", "0,30", "--batch", "16", "--lr", "0.01", "--weight-decay", "1e-4", "--precision", "bfloat16")
TINY = ("--evaluations", "12", "--size", "3,32,32", "--epochs", "0,1", "--batch", "2", "--lr", "0.001", "--workers", "0")


def arguments(options: argparse.Namespace) -> list[str]:
    """The `cosparse compress` command of the recipe, or of its proof on a tiny set."""
    data = tiny_coco(options.tiny) if options.tiny else options.data
    weights = ["--weights", str(options.weights)] if options.weights else []
    line = ["compress", f"zoo:{options.network}", *CLASSES, *weights, "--data", str(data), *METHOD, *BUDGET]
    line += [*(TINY if options.tiny else SCHEDULE), "--device", options.device, "--out", str(options.out)]
    return [*line, *(["--resume"] if options.resume else [])]


def main(given: list[str] | None = None) -> int:
    data, tiny = "folder with annotations/instances_*2017.json, train2017/ and val2017/", "make a tiny set there and train an epoch on it"
    return command.main(__doc__ or "", data, tiny, "fcn_resnet50", arguments, given)


if __name__ == "__main__":
    sys.exit(main())
