"""Pictures of masks: the density of each layer, of each frequency, and every block that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cosparse.compress.figure import FIRST, GREY, SECOND, WIDTH, figure, short, title
from cosparse.compress.masks import LayerMask

MOST_BARS = 60
MOST_CELLS = 512
"""Rows or columns of a mask that are shown one by one; larger masks are averaged in equal parts."""


def draw_densities(path: Path, layers: Mapping[str, LayerMask], name: str = "") -> Path:
    """Density of each masked layer as a bar, in the model's order from top to bottom; of more than MOST_BARS the thinned-out names."""
    kept = sum(mask.kept() for mask in layers.values())
    total = kept / sum(mask.full.numel() for mask in layers.values())
    shares = [100 * mask.density for mask in layers.values()]
    every = -(-len(layers) // MOST_BARS)
    with figure(path, 1.3 + 0.22 * len(layers) / every) as made:
        axis = made.subplots()
        places = range(len(layers))
        axis.barh(places, shares, height=0.7 if every == 1 else 1.0, color=FIRST)
        axis.axvline(100 * total, color=SECOND, linewidth=1.5, linestyle="--")
        axis.set_yticks(list(places)[::every], [short(layer) for layer in list(layers)[::every]], fontsize=8)
        axis.set_ylim(len(layers) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        limit = max([*shares, 100 * total])
        axis.set_xlim(0, min(112, 1.16 * limit))
        if every == 1:
            for place, share in enumerate(shares):
                axis.annotate(f"{share:.0f}", (share, place), (3, 0), textcoords="offset points", va="center", fontsize=8, color=GREY)
        axis.set_xlabel("coefficients kept, %")
        axis.set_title(f"{title('Density of each layer', name)}\nall layers together (dashed): {100 * total:.1f} %")
    return path


def frequency_density(mask: LayerMask, kernel: tuple[int, int]) -> np.ndarray:
    """Share of the coefficients kept at each frequency (u, v), float64 [R, S]."""
    return mask.full.double().mean(0).reshape(-1, *kernel).mean(0).numpy()


def draw_frequencies(path: Path, layers: Mapping[str, LayerMask], name: str = "") -> Path:
    """A small map for each layer: density of every frequency, u downwards, v to the right."""
    across = min(3, len(layers))
    down = -(-len(layers) // across)
    numbers = max(mask.taps for mask in layers.values()) <= 9  # more do not fit into the squares, and colours have to do
    with figure(path, 0.9 + 1.75 * down, grid=False) as made:
        axes = made.subplots(down, across, squeeze=False).ravel()
        image: Any = None
        for axis, (layer, mask) in zip(axes, layers.items(), strict=False):
            density = frequency_density(mask, _kernel(mask.taps))
            image = axis.imshow(100 * density, vmin=0, vmax=100, cmap="Blues")
            axis.set_title(f"{short(layer, 18)}\n{mask.density:.0%} kept", fontsize=8.5)
            axis.set_xticks(range(density.shape[1]))
            axis.set_yticks(range(density.shape[0]))
            axis.tick_params(length=0, labelsize=7)
            if numbers:
                for (u, v), share in np.ndenumerate(density):
                    shade = "white" if share > 0.55 else "black"
                    axis.text(v, u, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=shade)
        for axis in axes[len(layers) :]:
            axis.set_visible(False)
        made.suptitle(title("Coefficients kept by frequency, %", name) + "\nu (vertical) down, v (horizontal) right", fontsize=11)
        if not numbers:
            made.colorbar(image, ax=list(axes), shrink=min(1.0, 3 / down), label="%", pad=0.02)
    return path


def _kernel(taps: int) -> tuple[int, int]:
    """Square where the number of taps is a square, else one row."""
    side = round(taps**0.5)
    return (side, side) if side * side == taps else (1, taps)


def draw_mask(path: Path, layer: str, mask: LayerMask) -> Path:
    """The kept blocks of a layer, block rows down, columns k = (c R + u) S + v to the right: one panel for each frequency (u, v)."""
    kernel = _kernel(mask.taps)
    keep = mask.keep.numpy().reshape(mask.keep.shape[0], -1, *kernel)  # [block rows, C, R, S]
    whole = keep.shape[0] <= MOST_CELLS and keep.shape[1] <= MOST_CELLS
    with figure(path, 0.95 + kernel[0] * WIDTH / kernel[1] * _aspect(keep.shape), grid=False) as made:
        axes = made.subplots(*kernel, squeeze=False)
        for (u, v), axis in np.ndenumerate(axes):
            share = _reduced(keep[:, :, u, v].astype(np.float64))
            axis.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
            axis.set_title(f"u{u} v{v}: {keep[:, :, u, v].mean():.0%}" if mask.taps > 1 else "", fontsize=8.5, pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set(visible=True, color="#d1d5db")
        shape = f"{mask.filters} filters in blocks of {mask.block}, {keep.shape[1]} channels"
        cells = "blue: kept" if whole else "blue: share kept, several to a dot"
        made.suptitle(f"{short(layer, 40)}: {mask.density:.1%} kept\n{shape}", fontsize=11)
        made.supxlabel(f"input channel; {cells}", fontsize=9, color=GREY)
        made.supylabel("block row", fontsize=9, color=GREY)
    return path


def _aspect(shape: tuple[int, ...]) -> float:
    """Height over width of a panel: as the mask, within what can be looked at."""
    return float(np.clip(shape[0] / shape[1], 0.3, 1.2))


def _reduced(share: np.ndarray) -> np.ndarray:
    """At most MOST_CELLS rows and columns, each the mean of equally many, the last of what is left."""
    for axis, count in enumerate(share.shape):
        starts = np.arange(0, count, -(-count // MOST_CELLS))
        lengths = np.diff([*starts, count])
        share = np.add.reduceat(share, starts, axis=axis) / lengths.reshape((-1, 1) if axis == 0 else (1, -1))
    return share
