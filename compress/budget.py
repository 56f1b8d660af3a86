"""Which blocks to keep: the most energy under a parameter budget and a FLOP budget at once.

One kept coefficient of layer l costs 1 parameter and P_l multiply-adds (P_l = its output pixels). A block is kept iff

    energy >= (alpha + beta P_l) * block size

with the smallest alpha, beta >= 0 that meet both budgets, found by two nested bisections. No other set of blocks of the same cost holds
more energy. The basis step is charged first and exactly: every input channel that a kept block uses costs its basis step, at every point
of the search.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from cosparse.errors import Error, UnsupportedError

FLOOR = 0.02
"""Share of its blocks that every layer keeps, so that no layer is cut in two."""

STEPS = 60


@dataclass(frozen=True)
class Budget:
    """Shares of the dense network's totals (as `count` reports them) to remove: 0.6 removes at least 60 %. None: no bound.

    `flops` includes the basis step of the transform. `density`, alone, is the share to keep: of the blocks of every layer that can carry
    a mask, the same in each. `latency` waits for measured tables and is refused until then.
    """

    flops: float | None = None
    params: float | None = None
    latency: object | None = None
    density: float | None = None

    def __post_init__(self) -> None:
        for name in ("flops", "params"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise Error(f"Budget.{name}", "a share in [0, 1)", repr(share), "0.6 removes 60 %")
        if self.latency is not None:
            next_step = "give flops or params"
            raise UnsupportedError("Budget.latency", "None, as there are no measured latency tables", repr(self.latency), next_step)
        if self.density is not None:
            if not 0 < self.density <= 1:
                raise Error("Budget.density", "a share in (0, 1]", repr(self.density), "0.2 keeps 20 %")
            if self.flops is not None or self.params is not None:
                raise Error("Budget", "density alone, or flops and params", "both", "density decides every layer by itself")
        elif self.flops is None and self.params is None:
            raise Error("Budget", "flops, params or density", "none", "Budget(flops=0.6) removes 60 % of the multiply-adds")


@dataclass(frozen=True, eq=False)
class Candidates:
    """The blocks of one layer: energy float64 [block rows, K], filters per block row, and what keeping costs.

    `taps`: columns that share a basis step, of the price `basis`; `fixed_params`, `fixed_flops`: what the layer costs whichever are kept.
    """

    name: str
    energy: np.ndarray
    size: np.ndarray
    pixels: float
    basis: float
    taps: int
    fixed_params: int = 0
    fixed_flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Selection:
    """`keep`: one bool [block rows, K] a layer, in the order given; `levels`: the energy per coefficient from which a block of that layer
    is kept; and the cost, basis step included."""

    keep: tuple[np.ndarray, ...]
    levels: tuple[float, ...]
    params: float
    flops: float


@dataclass(frozen=True, eq=False)
class _Ranked:
    """One layer's blocks from the densest energy to the least; ties in an order that the seed decides."""

    order: np.ndarray
    lack: np.ndarray  # minus the energy per coefficient, rising, as bisection wants it
    params: np.ndarray  # [blocks + 1]: coefficients in the first n blocks
    opens: np.ndarray  # the ranks at which a block is the first of its input channel, rising
    floor: int
    pixels: float
    basis: float
    fixed: tuple[float, float]  # parameters, multiply-adds

    def cost(self, blocks: int) -> tuple[float, float]:
        """(parameters, multiply-adds with basis step) of the first `blocks` blocks."""
        params = float(self.params[blocks])
        flops = params * self.pixels + float(self.opens.searchsorted(blocks)) * self.basis
        return params + self.fixed[0], flops + self.fixed[1]

    def above(self, threshold: float) -> int:
        """Number of blocks whose energy per coefficient reaches the threshold; at least the floor."""
        return max(self.floor, int(self.lack.searchsorted(-threshold, side="right")))


def _rank(layer: Candidates, floor: float, generator: np.random.Generator) -> _Ranked:
    size = np.broadcast_to(layer.size[:, None], layer.energy.shape).ravel()
    density = layer.energy.ravel() / size
    order = np.lexsort((generator.permutation(density.size), -density))
    channel = (order % layer.energy.shape[1]) // layer.taps
    _, opens = np.unique(channel, return_index=True)
    params = np.concatenate([[0.0], np.cumsum(size[order])])
    fixed = (float(layer.fixed_params), layer.fixed_flops)
    return _Ranked(order, -density[order], params, np.sort(opens), ceil(floor * density.size), layer.pixels, layer.basis, fixed)


def _cost(ranked: Sequence[_Ranked], blocks: Sequence[int]) -> tuple[float, float]:
    costs = [layer.cost(n) for layer, n in zip(ranked, blocks, strict=True)]
    return sum(params for params, _ in costs), sum(flops for _, flops in costs)


