"""Trains a dense network of the zoo from random weights: the start, and the measure, of a compression.

    python -m cosparse.bench.recipes.dense vgg16 --data ../shared/data --epochs 12 --out out/vgg16.safetensors
    python -m cosparse.bench.recipes.dense fcn_resnet50 --data ../shared/data --classes 11 --size 180,240 --train-size 120,160 \\
        --epochs 20 --batch 8 --lr 0.02 --warmup 100 --precision bfloat16 --out out/fcn.safetensors

What the network gives says what it learns: a class for each image, or for each pixel. Where training sees parts of the images, these may be
smaller in pixels than what is scored (`--train-size`), which is cheaper and keeps the things in them as large as they will be. The file
holds the weights of the last epoch; nothing is selected on the test images, which are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: threads that sleep do not starve a neighbour

import torch
from safetensors.torch import save_file

from cosparse.atomic import replacing, require_writable
from cosparse.bench import zoo
from cosparse.bench.evaluate import score, torch_runner
from cosparse.compress.data import Images, Labelled, loader, open_data
from cosparse.compress.loop import Progress
from cosparse.compress.score import logits_of
from cosparse.compress.train import train
from cosparse.errors import Error


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    require_writable("--out", options.out)
    torch.manual_seed(options.seed)
    model, preprocessing = zoo.build(options.network, options.classes, options.seed), zoo.preprocessing(options.network)
    if options.size:
        preprocessing |= {"size": options.size}
    seen = preprocessing | {"size": options.train_size or preprocessing["size"]}
    with torch.no_grad():
        masks = logits_of(model(torch.zeros(1, 3, *preprocessing["size"]))).ndim == 4
    training, test = (open_data(options.data, split, masks) for split in ("train", "test"))
    _require_size("--size", training, options.size)
    _require_size("--train-size", training, options.train_size)
    model = model.to(options.device)
    batches = loader(training, seen, options.batch, train=True, workers=options.workers, seed=options.seed)
    recipe = {key: getattr(options, key) for key in ("lr", "weight_decay", "precision", "seed", "label_smoothing", "warmup")}
    history = train(
        model,
        batches,
        epochs=options.epochs,
        save_to=options.out.with_suffix(".training.safetensors"),
        resume=options.resume,
        progress=_say,
        **recipe,
    )
    measured = score(torch_runner(model), test, preprocessing, options.batch, workers=options.workers)
    settings: dict[str, Any] = {"network": options.network, "classes": options.classes}
    settings |= {"size": preprocessing["size"], "train_size": seen["size"]}
    settings |= {"epochs": options.epochs, "batch": options.batch, **recipe}
    notes = {"accuracy": json.dumps(measured), "settings": json.dumps(settings), "history": json.dumps(history)}
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    with replacing(options.out) as part:
        save_file(weights, part, metadata=notes)
    print(json.dumps({"file": str(options.out), **measured, **settings}))


def _require_size(option: str, data: Labelled, size: list[int] | None) -> None:
    """Error where images in memory, which are not resized, have another size than was asked for."""
    if size is not None and isinstance(data, Images) and list(data.pixels.shape[2:]) != size:
        own = ",".join(str(side) for side in data.pixels.shape[2:])
        raise Error(option, f"{own}, as the images of {data.name} are", ",".join(map(str, size)), "leave it out: they are not resized")


def _say(at: Progress) -> None:
    if at.step == at.steps or at.step % 50 == 0:
        print(f"epoch {at.epoch + 1} of {at.epochs}, step {at.step} of {at.steps}, loss {at.loss:.4f}", flush=True)


def _size(text: str) -> list[int]:
    height, width = (int(side) for side in text.split(","))
    return [height, width]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("network", help="name in the zoo")
    made.add_argument("--data", type=Path, required=True, help="folder of images, in one of the layouts of compress.data.open_data")
    made.add_argument("--out", type=Path, required=True, help="weights to write, .safetensors")
    made.add_argument("--classes", type=int, help="that the network tells apart; the zoo's own number without")
    made.add_argument("--size", type=_size, metavar="H,W", help="what images are resized to; the zoo's own without")
    made.add_argument("--train-size", type=_size, metavar="H,W", help="what the parts seen in training are resized to; --size without")
    made.add_argument("--epochs", type=int, default=30)
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--lr", type=float, default=0.1)
    made.add_argument("--weight-decay", type=float, default=5e-4)
    made.add_argument("--label-smoothing", type=float, default=0.0)
    made.add_argument("--warmup", type=int, default=400)
    made.add_argument("--precision", default="float32", help="float32, or bfloat16: products in 16 bits, weights and sums in 32")
    made.add_argument("--device", default="cpu", help="where it trains: cpu, cuda, ...")
    made.add_argument("--workers", type=int, help="processes that decode images; one a processor without")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    return made


if __name__ == "__main__":
    main()
