"""Accuracy on labelled images or masks, for the engine and for torch alike, and how far two runtimes agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cosparse.bench.check import compare
from cosparse.bench.overlap import Advance, Run, overlap
from cosparse.compress.data import Batches, Chosen, Images, Labelled, Stream, loader
from cosparse.compress.score import logits_of
from cosparse.errors import Error, ShapeError

if TYPE_CHECKING:
    import torch


def batches_of(images: Labelled, preprocessing: Mapping[str, Any], batch: int, workers: int | None) -> Batches | Stream:
    """The images in order, for scoring; Error where the preprocessing is not known."""
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
    for x, _ in batches_of(images, preprocessing, batch, workers):
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
        return overlap({"": run}, batches_of(images, preprocessing, batch, workers), advance)[""]
    return accuracy(predict(run, images, preprocessing, batch, advance, workers), images.labels.numpy())


def torch_runner(model: torch.nn.Module) -> Run:
    """The torch network, on the device where its parameters are, in eval mode, as a function from arrays to logits."""
    import torch

    model = model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return logits_of(model(torch.from_numpy(x).to(device))).cpu().numpy()

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
