"""Rows in groups of r, so that the heaviest columns of the groups hold as much as possible: which filters should share a mask.

    maximise   sum over the kept blocks of their energy,   the kept blocks being the share `density` of the largest, per coefficient

Two steps in turn, each of which can only raise that sum (as in Lloyd's k-means, with a capacity of r a group):

    columns   with the groups fixed, keep the heaviest blocks
    rows      with the kept columns fixed, give the rows to the groups so that the kept energy is largest: a linear assignment problem

The start is greedy: the row of most energy that is left, and the r - 1 others that hold most in that row's own heaviest columns. The order
as it is serves as a second start for narrow layers; the better end wins. Then rows of two groups change places while that helps: at the
energy `level` from which a block is kept, a group is worth the sum over its columns of max(0, energy - level), and the swap of most
worth is made for each pair of groups in turn. No random numbers and no clock: the same energies give the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS, SWEEPS = 30, 20
ROUND_WORK, SWEEP_WORK = 6e10, 8e8
"""Operations of all rounds, and sums compared by all sweeps, that a call may take: some seconds each, and no clock decides."""


@dataclass(frozen=True, eq=False)
class Profile:
    """One layer's energies [rows, K], with how many rows share a block and which share of the blocks is kept."""

    energy: np.ndarray
    block: int
    density: float


def kept_energy(profile: Profile, order: np.ndarray | None = None) -> float:
    """The energy that the kept blocks hold, as a share of all, if the rows stood in this order (None: as they stand)."""
    energy = profile.energy if order is None else profile.energy[order]
    blocks = _blocks(energy, profile.block)
    total = float(blocks.sum())
    return float(blocks[_heaviest(blocks, profile)].sum()) / total if total else 1.0


def cluster(profiles: Sequence[Profile]) -> np.ndarray:
    """The order of the rows, int [rows], that all profiles share (layers whose filters are coupled); blocks are runs of r of it.

    All profiles have as many rows and the same r. They weigh alike: each is scaled to energy 1. Where no order is found that keeps more
    than the present one, that is returned.
    """
    scaled = [Profile(p.energy / (float(p.energy.sum()) or 1.0), p.block, p.density) for p in profiles]
    rows, columns = scaled[0].energy.shape[0], sum(p.energy.shape[1] for p in scaled)
    block = scaled[0].block
    present = np.arange(rows)
    one_round = float(rows) ** 2 * columns / block + 20.0 * float(rows) ** 2 * np.log2(rows + 1)
    rounds = int(min(ROUNDS, max(2.0, ROUND_WORK / one_round)))
    sweeps = int(min(SWEEPS, SWEEP_WORK / (float(rows) ** 2 * columns / 2)))
    starts = [_greedy(scaled, block)] if rounds < ROUNDS else [_greedy(scaled, block), present]
    ends = [_swap(scaled, block, _alternate(scaled, block, start, rounds), sweeps) for start in starts]
    best = _tidy(max(ends, key=lambda order: _value(scaled, order)), block)
    return best if _value(scaled, best) > _value(scaled, present) * (1 + 1e-9) else present


def _value(profiles: Sequence[Profile], order: np.ndarray) -> float:
    return sum(kept_energy(profile, order) for profile in profiles)


def _blocks(energy: np.ndarray, block: int) -> np.ndarray:
    """Energy of each block, [ceil(rows / block), K]."""
    return np.add.reduceat(energy, np.arange(0, energy.shape[0], block), axis=0)


def _heaviest(blocks: np.ndarray, profile: Profile) -> np.ndarray:
    """Which blocks are kept, bool of their shape: those of most energy per coefficient."""
    rows = profile.energy.shape[0]
    size = np.minimum(profile.block, rows - profile.block * np.arange(blocks.shape[0]))
    dense = (blocks / size[:, None]).ravel()
    count = min(dense.size, max(1, round(profile.density * dense.size)))
    keep = np.zeros(dense.size, dtype=bool)
    keep[np.argpartition(-dense, count - 1)[:count]] = True
    return keep.reshape(blocks.shape)


