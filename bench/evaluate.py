"""Accuracy on labelled images or masks, for the engine and for torch alike, and how far two runtimes agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cosparse.bench.check import compare
from cosparse.compress.data import Batches, Chosen, Images, Labelled, Stream, loader
from cosparse.compress.score import IGNORED
from cosparse.errors import Error, ShapeError

if TYPE_CHECKING:
    import torch

Run = Callable[[np.ndarray], np.ndarray]
Advance = Callable[[int], object]


def _batches(images: Labelled, preprocessing: Mapping[str, Any], batch: int, workers: int | None) -> Batches | Stream:
    missing = [key for key in ("scale", "mean", "std") if key not in preprocessing]
    if missing:
        raise Error("preprocessing", "scale, mean and std", f"no {', '.join(missing)}", "export the network with its preprocessing")
    return loader(images, preprocessing, batch, workers=workers)


def predict(
    run: Run,
    images: Labelled,
    preprocessing: Mapping[str, Any],
    batch: int = 32,
    advance: Advance | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Logits [images, classes] of all images in order. `advance` hears how many images each batch had; `workers` decode large images.

    Raises Error where the network gives something else, or its preprocessing is not known.
    """
    parts = []
    for x, _ in _batches(images, preprocessing, batch, workers):
        logits = run(np.ascontiguousarray(x.numpy()))
        if not isinstance(logits, np.ndarray) or logits.shape[:1] != x.shape[:1] or logits.size != logits.shape[0] * logits.shape[1]:
            raise ShapeError("output", "one output [N, classes]", str(getattr(logits, "shape", f"{len(logits)} outputs")))
        parts.append(logits.reshape(len(logits), -1).copy())
        if advance:
            advance(len(logits))
    return np.concatenate(parts)


def score(
    run: Run,
    images: Labelled,
    preprocessing: Mapping[str, Any],
    batch: int = 32,
    advance: Advance | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """`accuracy` of a network that gives classes, `overlap` of one that gives masks, as the labels are."""
    if images.masks:
        return overlap(run, images, preprocessing, batch, advance, workers)
    return accuracy(predict(run, images, preprocessing, batch, advance, workers), images.labels.numpy())


def overlap(
    run: Run,
    images: Labelled,
    preprocessing: Mapping[str, Any],
    batch: int = 4,
    advance: Advance | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """miou: mean over the classes of |predicted and labelled| / |predicted or labelled|, in per cent; a class that is neither is left out.

    Pixels without a label count nowhere. Raises Error where the logits are not [n, classes, H, W] of the labels' size and classes.
    """
    confusion = np.zeros((0, 0), np.int64)  # [labelled, predicted]
    for x, y in _batches(images, preprocessing, batch, workers):
        logits, labels = run(np.ascontiguousarray(x.numpy())), y.numpy()
        if not isinstance(logits, np.ndarray) or logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != labels.shape:
            wanted = f"one output [{labels.shape[0]}, classes, {labels.shape[1]}, {labels.shape[2]}]"
            raise ShapeError("output", wanted, str(getattr(logits, "shape", f"{len(logits)} outputs")))
        classes = logits.shape[1]
        counted = labels != IGNORED
        if counted.any() and not 0 <= labels[counted].min() <= labels[counted].max() < classes:
            raise Error("labels", f"0 to {classes - 1}, the network's classes", f"{labels[counted].min()} to {labels[counted].max()}")
        if not confusion.size:
            confusion = np.zeros((classes, classes), np.int64)
        places = labels[counted] * classes + logits.argmax(1)[counted]
        confusion += np.bincount(places, minlength=classes * classes).reshape(classes, classes)
        if advance:
            advance(len(labels))
    right, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    if not union.any():
        raise Error("labels", "at least one pixel with a label", "none")
    share = right[union > 0] / union[union > 0]
    pixels = 100 * float(right.sum() / confusion.sum())
    return {"miou": round(100 * float(share.mean()), 4), "pixel_accuracy": round(pixels, 4), "count": len(images)}


def torch_runner(model: torch.nn.Module) -> Run:
    """The torch network, on the device where its parameters are, as a function of arrays, in eval mode."""
    import torch

    model = model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x).to(device)).cpu().numpy()

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


@overload
def evenly(images: Images, limit: int | None) -> Images: ...
@overload
def evenly(images: Labelled, limit: int | None) -> Labelled: ...
def evenly(images: Labelled, limit: int | None) -> Labelled:
    """At most `limit` images, spread evenly over the set, which may be sorted by class."""
    if limit is None or limit >= len(images):
        return images
    import torch

    chosen = torch.linspace(0, len(images) - 1, limit).round().long()
    return images.chosen(chosen) if isinstance(images, Images) else Chosen(images, chosen)
