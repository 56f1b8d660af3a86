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
import shlex
import subprocess
import sys
from pathlib import Path

from cosparse.bench.recipes.coco_tiny import tiny_coco

METHOD = ("--method", "ssr-pso")
BUDGET = ("--flops", "0.441")
CLASSES = ("--classes", "81")
SCHEDULE = ("--size", "3,520,520", "--epochs", "0,30", "--batch", "16", "--lr", "0.01", "--weight-decay", "1e-4", "--precision", "bfloat16")
TINY = ("--evaluations", "12", "--size", "3,64,64", "--epochs", "0,1", "--batch", "2", "--lr", "0.001", "--workers", "0")


def arguments(options: argparse.Namespace) -> list[str]:
    """The `cosparse compress` command of the recipe, or of its proof on a tiny set."""
    data = tiny_coco(options.tiny) if options.tiny else options.data
    weights = ["--weights", str(options.weights)] if options.weights else []
    line = ["compress", f"zoo:{options.network}", *CLASSES, *weights, "--data", str(data), *METHOD, *BUDGET]
    line += [*(TINY if options.tiny else SCHEDULE), "--device", options.device, "--out", str(options.out)]
    return [*line, *(["--resume"] if options.resume else [])]


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help="folder with annotations/instances_*2017.json, train2017/ and val2017/")
    where.add_argument("--tiny", type=Path, metavar="DIR", help="make a tiny set there and train an epoch on it")
    parser.add_argument("--weights", type=Path, help="trained weights, safetensors; random ones without")
    parser.add_argument("--network", default="fcn_resnet50", help="of the zoo, one that gives a class for each pixel")
    parser.add_argument("--out", type=Path, required=True, help="artifact to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    line = arguments(parser.parse_args(given))
    print("cosparse", shlex.join(line), flush=True)
    return subprocess.run([sys.executable, "-m", "cosparse", *line], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
