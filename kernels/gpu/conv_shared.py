"""conv 3x3 in the DCT's domain, on tensor cores, with maps that several groups of filters share (csrc/cuda/conv_shared.cu, CUDA C++).

    y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p])       k = (c 3 + u) 3 + v
    xhat   = D_u D_v of the nine taps of pixel p in channel c, as in kernels/basis.py; never in global memory

    x         Planes [N, C, H, W]     float16 or bfloat16; zeros outside the image
    out       Planes [N, O, H, W]     the same dtype; numbers behind a row's last pixel may be written
    residual  Planes like out, or None; bias float32 [O] or None; act one of ACTIVATIONS
    S         Groups of 64 filters (groups.py), with the basis' scales 1/sqrt 3, 1/sqrt 2, 1/sqrt 6 folded in, then rounded to x's dtype

A team of one, two or four groups is worked on together: of each channel the maps that some group of it wants are made once, by additions,
in shared memory, and each group gathers its own from there. The numbers and their bound are those of conv_basis.py:

    |y - exact| <= (6 e + 2^-23 (K + 4)) sum over k of |S[o,k]| a[k,p] + e |y|       a: maps of |x| by the absolute values of the basis

A map is at most 16 max |x|, and float16 ends at 65504: beyond max |x| = 4094 a map may be infinite. bfloat16 has no such limit.

Refused (UnsupportedError): what conv_basis.py refuses, and layers of which two chunks, runs of channels, maps and weights, exceed a block's
shared memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from cosparse.kernels.gpu.conv_basis import ROWS, SCALES, check_groups, check_planes
from cosparse.kernels.gpu.cuda_library import DTYPES, call, fields, right_operand
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes

COLUMNS = 16
"""Of a step, the depth of a matrix instruction."""

BANKS = 8
"""Slots whose rows of 16 bytes lie in different banks of shared memory; as many rows are gathered at once."""

PART, WARPS = 128, 16
"""Pixels of a group that four warps have; of a block's sixteen warps all such fours have other pixels or another group."""

CHANNELS, MOST_CHANNELS = (16, 8, 4, 2), 32
"""Of a chunk, for each group of a team, the most that there is room for; and for all."""

WIDEST = {1: 56, 2: 28, 4: 28}
"""By groups of a team: how wide images are whose runs have to fit beside maps and weights; wider ones may."""

ROOM = 100 << 10
"""Bytes of shared memory that a chunk may take, two of which are in an H200's."""

STEP, ROUND, TURN = 300, 400, 150
"""Cycles of a multiprocessor that a step of all groups takes, maps that each of sixteen warps makes of a channel, and a chunk beside
these: what `_spread` weighs."""

TEAMS = (4, 2, 1)
"""Groups of 64 filters that share maps, those of few pixels first; a planner measures the largest that a layer fills."""


def pixels(team: int) -> int:
    """Of a block's tile."""
    return 4 * PART // team


def name(team: int) -> str:
    return f"{ROWS * team}/{pixels(team)}px"


@dataclass(frozen=True, eq=False)
class PackedShared:
    """A layer's coefficients as the kernel reads them (csrc/cuda/conv_shared.h), for teams of `team` groups."""

    team: int
    filters: int
    channels: int
    chunks: int
    visits: int  # channels of a chunk
    slots_of_chunk: int
    steps_of_chunk: int
    weights: torch.Tensor  # [steps, team, 1024]
    slots: torch.Tensor  # int16 [steps, team, 16]
    visited: torch.Tensor  # int32 [teams, chunks, visits, 2]: channel, slot + 65536 mask
    starts: torch.Tensor  # int32 [teams, chunks + 1]

    @property
    def bytes(self) -> int:
        """What the GPU holds of it."""
        return sum(t.numel() * t.element_size() for t in (self.weights, self.slots, self.visited, self.starts))