def _bisect(meets: Callable[[float], bool], high: float) -> float:
    """The smallest value in [0, high] for which `meets` holds, to float precision; `meets(high)` must hold."""
    if meets(0.0):
        return 0.0
    low = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _multipliers(ranked: Sequence[_Ranked], params: float, flops: float) -> tuple[float, float]:
    """The smallest (alpha, beta) that meet both bounds; the floors alone must meet them."""
    densest = max((-float(layer.lack[0]) for layer in ranked if layer.lack.size), default=0.0)
    top = np.nextafter(densest, inf) if densest else 1.0
    cheapest = min((layer.pixels for layer in ranked if layer.pixels > 0), default=1.0)

    def cost(alpha: float, beta: float) -> tuple[float, float]:
        return _cost(ranked, [layer.above(alpha + beta * layer.pixels) for layer in ranked])

    def alpha_for(beta: float) -> float:
        return _bisect(lambda alpha: cost(alpha, beta)[0] <= params, float(top))

    beta = _bisect(lambda value: cost(alpha_for(value), value)[1] <= flops, 2 * float(top) / cheapest)
    return alpha_for(beta), beta


def _fill(ranked: Sequence[_Ranked], blocks: list[int], alpha: float, beta: float, params: float, flops: float) -> None:
    """Adds blocks in the order of the rule while both bounds hold: ties at the threshold, and the rest that bisection leaves."""
    used_params, used_flops = _cost(ranked, blocks)
    queue: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        layer = ranked[index]
        if blocks[index] < layer.lack.size:
            gap = alpha + beta * layer.pixels + float(layer.lack[blocks[index]])
            heapq.heappush(queue, (gap, index))

    for index in range(len(ranked)):
        offer(index)
    while queue:
        _, index = heapq.heappop(queue)
        before, after = ranked[index].cost(blocks[index]), ranked[index].cost(blocks[index] + 1)
        more = (after[0] - before[0], after[1] - before[1])
        if used_params + more[0] <= params and used_flops + more[1] <= flops:
            used_params, used_flops = used_params + more[0], used_flops + more[1]
            blocks[index] += 1
            offer(index)


def least_cost(layers: Sequence[Candidates], floor: float = FLOOR, seed: int = 0) -> tuple[float, float]:
    """(parameters, multiply-adds) of the floors alone: no budget below this can be met."""
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, floor, generator) for layer in layers]
    return _cost(ranked, [layer.floor for layer in ranked])


def select(
    layers: Sequence[Candidates], params: float = inf, flops: float = inf, *, floor: float = FLOOR, seed: int = 0, fill: bool = True
) -> Selection:
    """Keeps the blocks of most energy within `params` coefficients and `flops` multiply-adds, both for these layers alone.

    Exact ties are broken by the seed. `fill` uses up what the thresholds leave of the bounds. Raises Error where even the floors exceed a
    bound.
    """
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, floor, generator) for layer in layers]
    least_params, least_flops = _cost(ranked, [layer.floor for layer in ranked])
    if least_params > params or least_flops > flops:
        got = f"{least_params:,.0f} and {least_flops:,.0f} for the {floor:.0%} of blocks that every layer keeps"
        raise Error("budget of the masked layers", f"at most {params:,.0f} coefficients and {flops:,.0f} multiply-adds", got)
    alpha, beta = _multipliers(ranked, params, flops)
    blocks = [layer.above(alpha + beta * layer.pixels) for layer in ranked]
    if fill:
        _fill(ranked, blocks, alpha, beta, params, flops)
    return _selection(layers, ranked, blocks, tuple(alpha + beta * layer.pixels for layer in layers))


def select_share(layers: Sequence[Candidates], density: float, seed: int = 0) -> Selection:
    """Keeps the same share of blocks in every layer, at least one: those of most energy. Exact ties are broken by the seed."""
    generator = np.random.default_rng(seed)
    ranked = [_rank(layer, 0.0, generator) for layer in layers]
    blocks = [max(1, round(density * rank.order.size)) for rank in ranked]
    levels = tuple(-float(rank.lack[n - 1]) for rank, n in zip(ranked, blocks, strict=True))
    return _selection(layers, ranked, blocks, levels)


def _selection(layers: Sequence[Candidates], ranked: Sequence[_Ranked], blocks: Sequence[int], levels: tuple[float, ...]) -> Selection:
    keep = []
    for layer, rank, n in zip(layers, ranked, blocks, strict=True):
        flat = np.zeros(layer.energy.size, dtype=bool)
        flat[rank.order[:n]] = True
        keep.append(flat.reshape(layer.energy.shape))
    return Selection(tuple(keep), levels, *_cost(ranked, blocks))
