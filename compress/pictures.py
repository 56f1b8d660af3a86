"""Pictures of a training run and of the masks that it ends with, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from cosparse.compress import masks
from cosparse.compress.figure import FIRST, GREY, SECOND, figure, title
from cosparse.compress.mask_pictures import draw_densities, draw_frequencies, draw_mask
from cosparse.errors import Error

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_all(folder: str | Path, model: nn.Module, history: Sequence[Mapping[str, Any]], name: str = "") -> list[Path]:
    """Writes training.png, density.png, frequencies.png and masks/LAYER.png into the folder, which is made; returns the paths.

    Left out is what there are no data for: masks where nothing is masked, frequencies where no layer is in the DCT domain.
    """
    folder = Path(folder)
    layers = {layer: mask for layer, _, mask in masks.masked(model)}
    written = [draw_training(folder / "training.png", history, name)] if history else []
    if layers:
        written.append(draw_densities(folder / "density.png", layers, name))
    if spatial := {layer: mask for layer, mask in layers.items() if mask.taps > 1 and mask.transform != "identity"}:
        written.append(draw_frequencies(folder / "frequencies.png", spatial, name))
    return written + [draw_mask(folder / "masks" / f"{_file_name(layer)}.png", layer, mask) for layer, mask in layers.items()]


def draw_training(path: Path, history: Sequence[Mapping[str, Any]], name: str = "") -> Path:
    """Loss and accuracy over the epochs; a line where the masks were chosen. Raises Error for an empty history."""
    if not history:
        raise Error("history", "at least one epoch", "none")
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in history]
    accuracies = [(entry["epoch"], 100 * entry["accuracy"]) for entry in history if entry.get("accuracy") is not None]
    losses = [(entry["epoch"], entry["loss"]) for entry in history if entry.get("loss") is not None]
    with figure(path, 5.2 if accuracies else 3.0) as made:
        panels: list[Axes] = list(made.subplots(2 if accuracies else 1, 1, sharex=True, squeeze=False)[:, 0])
        marker = "o" if len(epochs) <= 40 else ""
        panels[0].plot(epochs, [entry["train_loss"] for entry in history], color=FIRST, marker=marker, markersize=4, label="training")
        if losses:
            panels[0].plot(*zip(*losses, strict=True), color=SECOND, marker=marker, markersize=4, label="held-out images")
        panels[0].set_ylabel("loss")
        panels[0].set_title(title("Training", name))
        if accuracies:
            last = accuracies[-1][1]
            panels[1].plot(*zip(*accuracies, strict=True), color=SECOND, marker=marker, markersize=4)
            panels[1].set_ylabel("accuracy, %")
            panels[1].set_title(f"Held-out images: {last:.2f} % at the end")
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark_phase(panels, history)
        panels[0].legend(fontsize=9)
    return path


def _mark_phase(panels: Sequence[Axes], history: Sequence[Mapping[str, Any]]) -> None:
    boundary = next((b["epoch"] - 0.5 for a, b in pairwise(history) if a["phase"] != b["phase"]), None)
    if boundary is None:
        return
    for panel in panels:
        panel.axvline(boundary, color=GREY, linewidth=1.2, linestyle="--", label="masks chosen")


def _file_name(layer: str) -> str:
    return re.sub(r"[^\w.-]", "_", layer) or "_"