def pack(groups: Groups, channels: int, dtype: torch.dtype, device: torch.device | str, team: int) -> PackedShared:
    """`groups` of 64 filters over channels x 9 columns, `team` of them sharing maps."""
    check_groups("conv_shared", groups, channels, dtype)
    bounds = groups.starts.tolist()
    wanted = [groups.columns[start:stop] for start, stop in pairwise(bounds)]
    wanted += [wanted[0][:0]] * (-len(wanted) % team)  # the last team has as many, some of none
    bounds += bounds[-1:] * (len(wanted) + 1 - len(bounds))
    visits, teams = _teams([wanted[at : at + team] for at in range(0, len(wanted), team)], channels, team)
    chunks, most = max(len(one.chunks) for one in teams), max(one.slots for one in teams)
    visited = np.zeros((len(teams), chunks, visits, 2), np.int32)
    starts = np.zeros((len(teams), chunks + 1), np.int32)
    places: list[np.ndarray] = []  # of each step and group: index into `groups.columns`, or -1 where its weights are zeros
    slots: list[np.ndarray] = []
    for t, one in enumerate(teams):
        starts[t] = len(places)
        for c, chunk in enumerate(one.chunks):
            visited[t, c, : len(chunk)] = chunk
            steps = [one.steps(g, c, most, bounds[t * team + g]) for g in range(team)]
            places += [np.stack([place for place, _ in step]) for step in zip(*steps, strict=True)]
            slots += [np.stack([slot for _, slot in step]) for step in zip(*steps, strict=True)]
            starts[t, c + 1 :] = len(places)
    place = np.array(places, np.int64).reshape(-1, COLUMNS)
    named = np.array(slots, np.uint16).reshape(-1, team, COLUMNS).view(np.int16)
    tables = (torch.from_numpy(array).to(device) for array in (named, visited, starts))
    weights = torch.from_numpy(_weights(groups, place).reshape(-1, team, COLUMNS * ROWS)).to(dtype).to(device)
    steps_of_chunk = int(np.diff(starts).max(initial=0))
    return PackedShared(team, groups.filters, channels, chunks, visits, most, steps_of_chunk, weights, *tables)


def _weights(groups: Groups, place: np.ndarray) -> np.ndarray:
    """Of steps of columns, -1 where they count for nothing, the right operands [steps, 1024], scaled."""
    if not len(groups.columns):
        return np.zeros((len(place), COLUMNS * ROWS), np.float32)
    scale = np.outer(SCALES, SCALES).reshape(9)
    values = groups.values.astype(np.float64) * scale[groups.columns % 9, None]
    return right_operand(np.where(place[..., None] < 0, 0, values[np.where(place < 0, 0, place)]).astype(np.float32))


def _teams(wanted: Sequence[Sequence[np.ndarray]], channels: int, team: int) -> tuple[int, list[_Team]]:
    """Channels of a chunk, as many as there is room for, and the teams in such chunks."""
    for each in CHANNELS:
        teams = [_Team(columns, channels, min(each * team, MOST_CHANNELS)) for columns in wanted]
        if max(one.bytes for one in teams) <= ROOM:
            break
    most = max(len(chunk) for one in teams for chunk in one.chunks)
    return max(2, most + most % 2), teams


