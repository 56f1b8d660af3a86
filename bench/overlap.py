"""What runtimes score on masks, and how far they agree: a class for each pixel, all of them asked about the same batches.

    miou = mean over the classes of |predicted and labelled| / |predicted or labelled|, a class that is neither left out

    x        float32 [n, C, H, W], batches of images
    labels   int64 [n, H, W]; IGNORED counts nowhere
    logits   float32 [n, classes, H, W], of each runtime

Refused: logits of another shape, labels beyond the network's classes, a set without a labelled pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cosparse.bench.check import Check, compare, worst
from cosparse.compress.score import IGNORED
from cosparse.errors import Error, ShapeError

if TYPE_CHECKING:
    import torch

Run = Callable[[np.ndarray], np.ndarray]
Advance = Callable[[int], object]


def overlap(
    runs: Mapping[str, Run], batches: Iterable[tuple[torch.Tensor, torch.Tensor]], advance: Advance | None = None
) -> dict[str, dict[str, Any]]:
    """For each runtime by name: miou and pixel_accuracy in per cent, count of images. `advance` hears how many images each batch had.

    For all but the first also how they agree with it over all pixels, labelled or not: same_pixels, the share of equal classes; ties and
    differ, the pixels that are not equal; the largest error. A tie is a pixel whose two classes in question are closer in the runtime's
    own logits than twice the tolerance: rounding alone may decide it.
    """
    confusions: dict[str, np.ndarray] = {}  # [labelled, predicted]
    agreed: dict[str, _Agreed] = {}
    images = 0
    for x, y in batches:
        pixels, labels, first = np.ascontiguousarray(x.numpy()), y.numpy(), None
        for name, run in runs.items():
            logits = run(pixels)
            confusion = _confusion(logits, labels)
            confusions[name] = confusions.get(name, 0) + confusion
            if first is None:
                first = logits.copy()  # an engine may give the same memory at every call
            else:
                for ours, theirs in zip(first, logits, strict=True):
                    agreed.setdefault(name, _Agreed()).add(ours, theirs)
        images += len(labels)
        if advance:
            advance(len(labels))
    rows = {name: _row(confusions.get(name, np.zeros((1, 1), np.int64)), images) for name in runs}
    return {name: row | (agreed[name].row() if name in agreed else {}) for name, row in rows.items()}


def _confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many pixels of each class [classes, classes] were predicted as which."""
    if not isinstance(logits, np.ndarray) or logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != labels.shape:
        wanted = f"one output [{labels.shape[0]}, classes, {labels.shape[1]}, {labels.shape[2]}]"
        raise ShapeError("output", wanted, str(getattr(logits, "shape", f"{len(logits)} outputs")))
    classes = logits.shape[1]
    counted = labels != IGNORED
    if counted.any() and not 0 <= labels[counted].min() <= labels[counted].max() < classes:
        raise Error("labels", f"0 to {classes - 1}, the network's classes", f"{labels[counted].min()} to {labels[counted].max()}")
    places = labels[counted] * classes + logits.argmax(1)[counted]
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def _row(confusion: np.ndarray, images: int) -> dict[str, Any]:
    right, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    if not union.any():
        raise Error("labels", "at least one pixel with a label", "none")
    share = right[union > 0] / union[union > 0]
    pixels = 100 * float(right.sum() / confusion.sum())
    return {"miou": round(100 * float(share.mean()), 4), "pixel_accuracy": round(pixels, 4), "count": images}


@dataclass
class _Agreed:
    """Pixels of all batches so far: how many, how many differ, how many of these are ties; and the check of each image's logits."""

    pixels: int = 0
    unequal: int = 0
    ties: int = 0
    checks: list[Check] = field(default_factory=list)

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Logits [classes, H, W] of one image: the check works in double precision, which whole batches have no room for."""
        check = compare([ours[None]], [theirs[None]])
        first, second = ours.argmax(0), theirs.argmax(0)  # [H, W]
        row, column = np.nonzero(first != second)
        gap = theirs[second[row, column], row, column] - theirs[first[row, column], row, column]
        self.pixels += first.size
        self.unequal += len(gap)
        self.ties += int((gap <= 2 * check.tolerance).sum())
        self.checks.append(check)

    def row(self) -> dict[str, Any]:
        check = worst(self.checks)
        figures = {"max_abs_err": check.max_abs_err, "tolerance": check.tolerance, "passed": check.passed}
        return {"same_pixels": 1 - self.unequal / self.pixels, "ties": self.ties, "differ": self.unequal - self.ties, **figures}
