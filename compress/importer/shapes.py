"""From the symbols' ranges to those of the inputs' heights and widths, and to words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cosparse.compress.importer.guards import Guard, Way, holds, text, value
from cosparse.compress.importer.layout import Size
from cosparse.compress.importer.ranges import MOST, Range, Ranges, Sizes, along, points

EVERYTHING = ((1, MOST), (1, MOST))


def ranges_of(shape: Sequence[Size], ranges: Ranges) -> tuple[Range, Range] | None:
    """Least and greatest height and width of an input of that shape; None for an input without them."""
    if len(shape) != 4:
        return None
    height, width = (_range(size, ranges) for size in shape[2:])
    return height, width


def _range(size: Size, ranges: Ranges) -> Range:
    """Of an expression of one symbol that grows with it, as torch finds them between inputs."""
    low, high = (int(value(size, {s: ranges[s][end] for s in size.free_symbols})) for end in (0, 1))
    return max(1, low), min(high, MOST)


def shapes_at(way: Way, batch: int, sizes: Sizes) -> list[list[int]]:
    at = {**sizes, **dict.fromkeys(way.batch, batch)}
    return [[batch, *(int(value(size, at)) for size in shape[1:])] for shape in way.shapes]


def batch_guard(way: Way) -> Guard | None:
    """A condition of the model's own code that some batch breaks."""
    return next((g for g in way.guards if g.own and broken_batches(g, way)), None)


def broken_batches(guard: Guard, way: Way) -> list[int]:
    """Batches for which the guard does not hold at the example's sizes, ascending, not all of them."""
    found: list[int] = []
    for symbol in guard.symbols & way.batch:
        batches = points(guard, symbol, way.example)
        found += [n for n, fine in zip(batches, along(guard, symbol, batches, way.example), strict=True) if not fine]
    return sorted(found)


def reasons(way: Way, guards: Iterable[Guard], ranges: Ranges, names: Sequence[str]) -> str:
    """What each end of the ranges is there for: a condition that the next size breaks, the model's own first. Empty where all is free."""
    called: dict[Any, str] = {}
    found: dict[str, None] = {}
    for name, shape in zip(names, way.shapes, strict=True):
        for axis, size in zip(("height", "width"), shape[2:], strict=False):
            here = axis if len(names) == 1 else f"{axis} of {name}"
            if size.is_Symbol:
                called.setdefault(size, here)
            elif size == 1:
                found[f"{here} of 1, which torch.export takes for fixed (an example of 2 or more leaves it free)"] = None
    called |= dict.fromkeys(way.batch, "batch")
    guards = sorted(guards, key=lambda g: (not g.own, g.condition.count_ops() if g.condition is not None else 0))
    for symbol, (low, high) in ranges.items():
        for end in [low - 1] * (low > 1) + [high + 1] * (high < MOST):
            because = next((text(g, called) for g in guards if not _fine(g, symbol, end, way.example)), "")
            found[because or f"{called.get(symbol, str(symbol))} of {end}: not known to be the same there"] = None
    return " and ".join(found)


def _fine(guard: Guard, symbol: Any, size: int, example: Mapping[Any, int]) -> bool:
    return (guard.condition is not None and symbol not in guard.symbols) or bool(holds(guard, {**example, symbol: size}, example))