def _spread(counts: np.ndarray, visits: int, parts: int) -> np.ndarray:
    """The chunk of each channel, of which group g has counts[channel, g] columns: at most `visits` a chunk, and so that the most columns
    that some group has in a chunk fill its steps, and its channels, in `parts` of the pixels, the warps. One by one, those of most columns
    first, to where most is left."""
    best, least = np.zeros(len(counts), np.int64), np.inf
    fewest = -(-len(counts) // visits)
    for chunks in range(fewest, fewest + fewest // 3 + 1):
        chunk, load, room = np.zeros(len(counts), np.int64), np.zeros((chunks, counts.shape[1])), np.full(chunks, visits)
        for i in np.argsort(-counts.sum(1), kind="stable"):
            at = int(np.where(room > 0, ((load + counts[i]) ** 4).sum(1), np.inf).argmin())
            chunk[i], room[at] = at, room[at] - 1
            load[at] += counts[i]
        rounds = np.ceil((visits - room) * parts / WARPS)
        cost = float((np.ceil(load.max(1) / COLUMNS) * STEP + rounds * ROUND + TURN).sum())
        if cost < least:
            best, least = chunk, cost
    return best


class _Team:
    """What groups that share maps want: the channels in chunks, where each map lies, and each group's columns in steps."""

    def __init__(self, groups: Sequence[np.ndarray], channels: int, visits: int) -> None:
        self.groups = groups
        columns = np.concatenate([*groups])
        used, mine = np.unique(columns // 9, return_inverse=True)
        union: np.ndarray = np.zeros((len(used), 9), bool)
        union[mine, columns % 9] = True
        bounds = np.cumsum([0, *map(len, groups)])
        counts = np.stack([np.bincount(mine[a:b], minlength=len(used)) for a, b in pairwise(bounds)], 1)
        chunk = _spread(counts, visits, pixels(len(groups)) // PART)
        self.place = np.zeros((2, channels, 9), np.int64)  # of each map its slot and chunk
        self.place[1, used] = chunk[:, None]
        self.slots, self.chunks = 1, []
        for c in range(max(chunk, default=0) + 1):
            at = np.flatnonzero(chunk == c)
            slot = np.concatenate([[0], union[at].sum(1).cumsum()])  # of each channel's first map: they lie side by side
            self.place[0, used[at]] = slot[:-1, None] + union[at].cumsum(1) - 1
            self.chunks.append(np.stack([used[at], slot[:-1] + (union[at] << np.arange(9)).sum(1) * 65536], 1))
            self.slots = max(self.slots, int(slot[-1]))

    @property
    def bytes(self) -> int:
        """Of shared memory, that the largest chunk takes."""
        team = len(self.groups)
        runs = (pixels(team) + 2 * (WIDEST[team] + 8)) * 2 * max(map(len, self.chunks))
        weights = max(map(self.steps_of, range(len(self.chunks)))) * team * COLUMNS * (2 * ROWS + 2)
        return runs + weights + (self.slots + 1) * (2 * pixels(team) + 16)

    def _of_chunk(self, group: int, chunk: int) -> np.ndarray:
        return np.flatnonzero(self.place[1].reshape(-1)[self.groups[group]] == chunk)

    def steps_of(self, chunk: int) -> int:
        """As many for all groups: those who have fewer would wait for the others."""
        return -(-max(len(self._of_chunk(g, chunk)) for g in range(len(self.groups))) // COLUMNS)

    def steps(self, group: int, chunk: int, zeros: int, first: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The steps of a chunk: sixteen of `first` + index into the group's columns, -1 where weights are zeros, and their slots; `zeros`
        is one of zeros, for a group that wants nothing there: a map of others could be NaN."""
        columns, slot = self._of_chunk(group, chunk), self.place[0].reshape(-1)[self.groups[group]]
        sets = _dealt(columns, slot % BANKS, 2 * self.steps_of(chunk))
        names = np.append(slot, zeros)
        return [(np.where(place < 0, -1, place + first), names[np.where(place < 0, ~place, place)]) for place in sets]


def _dealt(columns: np.ndarray, bank: np.ndarray, sets: int) -> list[np.ndarray]:
    """The columns in steps of two sets of eight, which are gathered at once: those of one bank go to all sets in turn. A set that is not
    full reads one of its own again, as ~column; where there is none, ~len(bank)."""
    ordered = columns[np.argsort(bank[columns], kind="stable")]
    found = []
    for at in range(0, sets, 2):
        halves = []
        for half in (ordered[at::sets], ordered[at + 1 :: sets]):
            again = half[:1] if len(half) else ordered[:1] if len(ordered) else np.array([len(bank)])
            halves += [half, np.repeat(~again, BANKS - len(half))]
        found.append(np.concatenate(halves))
    return found


class _Args(ctypes.Structure):
    """cosparse_conv_shared_args."""

    _fields_ = [
        *fields(ctypes.c_void_p, "x residual y bias weights slots visited starts"),
        *fields(ctypes.c_int64, "x_stride residual_stride y_stride"),
        *fields(ctypes.c_int32, "images height width filters act"),
        *fields(ctypes.c_float, "alpha beta"),
        *fields(ctypes.c_int32, "dtype groups chunks visits slots_of_chunk steps_of_chunk backwards"),
    ]


def launch(packed: PackedShared, x: Planes, out: Planes, epilogue: Epilogue, backwards: bool = False) -> None:
    """Runs the kernel on torch's current stream; `backwards`, the last pixels first."""
    check_planes("conv_shared", packed.channels, packed.filters, packed.weights, x, out, epilogue)
    residual, bias = epilogue.residual, epilogue.bias
    args = _Args(
        *(x.data.data_ptr(), residual.data.data_ptr() if residual else None, out.data.data_ptr()),
        None if bias is None else bias.data_ptr(),
        *(t.data_ptr() for t in (packed.weights, packed.slots, packed.visited, packed.starts)),
        *(x.stride, residual.stride if residual else 0, out.stride),
        *(x.shape[0], *x.shape[2:], packed.filters),
        *(ACTS[epilogue.act], epilogue.alpha, epilogue.beta, DTYPES[x.data.dtype]),
        *(packed.team, packed.chunks, packed.visits, packed.slots_of_chunk, packed.steps_of_chunk, backwards),
    )
    call("conv_shared", args, x.data.device, f"{name(packed.team)}, x {x.shape}")
