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

Refused (UnsupportedError): what conv_basis.py refuses, and layers of which the maps of four chunks, beside the runs of
channels that they are made from, exceed a block's shared memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from cosparse.errors import UnsupportedError
from cosparse.kernels.gpu.conv_basis import ROWS, SCALES, check_groups, check_planes
from cosparse.kernels.gpu.cuda_library import DTYPES, call, fields, left_operand
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes

COLUMNS = 16
"""Of a step, the depth of a matrix instruction."""

BANKS = 8
"""Slots whose rows of 16 bytes lie in different banks of shared memory; as many rows are gathered at once."""

RING = 4
"""Chunks of maps in shared memory."""

EARLIER = 0x8000
"""Added to the slot of a column whose map is of the chunk before."""

ROOM = {8: 149 << 10, 4: 190 << 10}
"""By channels of a chunk and group: bytes of shared memory that maps may take. Runs of images up to 56 wide fit beside them on an H200."""


@dataclass(frozen=True)
class Variant:
    """One way to cut the work: `team` groups of 64 filters share maps; `across` warps of each have 32 pixels."""

    team: int
    across: int

    @property
    def name(self) -> str:
        return f"{ROWS * self.team}/{self.pixels}px"

    @property
    def pixels(self) -> int:
        """Of a block's tile."""
        return 32 * self.across


VARIANTS = (Variant(1, 4), Variant(2, 4), Variant(1, 8), Variant(4, 4), Variant(2, 8), Variant(1, 16))
"""What a planner measures, those of few pixels first."""


@dataclass(frozen=True, eq=False)
class PackedShared:
    """A layer's coefficients as the kernel reads them (csrc/cuda/conv_shared.h), for teams of `team` groups."""

    team: int
    filters: int
    channels: int
    chunks: int
    visits: int  # channels of a chunk
    slots_of_chunk: int
    weights: torch.Tensor  # [steps + 1, 1024]
    slots: torch.Tensor  # int16 [steps + 1, 16]
    visited: torch.Tensor  # int32 [teams, chunks, visits, 2]: channel, slot + 65536 mask
    starts: torch.Tensor  # int32 [teams, team, chunks + 1]

    @property
    def bytes(self) -> int:
        """What the GPU holds of it."""
        return sum(t.numel() * t.element_size() for t in (self.weights, self.slots, self.visited, self.starts))


def pack(groups: Groups, channels: int, dtype: torch.dtype, device: torch.device | str, team: int) -> PackedShared:
    """`groups` of 64 filters over channels x 9 columns, `team` of them sharing maps."""
    check_groups("conv_shared", groups, channels, dtype)
    bounds = groups.starts.tolist()
    wanted = [groups.columns[start:stop] for start, stop in pairwise(bounds)]
    visits, teams = _teams([wanted[at : at + team] for at in range(0, len(wanted), team)], channels, team)
    chunks = max(1, *(len(one.chunks) for one in teams))
    most = max(one.slots for one in teams)
    most += most % 2  # chunks then differ by the same banks all around the ring
    visited = np.zeros((len(teams), chunks, visits, 2), np.int32)
    starts = np.zeros((len(teams), team, chunks + 1), np.int32)
    places: list[np.ndarray] = []  # of each step: index into `groups.columns`, or ~index where its weights are zeros
    slots: list[np.ndarray] = []
    for t, one in enumerate(teams):
        for c, chunk in enumerate(one.chunks):
            visited[t, c, : len(chunk)] = chunk
        for g in range(len(one.groups)):
            first = bounds[t * team + g]
            starts[t, g] = len(places)
            for c, steps in enumerate(one.steps(g, most)):
                places += [np.where(place < 0, place - first, place + first) for place, _ in steps]
                slots += [slot for _, slot in steps]
                starts[t, g, c + 1 :] = len(places)
    place = np.array(places, np.int64).reshape(-1, COLUMNS)
    named = np.array([*slots, np.zeros(COLUMNS)], np.uint16).view(np.int16)
    tables = (torch.from_numpy(array).to(device) for array in (named, visited, starts))
    weights = torch.from_numpy(_weights(groups, place)).to(dtype).to(device)
    return PackedShared(team, groups.filters, channels, chunks, visits, most, weights, *tables)


def _weights(groups: Groups, place: np.ndarray) -> np.ndarray:
    """Of steps of columns, ~index where they count for nothing, the fragments [steps + 1, 1024], scaled; the last one is zeros."""
    if not len(groups.columns):
        return np.zeros((1, COLUMNS * ROWS), np.float32)
    scale = np.outer(SCALES, SCALES).reshape(9)
    values = groups.values.astype(np.float64) * scale[groups.columns % 9, None]
    weights = np.where(place[..., None] < 0, 0, values[np.where(place < 0, ~place, place)]).astype(np.float32)
    return np.concatenate([left_operand(weights), np.zeros((1, COLUMNS * ROWS), np.float32)])


