"""Which blocks to keep: the most energy under bounds on parameters, multiply-adds and time at once.

One kept coefficient of layer l costs 1 parameter, P_l multiply-adds (P_l = its output pixels) and T_l microseconds. A block is kept iff

    energy >= (alpha + beta P_l + gamma T_l) * block size

with the smallest alpha, beta, gamma >= 0 that meet all bounds, found by nested bisections. Exact by Lagrange's argument: the blocks kept
are, block by block, those that make energy - (alpha, beta, gamma) . cost largest, so a set of more energy costs more of at least one
resource whose multiplier is not 0. Another score may take the place of energy; the argument does not ask what it is. The basis step is
charged first and exactly: every input channel that a kept block uses costs its basis step, at every point of the search.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from cosparse.compress.budget import FLOOR
from cosparse.errors import Error

STEPS = 60

Cost = tuple[float, float, float]
"""Parameters, multiply-adds, microseconds."""


class Unreachable(Error):
    """Bounds that even the floors exceed; `least` is what those cost."""

    def __init__(self, least: Cost, thing: str, expected: str, got: str) -> None:
        super().__init__(thing, expected, got)
        self.least = least


@dataclass(frozen=True, eq=False)
class Candidates:
    """The blocks of one layer: energy or another score, float64 [block rows, K]; filters per block row; what keeping costs.

    `pixels`: multiply-adds a coefficient; `basis`: those of the basis step that `taps` columns share. `us`, `us_basis`: the same in time.
    `fixed_params`, `fixed_flops`: what the layer costs whichever blocks are kept. `open`: which blocks may be kept, bool [block rows, K];
    None: all. `parts`: as how many blocks those of a block row count for floors and shares, float64 [block rows]; None: one.
    """

    name: str
    energy: np.ndarray
    size: np.ndarray
    pixels: float
    basis: float
    taps: int
    us: float = 0.0
    us_basis: float = 0.0
    fixed_params: int = 0
    fixed_flops: float = 0.0
    open: np.ndarray | None = None
    parts: np.ndarray | None = None

    def holding(self, order: np.ndarray, parts: int) -> int:
        """Number of the first blocks of `order` that hold so many parts, or of all."""
        if self.parts is None:
            return min(parts, order.size)
        held = np.cumsum(self.parts[order // self.energy.shape[1]])
        return min(int(held.searchsorted(parts)) + 1, order.size) if parts else 0

    def share(self, share: float) -> float:
        """That share of all parts, the closed blocks included."""
        return share * (self.energy.size if self.parts is None else float(self.parts.sum()) * self.energy.shape[1])


@dataclass(frozen=True, eq=False)
class Selection:
    """`keep`: one bool [block rows, K] a layer, in the order given; `levels`: the energy per coefficient from which a block of that layer
    is kept; and the cost, basis step included (`us` without what a layer takes even when it is empty). `bounded`, where blocks were chosen
    in filter groups (`cosparse.compress.hierarchy`): one float64 [block rows, K] a layer, the share of its present energy at which the
    bound on group columns would drop a block, infinite where it has."""

    keep: tuple[np.ndarray, ...]
    levels: tuple[float, ...]
    params: float
    flops: float
    us: float
    bounded: tuple[np.ndarray, ...] | None = None


@dataclass(frozen=True, eq=False)
class _Ranked:
    """One layer's blocks from the densest energy to the least; ties in an order that the seed decides."""

    order: np.ndarray
    lack: np.ndarray  # minus the energy per coefficient, rising, as bisection wants it
    params: np.ndarray  # [blocks + 1]: coefficients in the first n blocks
    opens: np.ndarray  # the ranks at which a block is the first of its input channel, rising
    floor: int
    price: Cost  # of a coefficient
    basis: tuple[float, float]  # of one basis step: multiply-adds, microseconds
    fixed: tuple[float, float]  # parameters, multiply-adds

    def cost(self, blocks: int) -> Cost:
        """What the first `blocks` blocks cost, basis step included."""
        params, steps = float(self.params[blocks]), float(self.opens.searchsorted(blocks))
        flops, us = params * self.price[1] + steps * self.basis[0], params * self.price[2] + steps * self.basis[1]
        return params + self.fixed[0], flops + self.fixed[1], us

    def threshold(self, multipliers: Sequence[float]) -> float:
        return sum(multiplier * price for multiplier, price in zip(multipliers, self.price, strict=True))

    def above(self, threshold: float) -> int:
        """Number of blocks whose energy per coefficient reaches the threshold; at least the floor."""
        return max(self.floor, int(self.lack.searchsorted(-threshold, side="right")))


def _rank(layer: Candidates, floor: float, generator: np.random.Generator) -> _Ranked:
    size = np.broadcast_to(layer.size[:, None], layer.energy.shape).ravel()
    density = layer.energy.ravel() / size
    order = np.lexsort((generator.permutation(density.size), -density))
    if layer.open is not None:
        order = order[layer.open.ravel()[order]]
    channel = (order % layer.energy.shape[1]) // layer.taps
    _, opens = np.unique(channel, return_index=True)
    params = np.concatenate([[0.0], np.cumsum(size[order])])
    price, basis = (1.0, layer.pixels, layer.us), (layer.basis, layer.us_basis)
    fixed = (float(layer.fixed_params), layer.fixed_flops)
    least = layer.holding(order, ceil(layer.share(floor)))
    return _Ranked(order, -density[order], params, np.sort(opens), least, price, basis, fixed)


def _cost(ranked: Sequence[_Ranked], blocks: Sequence[int]) -> Cost:
    costs = [layer.cost(n) for layer, n in zip(ranked, blocks, strict=True)]
    return sum(c[0] for c in costs), sum(c[1] for c in costs), sum(c[2] for c in costs)


