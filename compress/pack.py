"""From dense nodes to stored ones: every convolution and linear layer in the representation that its mask, or its zeros, call for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from cosparse.compress import masks, transforms
from cosparse.compress.masks import LayerMask
from cosparse.compress.nncs import RESIDUE
from cosparse.compress.transforms import Transform
from cosparse.engine.graph import Attr, Graph, Node, replace_nodes
from cosparse.errors import Error

WEIGHTED = ("conv", "linear")

FOLDED = "an affine layer before this one was folded into its input channels"

OVERHEAD = 2
"""What one block costs besides its products, in products: its column index and its row of the activations."""


@dataclass(frozen=True)
class Packed:
    """How one layer is stored. `density`: share of the dense layer's values that is stored, padding left out; `bytes` of the weights."""

    name: str
    op: str
    transform: str
    block: int
    density: float
    bytes_dense: int
    bytes: int


def to_blocks(matrix: np.ndarray, keep: np.ndarray, block: int) -> dict[str, np.ndarray]:
    """`values` [B, r], `columns` [B], `rows` [ceil(O / r) + 1]: the blocks of a matrix [O, K] that `keep` [ceil(O / r), K] names."""
    filters, columns = matrix.shape
    padded = np.zeros((keep.shape[0] * block, columns))
    padded[:filters] = matrix
    blocks = padded.reshape(keep.shape[0], block, columns).transpose(0, 2, 1)
    row, column = np.nonzero(keep)
    index = np.uint16 if columns <= 1 << 16 else np.uint32
    ends = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.uint32)
    return {"values": blocks[row, column].astype(np.float32), "columns": column.astype(index), "rows": ends}


def pack(graph: Graph, model: nn.Module) -> tuple[Graph, tuple[Packed, ...]]:
    """The graph with its weights in stored form, and one line per layer.

    A masked layer stores its kept coefficients; one without a mask stores the blocks of its exact zeros' complement where that takes fewer
    operations, else all weights. Raises Error where a masked layer has weight outside its mask or no node in the graph.
    """
    layers = {name: (module, mask) for name, module, mask in masks.masked(model)}
    new: dict[str, Node] = {}
    found: set[str] = set()
    lines = []
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            continue
        name = owner(node.name, layers)
        if name is not None:
            found.add(name)
            new[node.name] = _masked(node, *layers[name])
        else:
            new[node.name] = _unmasked(node)
        lines.append(_line(node, new[node.name], layers[name][1].transform if name is not None else transforms.IDENTITY))
    if missing := [name for name in layers if name not in found]:
        raise Error(
            f"masked layer {missing[0]!r}", "a convolution or linear node of its own", "none", "the network does not run it as a layer"
        )
    return replace_nodes(graph, new), tuple(lines)


def owner(node: str, layers: Mapping[str, object]) -> str | None:
    """The masked module that a node comes from: its path names the node, with `#2` for a second call and `.conv2d` for a subclass."""
    path = re.sub(r"#\d+$", "", node)
    return next((name for name in (path, path.rpartition(".")[0]) if name in layers), None)


def _masked(node: Node, module: masks.Layer, mask: LayerMask) -> Node:
    values, scale = _unscaled(node, module) if mask.transform.filters_tile else (node.tensors["values"].astype(np.float64), None)
    matrix = transforms.forward(values, mask.transform).reshape(values.shape[0], -1)
    if matrix.shape != tuple(mask.full.shape):
        raise Error(f"node {node.name!r}", f"weights [{mask.filters}, {mask.full.shape[1]}] as in its mask", str(list(matrix.shape)))
    outside = float(np.abs(matrix[~mask.full.numpy()]).max(initial=0.0))
    bound = RESIDUE * float(np.abs(matrix).max(initial=0.0))
    if outside > bound:
        next_step = "project the weights after the last change (NNCS.finish does)"
        next_step += f"; or {FOLDED}, which a transform along channels cannot have" if mask.transform.channels_tile else ""
        raise Error(f"node {node.name!r}", f"masked-out coefficients of at most {bound:.3g}", f"{outside:.3g}", next_step)
    tensors = to_blocks(matrix, mask.keep.numpy(), mask.block) | ({} if scale is None else {"scale": scale})
    return _stored(node, tensors, mask.transform, mask.block)


