"""Masks as a GPU likes them: R consecutive filters share a list of columns, so that tensor cores see dense tiles.

    starts   [G + 1]    int64; group g has the columns starts[g] .. starts[g + 1]; G = ceil(O / R)
    columns  [B]        int32; ascending within a group; k = (c R + u) S + v as in kernels/conv.py
    values   [B, R]     float32; coefficients with `scale` multiplied in; 0 where the artifact's smaller blocks are empty

Block rows of r < R filters are merged: a group's columns are the union of theirs. So an artifact of 8 x 1 blocks runs, with as many zeros
in its tiles as its block rows differ; one of R x 1 blocks, or of 8 x 1 blocks inside shared R-filter lists, runs without any.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cosparse.kernels.contract import Node
from cosparse.kernels.conv import scaled, stored, unpack


@dataclass(frozen=True, eq=False)
class Groups:
    """`filters` in groups of `rows`, over `columns_total` columns."""

    rows: int
    filters: int
    columns_total: int
    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def density(self) -> float:
        """Share of the dense layer's multiply-adds that the tiles do, zeros inside them counted."""
        return len(self.columns) / max(1, len(self) * self.columns_total)

    def dense(self) -> np.ndarray:
        """The coefficients as a matrix [O, K] float32."""
        matrix = np.zeros((len(self), self.columns_total, self.rows), np.float32)
        for g, (start, stop) in enumerate(pairwise(self.starts.tolist())):
            matrix[g, self.columns[start:stop]] = self.values[start:stop]
        return matrix.transpose(0, 2, 1).reshape(-1, self.columns_total)[: self.filters]


def grouped(matrix: np.ndarray, keep: np.ndarray, rows: int) -> Groups:
    """Groups of a matrix [O, K] whose kept entries are `keep`, bool [O, K]."""
    filters, total = matrix.shape
    padding = ((0, -filters % rows), (0, 0))
    values = np.pad(matrix.astype(np.float32), padding).reshape(-1, rows, total)
    used = np.pad(keep, padding).reshape(-1, rows, total).any(1)  # [G, K]
    starts = np.concatenate([[0], used.sum(1).cumsum()]).astype(np.int64)
    group, columns = np.nonzero(used)
    return Groups(rows, filters, total, starts, columns.astype(np.int32), values[group, :, columns])


def coefficient_groups(node: Node, rows: int) -> Groups:
    """The stored coefficients of a conv or linear node of one channel group, in its transform's domain; not for transformed filters."""
    coefficients = stored(node)
    matrix = scaled(node, coefficients).reshape(len(coefficients), -1)
    return grouped(matrix, kept(node, matrix), rows)


def weight_groups(node: Node, rows: int, every: bool = False) -> Groups:
    """The same layer with its transform undone: the taps themselves, of which all are kept if `every`, or unless the transform is the
    identity."""
    weights = unpack(node)
    matrix = weights.reshape(len(weights), -1)
    identity = node.attrs["transform"] == "identity" and not any(f"{axis}_tile" in node.attrs for axis in ("channels", "filters"))
    return grouped(matrix, kept(node, matrix) if identity and not every else np.ones(matrix.shape, bool), rows)


def kept(node: Node, matrix: np.ndarray) -> np.ndarray:
    """Which entries of [O, K] the artifact stores, bool; all of a dense node."""
    if node.attrs["format"] == "dense":
        return np.ones(matrix.shape, bool)
    rows, block = node.tensors["rows"].astype(np.int64), int(node.attrs["block"])
    keep = np.zeros((len(rows) - 1, matrix.shape[1]), bool)
    keep[np.repeat(np.arange(len(rows) - 1), np.diff(rows)), node.tensors["columns"]] = True
    return keep.repeat(block, 0)[: len(matrix)]
