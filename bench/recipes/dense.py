"""Trains a dense network of the zoo from random weights: the start, and the measure, of a compression.

    python -m cosparse.bench.recipes.dense vgg16 --data ../shared/data --epochs 12 --out out/vgg16.safetensors

The file holds the weights of the last epoch; nothing is selected on the test images, which are looked at once, at the end.
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

from cosparse.bench import zoo
from cosparse.bench.evaluate import accuracy, predict, torch_runner
from cosparse.compress.data import Batches, read_parquet
from cosparse.compress.loop import Progress
from cosparse.compress.train import train


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    model, preprocessing = zoo.build(options.network, seed=options.seed).to(options.device), zoo.preprocessing(options.network)
    training, test = read_parquet(options.data, "train"), read_parquet(options.data, "test")
    batches = Batches(training, preprocessing, options.batch, shuffle=True, augment=True, seed=options.seed)
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
    measured = accuracy(predict(torch_runner(model), test, preprocessing, 250), test.labels.numpy())
    settings: dict[str, Any] = {"network": options.network, "epochs": options.epochs, "batch": options.batch, **recipe}
    notes = {"accuracy": json.dumps(measured), "settings": json.dumps(settings), "history": json.dumps(history)}
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(weights, options.out, metadata=notes)
    print(json.dumps({"file": str(options.out), **measured, **settings}))


def _say(at: Progress) -> None:
    if at.step == at.steps or at.step % 50 == 0:
        print(f"epoch {at.epoch + 1} of {at.epochs}, step {at.step} of {at.steps}, loss {at.loss:.4f}", flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("network", help="name in the zoo, of 32 x 32 images")
    made.add_argument("--data", type=Path, required=True, help="folder of *_train.parquet and *_test.parquet")
    made.add_argument("--out", type=Path, required=True, help="weights to write, .safetensors")
    made.add_argument("--epochs", type=int, default=30)
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--lr", type=float, default=0.1)
    made.add_argument("--weight-decay", type=float, default=5e-4)
    made.add_argument("--label-smoothing", type=float, default=0.0)
    made.add_argument("--warmup", type=int, default=400)
    made.add_argument("--precision", default="float32", help="float32, or bfloat16: products in 16 bits, weights and sums in 32")
    made.add_argument("--device", default="cpu", help="where it trains: cpu, cuda, ...")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    return made


if __name__ == "__main__":
    main()