def _unscaled(node: Node, module: masks.Layer) -> tuple[np.ndarray, np.ndarray]:
    """(weights of the module, float32 scale [O]) of a node into which a scale of each filter was folded.

    Filters that are transformed together must be stored as they were before that: the scale would spread over the tile. Raises Error where
    the node's values are no such product.
    """
    weight = module.weight.detach().double().cpu().numpy()
    values = node.tensors["values"].astype(np.float64)
    if values.shape != weight.shape:
        raise Error(f"node {node.name!r}", f"weights {list(weight.shape)} as in its module", str(list(values.shape)))
    before, after = weight.reshape(len(weight), -1), values.reshape(len(values), -1)
    squares = (before * before).sum(1)
    scale = np.where(squares > 0, (before * after).sum(1) / np.where(squares > 0, squares, 1), 1.0)
    error = float(np.abs(after - scale[:, None] * before).max(initial=0.0))
    bound = RESIDUE * float(np.abs(after).max(initial=0.0))
    if error > bound:
        next_step = f"{FOLDED}; take a transform that leaves its filters alone"
        raise Error(f"node {node.name!r}", f"its module's weights times one scale a filter, within {bound:.3g}", f"{error:.3g}", next_step)
    return weight, scale.astype(np.float32)


def _unmasked(node: Node) -> Node:
    """The layer in identity blocks where its exact zeros make that cheaper than all its weights; grouped layers are stored whole."""
    values = node.tensors["values"]
    matrix = values.reshape(values.shape[0], -1)
    if node.attrs.get("groups", 1) != 1 or matrix.all():
        return node
    best, cost = node, matrix.size
    for block in (block for block in masks.BLOCKS if block <= matrix.shape[0]):
        rows = -(-matrix.shape[0] // block)
        padded = np.zeros((rows * block, matrix.shape[1]), dtype=bool)
        padded[: matrix.shape[0]] = matrix != 0
        keep = np.any(padded.reshape(rows, block, -1), axis=1)
        if keep.sum() * (block + OVERHEAD) <= cost:
            best, cost = _stored(node, to_blocks(matrix, keep, block), transforms.IDENTITY, block), int(keep.sum()) * (block + OVERHEAD)
    return best


def _stored(node: Node, tensors: dict[str, np.ndarray], transform: Transform, block: int) -> Node:
    others = {role: array for role, array in node.tensors.items() if role != "values"}
    attrs, matrices = _words(node, transform)
    return replace(node, attrs={**node.attrs, **attrs, "format": "block", "block": block}, tensors={**others, **tensors, **matrices})


def _words(node: Node, transform: Transform) -> tuple[dict[str, Attr], dict[str, np.ndarray]]:
    """The attributes and matrices that state the transform (docs/artifact.md); axes that have no whole tile are not mentioned."""
    attrs: dict[str, Attr] = {"transform": transform.taps if node.attrs.get("kernel", [1, 1]) != [1, 1] else "identity"}
    for axis in ("channels", "filters"):
        kind, tile = getattr(transform, axis), getattr(transform, f"{axis}_tile")
        if kind != "identity" and tile <= int(node.attrs[axis]):  # type: ignore[arg-type]
            attrs |= {f"{axis}_transform": kind, f"{axis}_tile": tile}
    matrices = {"basis": transform.basis, "tiles": transform.tiles}
    return attrs, {role: array.astype(np.float32) for role, array in matrices.items() if array is not None}


def _line(dense: Node, stored: Node, transform: Transform) -> Packed:
    values = dense.tensors["values"]
    weights = sum(stored.tensors[role].nbytes for role in ("values", "columns", "rows", "basis", "tiles") if role in stored.tensors)
    block = int(stored.attrs["block"])  # type: ignore[arg-type]
    count = values.size
    if stored.attrs["format"] == "block":
        per_row = np.diff(stored.tensors["rows"].astype(np.int64))
        count = int((per_row * np.minimum(block, values.shape[0] - block * np.arange(per_row.size))).sum())
    return Packed(stored.name, stored.op, transform.name, block, count / max(1, values.size), values.nbytes, weights)
