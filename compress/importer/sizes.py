"""Heights and widths for which an imported graph is the model's.

torch.export follows one way through the model's code, and guards say for which sizes it holds (guards.py). What the model's own code has
asked is kept. Most of what torch's operators have asked is caution: a plane of a single row, a window that they took as fixed. So the
model and the graph are run at sizes for which it does not hold, and where they agree it is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from cosparse.compress import given
from cosparse.compress.importer.guards import Guard, Way, holds
from cosparse.compress.importer.ranges import Range, Ranges, along, box, broken, points
from cosparse.compress.importer.shapes import EVERYTHING, broken_batches, ranges_of, reasons, shapes_at
from cosparse.compress.importer.trial import NEITHER, OTHER, REFUSED, SAME, Trial
from cosparse.engine.graph import Graph
from cosparse.errors import UnsupportedError

BEYOND = 64  # sizes, each a tenth larger than the one before, that all break a guard: so do all others
TRIED = 8  # sizes at most on one side of the example
BATCHES = 64  # above, a batch by which one of torch's operators decides is not tried


def settled(graph: Graph, way: Way, model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Graph, str]:
    """The graph with the sizes for which it is the model, and in words the conditions that limit them where torch takes more.

    Raises UnsupportedError where model and graph differ at a batch.
    """
    trial = Trial(graph, way, model, inputs)
    own, asked = [g for g in way.guards if g.own], [g for g in way.guards if not g.own]
    outer = box(own, way.example, way.sizes)
    outer = _without_ones(trial, outer)
    ranges = box(asked, way.example, way.sizes, outer)
    for side in (0, 1):
        ranges = _widened(trial, asked, ranges, outer, side)
    for guard in asked:
        if len(guard.symbols & set(ranges)) > 1:
            ranges = _together(trial, guard, ranges)
    ranges = _apart(trial, ranges)
    _batches(trial, asked, ranges)
    sizes = [ranges_of(shape, ranges) for shape in way.shapes]
    graph = replace(graph, inputs=tuple(replace(v, sizes=None if s == EVERYTHING else s) for v, s in zip(graph.inputs, sizes, strict=True)))
    agreed = [g for g in asked if any(outcome == SAME and not holds(g, at, way.example) for at, outcome in trial.seen())]
    below = {s: {outcome for at, outcome in trial.seen() if at[s] < low} for s, (low, _) in ranges.items()}
    limits = {s: (1, high) if below[s] and below[s] <= {NEITHER, REFUSED} else (low, high) for s, (low, high) in ranges.items()}
    return graph, reasons(way, [g for g in way.guards if g not in agreed], limits, [value.name for value in graph.inputs])


def _without_ones(trial: Trial, ranges: Ranges) -> Ranges:
    """The ranges from 2 where a size of 1 is something else: torch.export takes 1 for a case of its own and asks nothing about it."""
    ones = [s for s, (low, _) in ranges.items() if low == 1]
    outcome = trial(dict.fromkeys(ones, 1)) if ones else SAME
    if outcome in (SAME, NEITHER):
        return ranges
    if outcome == OTHER and given.single_differs(trial.model, trial.inputs):
        raise UnsupportedError(f"model {trial.graph.name}", *given.ONE_IMAGE)
    alone = [s for s in ones if trial({s: 1}) in (OTHER, REFUSED)] or ones
    return {s: (2, high) if s in alone else (low, high) for s, (low, high) in ranges.items()}


def _widened(trial: Trial, guards: Sequence[Guard], ranges: Ranges, outer: Ranges, side: int) -> Ranges:
    """The ranges with the ends of one side (0: least, 1: greatest) as far out as trials allow."""
    sides = {s: Side(trial, guards, s, ranges[s], outer[s], side) for s in ranges if ranges[s][side] != outer[s][side]}
    for choose in (Side.first, Side.rest):
        chosen = {s: choose(one) for s, one in sides.items()}
        for i in range(max(map(len, chosen.values()), default=0)):
            at = {s: sizes[min(i, len(sizes) - 1)] for s, sizes in chosen.items() if sizes}
            outcome = trial(at)
            for s, size in at.items():
                sides[s].outcomes[size] = outcome if outcome in (SAME, NEITHER) else trial({s: size})
    ends = {s: one.end() for s, one in sides.items()}
    return {s: r if s not in ends else (ends[s], r[1]) if side == 0 else (r[0], ends[s]) for s, r in ranges.items()}


class Side:
    """The sizes of one symbol below or above the example: which guards they break, and what trials have shown."""

    def __init__(self, trial: Trial, guards: Sequence[Guard], symbol: Any, inner: Range, outer: Range, side: int) -> None:
        example = trial.way.example
        self.inner, self.outer, self.outcomes = inner[side], outer[side], dict[int, str | None]()
        asked = [g for g in guards if symbol in g.symbols]
        sizes = sorted(set[int]().union(*(points(g, symbol, example) for g in asked)))
        sizes = [n for n in sizes if (outer[0] <= n < inner[0] if side == 0 else inner[1] < n <= outer[1])]
        broken = np.array([~along(g, symbol, sizes, example) for g in asked], bool).reshape(len(asked), len(sizes))
        if side == 0:
            sizes, broken = sizes[::-1], broken[:, ::-1]
        self.below, self.sizes = side == 0, sizes  # from the example outwards
        self.broken = broken[broken.any(axis=1)]  # [guards, sizes]
        most = trial.most(symbol)
        self.affordable = np.array([n <= most for n in self.sizes], bool)

    def _best(self, able: np.ndarray, most: bool = False) -> list[int]:
        """The nearest of the sizes that break fewest guards; with `most`, those that break most."""
        count = self.broken.sum(axis=0)
        return [self.sizes[i] for i in sorted(np.flatnonzero(able), key=lambda i: (-count[i] if most else count[i], i))[:1]]

    def first(self) -> list[int]:
        able = self.affordable & self.broken.any(axis=0)
        far = [n for n in self.sizes[-1:] if n == 1] or self._best(able, most=True)
        return list(dict.fromkeys(self._best(able) + far))

    def rest(self) -> list[int]:
        """One size for each guard of which the first trials say too little: none broke it, or those that did were refused to the end."""
        if OTHER in self.outcomes.values():
            return []
        agreed, tried = self._known((SAME,)).any(axis=1), self._known((SAME, NEITHER, REFUSED)).any(axis=1)
        open_ = ~tried | (~agreed & self.below & self.broken[:, -1:].any(axis=1))
        found = [n for row in self.broken[open_] for n in self._best(row & self.affordable)]
        return [n for n in dict.fromkeys(found) if n not in self.outcomes][:TRIED]

    def _known(self, outcomes: tuple[str, ...]) -> np.ndarray:
        return self.broken & np.array([self.outcomes.get(n) in outcomes for n in self.sizes], bool)

    def end(self) -> int:
        """The farthest size up to which each guard that is broken on the way was broken in a trial without harm.

        Harm is another answer than torch's. Sizes that torch refuses, odd ones for instance, stay in the range where others are beyond
        them; where none is, the range ends.
        """
        if OTHER in self.outcomes.values():
            return self.inner
        agreed, refused, tried = (
            np.atleast_1d(self._known(outcomes).any(axis=1)) for outcomes in ((SAME,), (REFUSED,), (SAME, NEITHER, REFUSED))
        )
        stop = len(self.sizes)
        for row, same, alone, known in zip(self.broken, agreed, refused, tried, strict=True):
            kept = np.flatnonzero(~row)
            last = int(kept[-1]) + 1 if len(kept) else 0
            if not known:
                stop = min(stop, int(np.flatnonzero(row)[0]))
            elif not same and (last < len(row) if self.below else alone and last + BEYOND < len(row)):
                stop = min(stop, last)
        return self.outer if stop == len(self.sizes) else self.sizes[stop - 1] if stop else self.inner


def _together(trial: Trial, guard: Guard, ranges: Ranges) -> Ranges:
    """The ranges cut to where the guard, one of several symbols, holds, unless it was broken in a trial without harm.

    Where torch alone refused, they are not cut to a single size.
    """
    found = broken(guard, ranges, trial.way.example)
    seen: set[str | None] = {outcome for at, outcome in trial.seen() if not bool(holds(guard, at, trial.way.example))} or {
        trial(found[0]) if found else SAME
    }
    if not found or seen <= {SAME, NEITHER}:
        return ranges
    cut = box([guard], trial.way.example, trial.way.sizes, ranges)
    pins = any(cut[s] != r and cut[s][0] == cut[s][1] for s, r in ranges.items())
    return ranges if pins and seen <= {SAME, NEITHER, REFUSED} else cut


def _apart(trial: Trial, ranges: Ranges) -> Ranges:
    """The ranges, a symbol at the example's size where it is that of several heights or widths and trials with unequal ones differ."""
    way = trial.way
    for symbol, (low, high) in ranges.items():
        places = [
            (i, axis) for i, shape in enumerate(way.shapes) for axis in (2, 3) if axis < len(shape) and symbol in shape[axis].free_symbols
        ]
        own = way.example[symbol]
        other = max(low, own // 2 + 1) if low < own else min(high, own + 1)
        if len(places) < 2 or low == high:
            continue
        for i, axis in places[:2]:
            shapes = shapes_at(way, 1, dict(way.example))
            shapes[i][axis] = other
            if trial.run(shapes) in (OTHER, REFUSED):
                ranges = {**ranges, symbol: (own, own)}
    return ranges


def _batches(trial: Trial, guards: Sequence[Guard], ranges: Ranges) -> None:
    """Raises UnsupportedError where a batch for which one of torch's guards does not hold gives something else."""
    at = {s: max(low, min(trial.way.example[s], 32)) for s, (low, _) in ranges.items()}
    for guard in guards:
        for batch in [n for n in broken_batches(guard, trial.way) if n <= BATCHES][:1]:
            if trial(at, batch) in (OTHER, REFUSED):
                about = f"model {trial.graph.name}"
                raise UnsupportedError(
                    about, given.ONE_IMAGE[0], f"one that computes something else for {batch} images", given.ONE_IMAGE[2]
                )