def _greedy(profiles: Sequence[Profile], block: int) -> np.ndarray:
    """Groups of `block` rows: a seed, then those that hold most in the seed's heaviest columns."""
    energies = [profile.energy.astype(np.float32) for profile in profiles]
    left = np.argsort(-sum(energy.sum(1) for energy in energies), kind="stable")
    order: list[int] = []
    while left.size:
        seed = left[0]
        held = np.zeros(left.size, dtype=np.float32)
        for energy, profile in zip(energies, profiles, strict=True):
            count = max(1, round(profile.density * energy.shape[1]))
            columns = np.argpartition(-energy[seed], count - 1)[:count]
            held += energy[np.ix_(left, columns)].sum(1)
        held[0] = np.inf
        chosen = np.argsort(-held, kind="stable")[:block]
        order += left[chosen].tolist()
        left = np.delete(left, chosen)
    return np.array(order)


def _alternate(profiles: Sequence[Profile], block: int, order: np.ndarray, rounds: int) -> np.ndarray:
    """The two steps in turn until neither changes anything, or `rounds` are over."""
    from scipy.optimize import linear_sum_assignment

    value = _value(profiles, order)
    for _ in range(rounds):
        gain = np.zeros((order.size, -(-order.size // block)))
        for profile in profiles:
            keep = _heaviest(_blocks(profile.energy[order], profile.block), profile)
            gain += profile.energy @ keep.T.astype(profile.energy.dtype)
        seats = np.repeat(np.arange(gain.shape[1]), block)[: order.size]
        row, seat = linear_sum_assignment(gain[:, seats], maximize=True)
        moved = np.empty_like(order)
        moved[seat] = row
        after = _value(profiles, moved)
        if after <= value * (1 + 1e-9):
            return order
        order, value = moved, after
    return order


def _swap(profiles: Sequence[Profile], block: int, order: np.ndarray, sweeps: int) -> np.ndarray:
    """Rows of two groups change places while that helps; each sweep looks at every pair of groups once."""
    value = _value(profiles, order)
    energy = np.concatenate([profile.energy for profile in profiles], axis=1).astype(np.float32)
    for _ in range(sweeps):
        moved = order.copy()
        level = _levels(profiles, order).astype(np.float32)
        groups = [moved[i : i + block] for i in range(0, moved.size, block)]  # views: a swap is seen in `moved`
        for i, one in enumerate(groups):
            for other in groups[i + 1 :]:
                _swap_best(energy, level, one, other)
        after = _value(profiles, moved)
        if after <= value * (1 + 1e-9):
            return order
        order, value = moved, after
    return order


def _levels(profiles: Sequence[Profile], order: np.ndarray) -> np.ndarray:
    """For each column of all profiles the energy per coefficient of the least block that its layer keeps."""
    levels = []
    for profile in profiles:
        blocks = _blocks(profile.energy[order], profile.block)
        size = np.minimum(profile.block, order.size - profile.block * np.arange(blocks.shape[0]))
        least = (blocks / size[:, None])[_heaviest(blocks, profile)].min()
        levels.append(np.full(blocks.shape[1], least))
    return np.concatenate(levels)


def _swap_best(energy: np.ndarray, level: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Exchanges the row of `one` and that of `other` whose exchange is worth most, in place, if it is worth anything."""
    mine, theirs = energy[one], energy[other]  # [r, K]
    sums = mine.sum(0) - level * one.size, theirs.sum(0) - level * other.size
    now = np.maximum(sums[0], 0).sum() + np.maximum(sums[1], 0).sum()
    change = theirs[None] - mine[:, None]  # [r, r, K]
    worth = np.maximum(sums[0] + change, 0).sum(2) + np.maximum(sums[1] - change, 0).sum(2)
    i, j = np.unravel_index(int(worth.argmax()), worth.shape)
    if worth[i, j] > now * (1 + 1e-5):  # beyond the rounding of float32
        one[i], other[j] = other[j], one[i]


def _tidy(order: np.ndarray, block: int) -> np.ndarray:
    """The same groups, each in rising order, whole ones in order of their first row: what is the same network looks the same."""
    groups = [np.sort(order[i : i + block]) for i in range(0, order.size, block)]
    whole = [group for group in groups if group.size == block]
    return np.concatenate([*sorted(whole, key=lambda group: int(group[0])), *(group for group in groups if group.size < block)])
