"""Masks in two levels: r x 1 blocks for a CPU, inside filter groups of R filters whose union of columns is bounded, for tensor cores.

A group column is one column of a filter group, R x 1: R / r blocks (fewer in a last, partial group). It is open if any of its blocks is
kept. A CPU executes the kept blocks, a GPU that merges block rows the open group columns (`cosparse.kernels.gpu.groups`). Chosen is

    the most energy, with the kept blocks within the bounds and the open group columns, if kept whole, within slack times the bounds.

By Lagrange's argument, as in `select`: with levels l (energy per coefficient from which a block is kept) and g >= 0 a column is open iff

    sum over its blocks of max(0, energy - l r) >= g R

and in open columns a block is kept iff energy >= l r. For given l the open columns are a selection, for given columns l is one; the two
alternate from the l of the blocks alone, `ROUNDS` times, and the best is taken. Each round meets all bounds as `select` does. Slack 1
means whole columns: the masks of R x 1 blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Protocol

import numpy as np

from cosparse.compress.select import Candidates, Selection, Unreachable
from cosparse.errors import Error

SLACK = 1.5
ROUNDS = 2


class Pick(Protocol):
    """Selects among candidates within `slack` times the bounds; raises Unreachable where even the floors exceed those."""

    def __call__(self, layers: Sequence[Candidates], slack: float = 1.0) -> Selection: ...


@dataclass(frozen=True)
class Hierarchy:
    """`rows`: filters of a filter group; `slack`: what its open columns may cost, over what the budget leaves to blocks."""

    rows: int
    slack: float = SLACK

    def settings(self) -> dict[str, float]:
        """As plain data, under the names of the options."""
        return {"group_rows": self.rows, "slack": self.slack}


def hierarchy(group_rows: int | None, slack: float | None, block: int) -> Hierarchy | None:
    """The settings as given, None without `group_rows`; Error where they fit neither each other nor blocks of `block` filters."""
    if group_rows is None:
        if slack is not None:
            raise Error("slack", "group_rows, whose open columns it bounds", "none", "group_rows=64 is what tensor cores merge")
        return None
    if group_rows < block or group_rows % block:
        raise Error("group_rows", f"a multiple of the block's {block} filters", repr(group_rows), f"{max(64, block)} suits tensor cores")
    if slack is not None and not (isfinite(slack) and slack >= 1):
        raise Error("slack", "a number from 1, which means whole columns", repr(slack), f"{SLACK} is the usual one")
    return Hierarchy(group_rows, SLACK if slack is None else slack)


def select_in_groups(layers: Sequence[Candidates], groups: Hierarchy, pick: Pick) -> Selection:
    """The selection of blocks in two levels, with `bounded` set; raises Unreachable as `pick` does, `least` being what blocks must cost."""
    if groups.slack == 1:
        columns = [_columns(layer, groups.rows, 0.0) for layer in layers]
        whole = pick([replace(layer, parts=None) for layer in columns])
        keep = tuple(_to_blocks(layer, groups.rows, kept) for layer, kept in zip(layers, whole.keep, strict=True))
        return replace(whole, keep=keep, levels=(0.0,) * len(layers), bounded=_bounded(layers, groups.rows, columns, whole))
    levels = pick(layers).levels
    found: list[tuple[float, Selection]] = []
    for _ in range(ROUNDS):
        columns = [_columns(layer, groups.rows, level) for layer, level in zip(layers, levels, strict=True)]
        try:
            opened = _opened(columns, groups.slack, pick)
            inside = [replace(layer, open=_to_blocks(layer, groups.rows, kept)) for layer, kept in zip(layers, opened.keep, strict=True)]
            chosen = pick(inside)
        except Unreachable:
            if found:
                break  # with other columns the floors may use more channels
            raise
        energy = sum(float(layer.energy[keep].sum()) for layer, keep in zip(layers, chosen.keep, strict=True))
        found.append((energy, replace(chosen, bounded=_bounded(layers, groups.rows, columns, opened))))
        levels = chosen.levels
    return max(found, key=lambda pair: pair[0])[1]


def _opened(columns: Sequence[Candidates], slack: float, pick: Pick) -> Selection:
    """The group columns within slack times the bounds; Unreachable says what the bounds themselves must be."""
    try:
        return pick(columns, slack)
    except Unreachable as error:
        error.least = (error.least[0] / slack, error.least[1] / slack, error.least[2] / slack)
        raise


def _columns(layer: Candidates, rows: int, level: float) -> Candidates:
    """The layer's group columns as candidates: what their blocks hold beyond `level` a coefficient."""
    per, blocks = rows // int(layer.size[0]), layer.energy.shape[0]
    starts = np.arange(0, blocks, per)
    score = layer.energy if level == 0 else np.maximum(layer.energy - level * layer.size[:, None], 0.0)
    parts = np.diff(np.append(starts, blocks)).astype(np.float64)
    return replace(layer, energy=np.add.reduceat(score, starts, axis=0), size=np.add.reduceat(layer.size, starts), parts=parts)


def _to_blocks(layer: Candidates, rows: int, columns: np.ndarray) -> np.ndarray:
    """What is said of group columns [G, K], said of their blocks [block rows, K]."""
    return np.repeat(columns, rows // int(layer.size[0]), axis=0)[: layer.energy.shape[0]]


def _bounded(layers: Sequence[Candidates], rows: int, columns: Sequence[Candidates], opened: Selection) -> tuple[np.ndarray, ...]:
    """`Selection.bounded`: level R / score of each group column, at most 1, and infinite where it is closed; for its blocks."""
    shares = []
    for layer, column, kept, level in zip(layers, columns, opened.keep, opened.levels, strict=True):
        bound = np.broadcast_to(level * column.size[:, None], column.energy.shape)
        share = np.divide(bound, column.energy, out=np.where(bound > 0, 1.0, 0.0), where=column.energy > 0)
        shares.append(_to_blocks(layer, rows, np.where(kept, np.minimum(share, 1.0), np.inf)))
    return tuple(shares)
