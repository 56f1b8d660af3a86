"""Accuracy on labelled images, for the engine and for torch alike, and how far two runtimes agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cosparse.bench.check import compare
from cosparse.compress.data import Batches, Images
from cosparse.errors import Error, ShapeError

if TYPE_CHECKING:
    import torch

Run = Callable[[np.ndarray], np.ndarray]


def predict(
    run: Run, images: Images, preprocessing: Mapping[str, Any], batch: int = 32, advance: Callable[[int], object] | None = None
) -> np.ndarray:
    """Logits [images, classes] of all images in order. `advance` hears how many images each batch had.

    Raises Error where the network gives something else, or its preprocessing is not known.
    """
    missing = [key for key in ("scale", "mean", "std") if key not in preprocessing]
    if missing:
        raise Error("preprocessing", "scale, mean and std", f"no {', '.join(missing)}", "export the network with its preprocessing")
    parts = []
    for x, _ in Batches(images, preprocessing, batch):
        logits = run(np.ascontiguousarray(x.numpy()))
        if not isinstance(logits, np.ndarray) or logits.shape[:1] != x.shape[:1] or logits.size != logits.shape[0] * logits.shape[1]:
            raise ShapeError("output", "one output [N, classes]", str(getattr(logits, "shape", f"{len(logits)} outputs")))
        parts.append(logits.reshape(len(logits), -1).copy())
        if advance:
            advance(len(logits))
    return np.concatenate(parts)


def torch_runner(model: torch.nn.Module) -> Run:
    """The torch network as a function of arrays, in eval mode."""
    import torch

    model = model.eval()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


def accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """top1 and top5 in per cent. A label outside the network's classes is an Error, not a miss."""
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise Error("labels", f"0 to {logits.shape[1] - 1}, the network's classes", f"{labels.min()} to {labels.max()}")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    hit = best == labels[:, None]
    return {"top1": round(100 * float(hit[:, 0].mean()), 4), "top5": round(100 * float(hit.any(1).mean()), 4), "count": len(labels)}


def agreement(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """How two runtimes' logits [images, classes] agree: the share of equal top-1, those that differ without being a tie, and the error.

    A tie is an image whose two best logits of `theirs` are closer than twice the tolerance: rounding alone may decide it.
    """
    check = compare([ours], [theirs])
    first, second = ours.argmax(1), theirs.argmax(1)
    differ = np.flatnonzero(first != second)
    gap = theirs[differ, second[differ]] - theirs[differ, first[differ]]
    wrong = int((gap > 2 * check.tolerance).sum())
    same = 1 - len(differ) / len(ours)
    return {"same_top1": round(same, 6), "ties": len(differ) - wrong, "differ": wrong, **check.to_json()}


def evenly(images: Images, limit: int | None) -> Images:
    """At most `limit` images, spread evenly over the set, which may be sorted by class."""
    if limit is None or limit >= len(images):
        return images
    import torch

    chosen = torch.linspace(0, len(images) - 1, limit).round().long()
    return Images(images.pixels[chosen], images.labels[chosen], images.classes)
