"""At which widths a network is measured: few networks, in which every layer has every pair of (input width, filters) that it can have.

Each group of channels has four widths, and groups are coloured: two that meet in a layer, one as what it reads and one as its filters, get
different colours. A colour is a column of an orthogonal array of strength 2, so that 16 networks show any two colours at all 16 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

LEVELS = 4
COLOURS = 5
TIMES_W = (0, 2, 3, 1)
"""w * x in GF(4) = {0, 1, w, w + 1}, written 0 to 3; their sum is the bitwise exclusive or."""


def orthogonal() -> np.ndarray:
    """int [16, 5]: columns i, j, i + j, i + w j, i + w^2 j over GF(4). Any two show each pair of 0 .. 3 once; the first row is 0."""
    return np.array([(i, j, i ^ j, i ^ TIMES_W[j], i ^ TIMES_W[TIMES_W[j]]) for i, j in product(range(LEVELS), repeat=2)])


def widths(channels: int, multiple: int, sections: int = 1) -> tuple[int, ...]:
    """Four widths that do not fall, the last is `channels`: quarters, in multiples of `multiple` and of `sections`, one at least.

    Where they coincide, the group is seen at fewer.
    """
    step = math.lcm(multiple, sections)
    quarters = (step * max(1, math.floor(channels * level / (LEVELS * step) + 0.5)) for level in range(1, LEVELS))
    return (*(min(channels, width) for width in quarters), channels)


def colours(neighbours: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Group -> colour, neighbours apart, by saturation: the group that sees most colours is next and takes the first that none of them has.

    Where all are taken it takes the one that fewest of its neighbours have.
    """
    found: dict[str, int] = {}
    waiting = list(neighbours)
    while waiting:
        seen = {name: [found[other] for other in neighbours[name] if other in found] for name in waiting}
        name = max(waiting, key=lambda name: (len(set(seen[name])), len(neighbours[name])))
        found[name] = min(range(COLOURS), key=seen[name].count)
        waiting.remove(name)
    return found


def design(levels: Mapping[str, Sequence[int]], colour: Mapping[str, int]) -> list[dict[str, int]]:
    """Group -> width, for each network to measure, none twice; the first is the full one."""
    rows = [{name: four[LEVELS - 1 - row[colour[name]]] for name, four in levels.items()} for row in orthogonal()]
    return list({tuple(row.values()): row for row in rows}.values())