def _within(cost: Cost, bounds: Cost) -> bool:
    return cost[0] <= bounds[0] and cost[1] <= bounds[1] and cost[2] <= bounds[2]


def _bisect(meets: Callable[[float], bool], high: float) -> float:
    """The smallest value in [0, high] for which `meets` holds, to float precision; `meets(high)` must hold."""
    if meets(0.0):
        return 0.0
    low = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _multipliers(ranked: Sequence[_Ranked], bounds: Cost) -> tuple[float, ...]:
    """The smallest (alpha, beta, gamma) that meet all bounds; the floors alone must meet them.

    Nested: at each gamma the smallest beta, at each beta the smallest alpha. A bound that does not bind costs one evaluation, not STEPS.
    """
    densest = max((-float(layer.lack[0]) for layer in ranked if layer.lack.size), default=0.0)
    top = float(np.nextafter(densest, inf)) if densest else 1.0
    cheapest = [min((layer.price[i] for layer in ranked if layer.price[i] > 0), default=1.0) for i in range(3)]

    def solve(given: tuple[float, ...]) -> tuple[float, ...]:
        """All multipliers, the last of them given."""
        index = len(bounds) - len(given) - 1
        if index < 0:
            return given
        if bounds[index] == inf:
            return solve((0.0, *given))

        def meets(value: float) -> bool:
            multipliers = solve((value, *given))
            return _cost(ranked, _blocks(ranked, multipliers))[index] <= bounds[index]

        return solve((_bisect(meets, 2 * top / cheapest[index]), *given))

    return solve(())


def _blocks(ranked: Sequence[_Ranked], multipliers: Sequence[float]) -> list[int]:
    """How many blocks each layer keeps by the rule."""
    return [layer.above(layer.threshold(multipliers)) for layer in ranked]


def _fill(ranked: Sequence[_Ranked], blocks: list[int], multipliers: Sequence[float], bounds: Cost) -> None:
    """Adds blocks in the order of the rule while all bounds hold: ties at the threshold, and the rest that bisection leaves."""
    used = _cost(ranked, blocks)
    queue: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        layer = ranked[index]
        if blocks[index] < layer.lack.size:
            heapq.heappush(queue, (layer.threshold(multipliers) + float(layer.lack[blocks[index]]), index))

    for index in range(len(ranked)):
        offer(index)
    while queue:
        _, index = heapq.heappop(queue)
        before, after = ranked[index].cost(blocks[index]), ranked[index].cost(blocks[index] + 1)
        then = (used[0] + after[0] - before[0], used[1] + after[1] - before[1], used[2] + after[2] - before[2])
        if _within(then, bounds):
            used = then
            blocks[index] += 1
            offer(index)


def least_cost(layers: Sequence[Candidates], floor: float = FLOOR, seed: int = 0) -> Cost:
    """(parameters, multiply-adds, microseconds) of the floors alone: no budget below this can be met."""
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, floor, generator) for layer in layers]
    return _cost(ranked, [layer.floor for layer in ranked])


def select(
    layers: Sequence[Candidates],
    params: float = inf,
    flops: float = inf,
    us: float = inf,
    *,
    floor: float = FLOOR,
    seed: int = 0,
    fill: bool = True,
) -> Selection:
    """Keeps the blocks of most energy within `params` coefficients, `flops` multiply-adds and `us` microseconds, for these layers alone.

    Exact ties are broken by the seed. `fill` uses up what the thresholds leave of the bounds. Raises Unreachable where even the floors
    exceed a bound.
    """
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, floor, generator) for layer in layers]
    bounds = (params, flops, us)
    least = _cost(ranked, [layer.floor for layer in ranked])
    if not _within(least, bounds):
        got = f"{_said(least, bounds)} for the {100 * floor:g}% of blocks that every layer keeps"
        raise Unreachable(least, "budget of the masked layers", f"at most {_said(bounds, bounds)}", got)
    multipliers = _multipliers(ranked, bounds)
    blocks = _blocks(ranked, multipliers)
    if fill:
        _fill(ranked, blocks, multipliers, bounds)
    return _selection(layers, ranked, blocks, tuple(layer.threshold(multipliers) for layer in ranked))


def _said(cost: Cost, bounds: Cost) -> str:
    """The resources that are bounded, in words."""
    words = zip(cost, bounds, ("coefficients", "multiply-adds", "us"), strict=True)
    return " and ".join(f"{value:,.0f} {word}" for value, bound, word in words if bound < inf)


def select_share(layers: Sequence[Candidates], density: float, seed: int = 0) -> Selection:
    """Keeps the same share of blocks in every layer, at least one: those of most energy. Exact ties are broken by the seed."""
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, 0.0, generator) for layer in layers]
    rounded = [round(layer.share(density)) if layer.parts is None else ceil(layer.share(density)) for layer in layers]
    blocks = [max(1, layer.holding(rank.order, count)) for layer, rank, count in zip(layers, ranked, rounded, strict=True)]
    levels = tuple(-float(rank.lack[n - 1]) for rank, n in zip(ranked, blocks, strict=True))
    return _selection(layers, ranked, blocks, levels)


def _selection(layers: Sequence[Candidates], ranked: Sequence[_Ranked], blocks: Sequence[int], levels: tuple[float, ...]) -> Selection:
    keep = []
    for layer, rank, n in zip(layers, ranked, blocks, strict=True):
        flat = np.zeros(layer.energy.size, dtype=bool)
        flat[rank.order[:n]] = True
        keep.append(flat.reshape(layer.energy.shape))
    return Selection(tuple(keep), levels, *_cost(ranked, blocks))
