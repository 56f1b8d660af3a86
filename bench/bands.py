"""Which frequencies a mask keeps: density by band for every layer that is sparse in a transform domain, as numbers and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cosparse.engine.graph import Graph, Node
from cosparse.errors import Error
from cosparse.kernels.conv import weight_shape


def band_density(node: Node) -> np.ndarray:
    """Share of the blocks kept in each frequency band (u, v) of a block-sparse convolution, [R, S]."""
    _, channels, r, s = weight_shape(node)
    block_rows = len(node.tensors["rows"]) - 1
    bands = node.tensors["columns"].astype(np.int64) % (r * s)  # column k = (c R + u) S + v
    return np.bincount(bands, minlength=r * s).reshape(r, s) / (block_rows * channels)


def masked_layers(graph: Graph) -> dict[str, np.ndarray]:
    """Node name -> band density, for the convolutions whose coefficients are sparse in a transform domain."""
    blocks = (node for node in graph.nodes if node.op == "conv" and node.attrs["format"] == "block")
    return {node.name: band_density(node) for node in blocks if node.attrs["transform"] == "dct"}


def draw(graph: Graph, path: Path) -> None:
    """Writes a PNG with one small map for each masked layer: vertical frequency downwards, horizontal to the right, 0 % white."""
    layers = masked_layers(graph)
    if not layers:
        raise Error(graph.name, "at least one layer that is sparse in a transform domain", "none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(4, len(layers))
    down = -(-len(layers) // across)
    figure = Figure(figsize=(2.5 * across + 0.8, 2.6 * down + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(down, across, squeeze=False).ravel()
    image: Any = None
    for axis, (name, density) in zip(axes, layers.items(), strict=False):
        image = axis.imshow(density, vmin=0, vmax=1, cmap="Blues")
        axis.set_title(f"{name}\n{density.mean():.0%} kept", fontsize=9)
        axis.set_xticks(range(density.shape[1]))
        axis.set_yticks(range(density.shape[0]))
        for (u, v), share in np.ndenumerate(density):
            axis.text(v, u, f"{share:.0%}", ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black")
    for axis in axes[len(layers) :]:
        axis.set_visible(False)
    figure.suptitle(f"{graph.name}: coefficients kept, by vertical (down) and horizontal (right) frequency", fontsize=10)
    figure.colorbar(image, ax=list(axes), shrink=0.7, label="density")
    figure.savefig(path, dpi=120)