def _teams(wanted: Sequence[Sequence[np.ndarray]], channels: int, team: int) -> tuple[int, list[_Team]]:
    """Channels of a chunk, as many as there is room for, and the teams in such chunks."""
    stride = 64 * (16 // team) + 16  # of a slot, in the largest tile
    for each, room in ROOM.items():
        teams = [_Team(columns, channels, each * team) for columns in wanted]
        if max(one.slots for one in teams) * stride * RING <= room:
            break
    return each * team, teams


class _Team:
    """What groups that share maps want: the channels in chunks, where each map lies, and each group's columns in steps."""

    def __init__(self, groups: Sequence[np.ndarray], channels: int, visits: int) -> None:
        self.groups = groups
        columns = np.concatenate([*groups])
        used, mine = np.unique(columns // 9, return_inverse=True)
        union: np.ndarray = np.zeros((max(1, len(used)), 9), bool)
        union[mine, columns % 9] = True
        first = np.arange(len(union)) // visits * visits
        before = np.concatenate([[0], union.sum(1).cumsum()])
        slot = before[:-1] - before[first]  # of each channel's first map: a chunk's lie side by side
        self.slots = max(1, int((slot + union.sum(1)).max()))
        self.place = np.zeros((2, channels, 9), np.int64)  # of each map its slot and chunk
        self.place[0, used] = (slot[:, None] + union.cumsum(1) - 1)[: len(used)]
        self.place[1, used] = (first // visits)[: len(used), None]
        words = np.stack([used, (slot + (union << np.arange(9)).sum(1) * 65536)[: len(used)]], 1)
        self.chunks = [words[at : at + visits] for at in range(0, len(used), visits)]

    def steps(self, group: int, slots_of_chunk: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Of each chunk the steps that can be done once its maps are there: sixteen indices into the group's columns, ~index where one is
        read again for nothing, and their slots. What a chunk leaves over the next one takes whole."""
        columns = self.groups[group]
        slot, chunk = self.place.reshape(2, -1)[:, columns]
        made = []
        old = np.zeros(0, np.int64)
        for c in range(len(self.chunks)):
            fresh = np.flatnonzero(chunk == c)
            count = len(old) + len(fresh)
            steps = -(-count // COLUMNS) if c + 1 == len(self.chunks) else max(count // COLUMNS, int(len(old) > 0))
            later = _most_crowded(fresh, slot % BANKS, max(0, count - COLUMNS * steps))
            now = np.concatenate([old, fresh[~np.isin(fresh, later)]])
            sets = _dealt(now, (slot - np.where(chunk == c, 0, slots_of_chunk)) % BANKS, 2 * steps)
            names = slot + np.where(chunk == c, 0, EARLIER)
            made.append([(place, names[np.where(place < 0, ~place, place)]) for place in sets])
            old = later
        return made


def _most_crowded(columns: np.ndarray, bank: np.ndarray, count: int) -> np.ndarray:
    """So many of the columns, of the banks that most of them are in."""
    left = [columns[bank[columns] == b].tolist() for b in range(BANKS)]
    return np.sort(np.array([max(left, key=len).pop() for _ in range(count)], np.int64))


def _dealt(columns: np.ndarray, bank: np.ndarray, sets: int) -> list[np.ndarray]:
    """The columns in steps of two sets of eight, which are gathered at once: those of one bank go to all sets in turn. A set that is not
    full reads one of its own again."""
    ordered = columns[np.argsort(bank[columns], kind="stable")]
    found = []
    for at in range(0, sets, 2):
        halves = []
        for half in (ordered[at::sets], ordered[at + 1 :: sets]):
            again = half[:1] if len(half) else ordered[:1]
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
        *fields(ctypes.c_int32, "dtype groups chunks visits slots_of_chunk across backwards"),
    ]


def launch(packed: PackedShared, x: Planes, out: Planes, epilogue: Epilogue, variant: Variant, backwards: bool = False) -> None:
    """Runs the kernel on torch's current stream; `backwards`, the last pixels first. `variant` is of the team that was packed for."""
    if variant.team != packed.team:
        raise UnsupportedError("conv_shared", f"a variant for teams of {packed.team}", variant.name, "pack for its team")
    check_planes("conv_shared", packed.channels, packed.filters, packed.weights, x, out, epilogue)
    residual, bias = epilogue.residual, epilogue.bias
    args = _Args(
        *(x.data.data_ptr(), residual.data.data_ptr() if residual else None, out.data.data_ptr()),
        None if bias is None else bias.data_ptr(),
        *(t.data_ptr() for t in (packed.weights, packed.slots, packed.visited, packed.starts)),
        *(x.stride, residual.stride if residual else 0, out.stride),
        *(x.shape[0], *x.shape[2:], packed.filters),
        *(ACTS[epilogue.act], epilogue.alpha, epilogue.beta, DTYPES[x.data.dtype]),
        *(packed.team, packed.chunks, packed.visits, packed.slots_of_chunk, variant.across, backwards),
    )
    call("conv_shared", args, x.data.device, f"variant {variant.name}, x {x.shape}")
