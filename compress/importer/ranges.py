"""The heights and widths around an example for which guards hold, as an artifact can say it: a least and a greatest for each symbol.

A guard of one symbol is evaluated at every size up to DENSE, at sizes beyond that grow by a tenth, and where its two sides cross in
between. A guard of several symbols is evaluated on a grid of such sizes; where a product of ranges cannot express it, one range is cut,
or all go back to the example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
from sympy.core.relational import Relational

from cosparse.compress.importer.guards import Guard, holds, value

MOST = 2**31 - 1  # an axis of an artifact
DENSE = 4096
EXACT = 2**20
TURNS = 8

Range = tuple[int, int]
Ranges = dict[Any, Range]
Sizes = dict[Any, int]


def box(guards: Iterable[Guard], example: Mapping[Any, int], symbols: Iterable[Any], within: Ranges | None = None) -> Ranges:
    """For each of `symbols` a range with the example's size; where all are in theirs, the others as in the example, all guards hold."""
    ranges = dict(within) if within is not None else dict.fromkeys(symbols, (1, MOST))
    guards = list(guards)
    for symbol in ranges:
        for guard in guards:
            if guard.condition is None or (symbol in guard.symbols and not guard.symbols & (set(ranges) - {symbol})):
                ranges[symbol] = _around(guard, symbol, ranges[symbol], example)
    for guard in guards:
        if len(guard.symbols & set(ranges)) > 1:
            ranges = _cut(guard, ranges, example)
    return ranges


def points(guard: Guard, symbol: Any, example: Mapping[Any, int]) -> list[int]:
    """Sizes between which the guard does not change, ascending."""
    return _points(guard.condition, symbol, tuple(example.items()))


@lru_cache(maxsize=4096)
def _points(condition: Any, symbol: Any, example: tuple[tuple[Any, int], ...]) -> list[int]:
    own = dict(example)[symbol]
    far = np.unique(np.geomspace(DENSE, MOST, 140).astype(np.int64))
    sizes = {*range(1, DENSE + 1), *far.tolist(), MOST, own}
    if own > DENSE:
        sizes |= set(range(own - 512, own + 513))
    base = sorted(sizes)
    for relation in condition.atoms(Relational) if condition is not None else ():
        if symbol in relation.free_symbols:
            sizes |= _crossings(partial(_side, relation, symbol, dict(example)), base)
    return sorted(sizes)


def along(guard: Guard, symbol: Any, sizes: list[int], example: Mapping[Any, int]) -> np.ndarray:
    """Whether the guard holds at each of the sizes, ascending, of one symbol. [sizes], bool"""
    return _evaluated(lambda x: holds(guard, {**example, symbol: x}, example), sizes)


def _evaluated(function: Callable[[np.ndarray], Any], sizes: list[int]) -> np.ndarray:
    """The function of an array of sizes: fast where products of two fit 64 bits, exact beyond."""
    split = int(np.searchsorted(sizes, EXACT))
    parts = [np.array(sizes[:split], np.int64), np.array(sizes[split:], object)]
    return np.concatenate([np.broadcast_to(function(part), part.shape) for part in parts if len(part)] or [np.zeros(0, bool)])


def _side(relation: Any, symbol: Any, example: Mapping[Any, int], x: Any) -> np.ndarray:
    at = {**example, symbol: x}
    return np.sign(np.asarray(np.subtract(value(relation.lhs, at), value(relation.rhs, at))).astype(np.float64))


def _crossings(side: Callable[[Any], np.ndarray], base: list[int]) -> set[int]:
    """Sizes at which the two sides of a relation meet or part, between two neighbours of `base` at which they stand differently.

    A relation that turns often, as that of a remainder, does so up to DENSE too.
    """
    with np.errstate(all="ignore"):
        signs = _evaluated(side, base)
    found: set[int] = set()
    turns = np.flatnonzero((signs[1:] != signs[:-1]) & (np.diff(base) > 1))
    for i in turns if len(turns) <= TURNS else ():
        edge = base[i]
        while signs[i + 1] != float(side(np.array(edge, object))):  # once, or twice where they are equal for a while
            edge = _edge(lambda x: float(side(np.array(x, object))), edge, base[i + 1])
            found |= {edge - 1, edge}
    return found


def _edge(state: Callable[[int], Any], a: int, b: int) -> int:
    """The first size above `a` whose state is not that of `a`, which changes once up to `b`."""
    before = state(a)
    while b - a > 1:
        middle = (a + b) // 2
        a, b = (middle, b) if state(middle) == before else (a, middle)
    return b


def _around(guard: Guard, symbol: Any, within: Range, example: Mapping[Any, int]) -> Range:
    sizes, own, (least, most) = points(guard, symbol, example), example[symbol], within
    false = np.flatnonzero(~along(guard, symbol, sizes, example))
    place = int(np.searchsorted(sizes, own))
    if len(below := false[false < place]):
        least = max(least, sizes[below[-1] + 1])
    if len(above := false[false > place]):
        most = min(most, sizes[above[0] - 1])
    return least, most


def sample(symbol: Any, ranges: Ranges, example: Mapping[Any, int]) -> list[int]:
    """A few sizes of the range: its ends, those about the example and about the ends, some in between and beyond."""
    low, high = ranges[symbol]
    own = example[symbol]
    near = {*range(low, low + 4), *range(own - 4, own + 5), high - 1, high, *range(8, 2 * own, max(1, own // 8)), 4 * own, 16 * own, 2**16}
    return sorted(x for x in near if low <= x <= high)


def _cut(guard: Guard, ranges: Ranges, example: Mapping[Any, int]) -> Ranges:
    """The ranges cut so that the guard holds on the grid: in one symbol, the one that keeps most; else all its symbols pinned."""
    if not broken(guard, ranges, example):
        return ranges
    kept: list[tuple[int, Any, Range]] = []
    for symbol in (s for s in ranges if s in guard.symbols):
        axes, true = _grid(guard, ranges, example)
        place = list(axes).index(symbol)
        fine = np.atleast_1d(true.all(axis=tuple(i for i in range(true.ndim) if i != place)))
        sizes, own = axes[symbol], axes[symbol].index(example[symbol])
        first = last = own
        while first and fine[first - 1]:
            first -= 1
        while last + 1 < len(sizes) and fine[last + 1]:
            last += 1
        if fine[own] and last > first:
            kept.append((last - first, symbol, (sizes[first], sizes[last])))
    for _, symbol, found in sorted(kept, key=lambda entry: -entry[0]):
        tried = {**ranges, symbol: found}
        if not broken(guard, tried, example):
            return tried
    return {s: (example[s], example[s]) if s in guard.symbols else r for s, r in ranges.items()}


def _grid(guard: Guard, ranges: Ranges, example: Mapping[Any, int]) -> tuple[dict[Any, list[int]], np.ndarray]:
    axes = {s: sample(s, ranges, example) for s in ranges if s in guard.symbols}
    shaped = np.ix_(*(np.array(sizes, object) for sizes in axes.values()))
    true = holds(guard, {**example, **dict(zip(axes, shaped, strict=True))}, example)
    return axes, np.broadcast_to(true, tuple(map(len, axes.values())))


def broken(guard: Guard, ranges: Ranges, example: Mapping[Any, int]) -> list[Sizes]:
    """Sizes of the grid, smallest first, for which the guard does not hold."""
    axes, true = _grid(guard, ranges, example)
    sizes = list(axes.values())
    found = [{s: sizes[k][i] for k, (s, i) in enumerate(zip(axes, index, strict=True))} for index in np.argwhere(~true)]
    return sorted(found, key=lambda at: (max(at.values()), sum(at.values())))
