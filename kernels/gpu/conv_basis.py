"""conv 3x3 in the DCT's domain, on tensor cores: the basis step and the product in one kernel in CUDA C++ (csrc/cuda/conv_basis.cu).

    y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p])       k = (c 3 + u) 3 + v
    xhat   = D_u D_v of the nine taps of pixel p in channel c, as in kernels/basis.py; never in global memory

    x         Planes [N, C, H, W]     float16 or bfloat16; any stride, dilation and padding; zeros outside the image
    out       Planes [N, O, Ho, Wo]   the same dtype; numbers behind a row's last pixel may be written
    residual  Planes like out, or None; bias float32 [O] or None; act one of ACTIVATIONS
    S         Groups of 64 filters (groups.py), with the basis' scales 1/sqrt 3, 1/sqrt 2, 1/sqrt 6 folded in, then rounded to x's dtype

Numbers: the basis vectors are (1,1,1), (1,0,-1), (1,-2,1), so maps are sums of x alone, rounded to the dtype after the horizontal
and after the vertical half, two roundings an axis; products are summed in float32. With e the dtype's unit roundoff (2^-11 or 2^-8):

    |y - exact| <= (6 e + 2^-23 (K + 4)) sum over k of |S[o,k]| a[k,p] + e |y|       a: maps of |x| by the absolute values of the basis

A map is at most 16 max |x|, and float16 ends at 65504: beyond max |x| = 4094 a map may be infinite. bfloat16 has no such limit.

Fast: stride 1, and padding = dilation = 1 or an even number, both ways. Any other window, and rows so wide that their copies exceed
shared memory, take a slower basis step. Refused (UnsupportedError): kernels other than 3x3, grouped convolutions, transformed channels or
filters, transforms other than dct, other activations, other dtypes, planes of 2^31 numbers, a missing library.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cosparse
from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes

ROWS = 64
"""Filters of a group, and so of a warp's tile."""

COUNTERS = 8192
"""Tiles times sets that a variant with slices may have at most; it is for layers of few pixels."""

ACTIVATIONS = ("none", "relu", "clip", "leaky_relu", "sigmoid", "silu", "hardswish", "hardsigmoid")

SCALES = np.array([1 / 3, 1 / 2, 1 / 6]) ** 0.5
"""What makes (1,1,1), (1,0,-1), (1,-2,1) orthonormal."""

INTERFACE = 1
"""COSPARSE_CUDA_INTERFACE of csrc/cuda/conv_basis.h: what pack() packs for."""

_DTYPES = {torch.float16: 0, torch.bfloat16: 1}


@dataclass(frozen=True)
class Variant:
    """One way to cut the work. The first four name a compiled kernel: groups and pixels of a block, pixels of a warp, warps that share a
    group's columns. `channels` and `rows` bound a chunk: channels whose copies, and maps that lie in shared memory at once. `slices` blocks
    share a tile's chunks, for layers of few pixels; they need a workspace."""

    groups: int
    pixels: int
    wide: int
    split: int = 1
    channels: int = 16
    rows: int = 144
    slices: int = 1

    @property
    def name(self) -> str:
        return f"g{self.groups}p{self.pixels}w{self.wide}s{self.split}c{self.channels}r{self.rows}z{self.slices}"


VARIANTS = (
    Variant(1, 64, 32, 4, channels=32),
    Variant(1, 64, 32, 4, channels=16, slices=4),
    Variant(1, 64, 32, 4, channels=16, slices=8),
    Variant(1, 64, 32, 4, channels=16, slices=16),
    Variant(2, 64, 32, 2, channels=32),
    Variant(2, 64, 32, 2, channels=16, slices=8),
    Variant(4, 64, 32, 1, channels=32),
    Variant(4, 64, 32, 1, channels=16, slices=8),
    Variant(1, 128, 32, 1, channels=16, rows=96),
    Variant(1, 128, 32, 1, channels=32, rows=96),
    Variant(1, 128, 32, 2, channels=32),
    Variant(2, 128, 32, 1, channels=16, rows=96),
    Variant(2, 128, 32, 1, channels=32),
    Variant(1, 256, 64, 1, channels=16, rows=96),
    Variant(1, 256, 64, 1, channels=32, rows=96),
    Variant(2, 128, 64, 2, channels=32),
    Variant(4, 128, 32, 1, channels=32),
    Variant(4, 128, 64, 1, channels=16),
    Variant(4, 128, 64, 1, channels=32),
    Variant(4, 128, 64, 1, channels=32, rows=240),
    Variant(2, 256, 64, 1, channels=32),
)
"""What a planner measures. The first ones suit few pixels, the last many."""


@dataclass(frozen=True, eq=False)
class PackedBasis:
    """A layer's coefficients as the kernel reads them (csrc/cuda/conv_basis.h), for one variant."""

    variant: Variant
    filters: int
    channels: int
    sets: int
    most_channels: int
    most_rows: int
    weights: torch.Tensor
    rows: torch.Tensor
    steps: torch.Tensor
    chunks: torch.Tensor
    firsts: torch.Tensor
    entries: torch.Tensor
    spaces: dict[int, torch.Tensor] = field(default_factory=dict)  # that launches without one made, by size

    @property
    def bytes(self) -> int:
        """What the GPU holds of it."""
        tensors = (self.weights, self.rows, self.steps, self.chunks, self.firsts, self.entries)
        return sum(t.numel() * t.element_size() for t in tensors)


def supports(node: Node) -> str:
    """Why the kernel cannot run a node; '' if it can."""
    attrs = node.attrs
    if node.op != "conv" or list(attrs["kernel"]) != [3, 3]:
        return "not a 3x3 convolution"
    if attrs["groups"] != 1:
        return "a grouped convolution"
    if any(f"{axis}_tile" in attrs for axis in ("channels", "filters")):
        return "transformed channels or filters"
    return "" if attrs["transform"] == "dct" else f"transform {attrs['transform']}, not dct"


def pack(groups: Groups, channels: int, dtype: torch.dtype, device: torch.device | str, variant: Variant) -> PackedBasis:
    """`groups` of 64 filters over channels x 9 columns, ordered for `variant`."""
    if groups.rows != ROWS or groups.columns_total != channels * 9:
        expected, got = (f"groups of {r} filters over {k} columns" for r, k in ((ROWS, channels * 9), (groups.rows, groups.columns_total)))
        raise UnsupportedError("packing for conv_basis", expected, got, "group the coefficients by conv_basis.ROWS")
    if dtype not in _DTYPES:
        raise UnsupportedError("packing for conv_basis", "float16 or bfloat16", str(dtype), "choose one of these")
    scale = np.outer(SCALES, SCALES).reshape(9)
    values = (groups.values.astype(np.float64) * scale[groups.columns % 9, None]).astype(np.float32)
    places: list[np.ndarray] = []  # of each step's columns: index into `columns`, -1 where there is none; and the row of maps
    rows: list[np.ndarray] = []
    steps, chunks, firsts, entries = [0], [0], [0], []
    starts = groups.starts.tolist()
    sets = -(-len(groups) // variant.groups)
    for s in range(sets):
        members = [(starts[g], starts[g + 1]) if g < len(groups) else (0, 0) for g in range(s * variant.groups, (s + 1) * variant.groups)]
        wanted = np.zeros((channels, 9), bool)
        for start, stop in members:
            wanted.reshape(-1)[groups.columns[start:stop]] = True
        chunk_of, row_of = np.full(channels, -1), np.full(channels * 9, -1)
        found = _chunks(wanted.sum(1), variant)
        for c, chunk in enumerate(found):
            first = 0
            for channel in chunk.tolist():
                maps = [u * 3 + v for v in range(3) for u in range(3) if wanted[channel, u * 3 + v]]
                row_of[channel * 9 + np.array(maps)] = np.arange(first, first + len(maps))
                entries.append((channel, sum(1 << m for m in maps) | first << 16))
                first += len(maps)
            chunk_of[chunk] = c
            firsts.append(len(entries))
        chunks.append(len(firsts) - 1)
        for start, stop in members:
            row, chunk = row_of[groups.columns[start:stop]], chunk_of[groups.columns[start:stop] // 9]
            for c in range(len(found)):
                order = _apart(np.flatnonzero(chunk == c), row)
                padding = -len(order) % 16
                places.append(np.concatenate([start + order, np.full(padding, -1)]))
                rows.append(row[np.concatenate([order, order[:1].repeat(padding)])])
                steps.append(steps[-1] + (len(order) + padding) // 16)
    beyond = 16 * variant.split  # the kernel asks for a step's weights while it is at the one before
    places.append(np.full(beyond, -1))
    rows.append(np.zeros(beyond, int))
    place = np.concatenate(places).astype(np.int64)
    matrix = np.concatenate([values, np.zeros((1, ROWS), np.float32)])[place].reshape(-1, 16, ROWS)  # -1 is the row of zeros
    counts = np.diff(firsts)
    ends = np.cumsum([bin(e[1] & 511).count("1") for e in entries]) if entries else np.zeros(0, int)
    first_rows = np.concatenate([[0], ends])[firsts]

    def tensor(numbers: Any, kind: type) -> torch.Tensor:
        array: np.ndarray = np.ascontiguousarray(numbers, kind)
        return torch.from_numpy(array if array.size else np.zeros(16, kind)).to(device)

    return PackedBasis(
        variant,
        groups.filters,
        channels,
        sets,
        int(counts.max(initial=0)),
        int(np.diff(first_rows).max(initial=0)),
        tensor(_fragments(matrix), np.float32).to(dtype),
        tensor(np.concatenate(rows), np.uint16),
        tensor(steps, np.int32),
        tensor(chunks, np.int32),
        tensor(firsts, np.int32),
        tensor(np.array(entries, np.int64).reshape(-1, 2), np.int32),
    )


def _chunks(maps: np.ndarray, variant: Variant) -> list[np.ndarray]:
    """Channels that have maps, in as few chunks as the variant's bounds allow, of about as many maps each."""
    used = np.flatnonzero(maps)

    def cut(most: int) -> list[list[int]]:
        found: list[list[int]] = []
        rows = 0
        for channel in used.tolist():
            if not found or len(found[-1]) == variant.channels or rows + maps[channel] > most:
                found.append([])
                rows = 0
            found[-1].append(channel)
            rows += int(maps[channel])
        return found

    fewest = len(cut(variant.rows))
    most = max(9, -(-int(maps.sum()) // max(1, fewest)))
    while most < variant.rows and len(cut(most)) > fewest:
        most += 1
    return [np.array(chunk) for chunk in cut(min(most, variant.rows))]


def _apart(which: np.ndarray, row: np.ndarray) -> np.ndarray:
    """`which` ordered so that, as far as they suffice, eight consecutive rows lie in different banks: their numbers differ modulo 8."""
    classes: list[list[int]] = [[] for _ in range(8)]
    for i in which.tolist():
        classes[row[i] % 8].append(i)
    order: list[int] = []
    while len(order) < len(which):
        fullest = sorted((c for c in range(8) if classes[c]), key=lambda c: -len(classes[c]))
        taken = [classes[c].pop(0) for c in fullest]
        while len(taken) < 8 and any(classes):
            taken.append(max(classes, key=len).pop(0))
        order += taken
    return np.array(order, np.int64)


def _fragments(matrix: np.ndarray) -> np.ndarray:
    """[steps, 16 columns, 64 filters] in the order of mma's first operand: [steps, 4, 32 lanes, 8]."""
    lane, i = np.arange(32)[:, None], np.arange(8)[None, :]
    filters = lane // 4 + i // 2 % 2 * 8
    columns = lane % 4 * 2 + i % 2 + i // 4 * 8
    tiles = matrix.reshape(len(matrix), 16, 4, 16)  # [steps, column, tile, filter]
    return tiles.transpose(0, 2, 1, 3)[:, :, columns, filters]


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Args(ctypes.Structure):
    """struct cosparse_conv_basis_args."""

    _fields_ = [
        *_fields(ctypes.c_void_p, "x residual y bias weights rows steps chunks firsts entries workspace"),
        *_fields(ctypes.c_int64, "x_stride residual_stride y_stride"),
        *_fields(ctypes.c_int32, "images height width out_height out_width filters"),
        *_fields(ctypes.c_int32, "stride_h stride_w dilation_h dilation_w pad_top pad_left act"),
        *_fields(ctypes.c_float, "alpha beta"),
        *_fields(ctypes.c_int32, "dtype groups pixels wide split slices sets most_channels most_rows"),
    ]


def library_path() -> Path:
    """COSPARSE_CUDA_LIBRARY, or _cuda.so beside the package."""
    return Path(os.environ.get("COSPARSE_CUDA_LIBRARY") or Path(cosparse.__file__).parent / "_cuda.so")


@cache
def _load(path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        next_step = "build it with `python -m cosparse.kernels.gpu.build`, or name it with COSPARSE_CUDA_LIBRARY"
        raise UnsupportedError(f"{path}", "the library of CUDA kernels", str(error), next_step) from error
    interface = loaded.cosparse_cuda_interface() if hasattr(loaded, "cosparse_cuda_interface") else 0
    if interface != INTERFACE:
        raise UnsupportedError(f"{path}", f"CUDA kernels of interface {INTERFACE}", f"interface {interface}", "build it from these sources")
    loaded.cosparse_conv_basis.argtypes = [ctypes.POINTER(_Args), ctypes.c_void_p]
    loaded.cosparse_cuda_error.restype = ctypes.c_char_p
    return loaded


def library() -> ctypes.CDLL:
    """The compiled kernels; UnsupportedError where there are none."""
    return _load(library_path())


def available() -> tuple[bool, str]:
    """Whether launch() can run here, and why not."""
    try:
        loaded = library()
    except UnsupportedError as error:
        return False, str(error)
    if loaded.cosparse_cuda_on_host() or torch.cuda.is_available():
        return True, ""
    return False, "torch finds no CUDA device"


def workspace_numbers(packed: PackedBasis, out_shape: tuple[int, int, int, int]) -> int:
    """How many float32 a launch needs besides its operands: 0 but for variants with slices."""
    variant = packed.variant
    if variant.slices == 1:
        return 0
    tiles = packed.sets * -(-out_shape[0] * out_shape[2] * out_shape[3] // variant.pixels)
    return COUNTERS + tiles * variant.slices * variant.groups * ROWS * variant.pixels


def workspace(packed: PackedBasis, out_shape: tuple[int, int, int, int]) -> torch.Tensor | None:
    """What launches that write `out_shape` need, one at a time; None where they need nothing."""
    numbers = workspace_numbers(packed, out_shape)
    return torch.zeros(numbers, dtype=torch.float32, device=packed.weights.device) if numbers else None


def launch(
    packed: PackedBasis, attrs: Mapping[str, Any], x: Planes, out: Planes, epilogue: Epilogue, space: torch.Tensor | None = None
) -> None:
    """Runs the kernel on torch's current stream; `attrs` are the conv node's. Writes `out`, whose shape says Ho and Wo.

    `space` is workspace(packed, out.shape) or a larger one, which launches on one stream may share. Without it, the first launch makes one
    that `packed` keeps: then such a layer runs on one stream at a time, and its first run should not be one that a CUDA graph captures.
    """
    loaded = library()
    needed = workspace_numbers(packed, out.shape)
    if space is None and needed:
        space = packed.spaces.get(needed)
        if space is None:
            space = packed.spaces[needed] = torch.zeros(needed, dtype=torch.float32, device=packed.weights.device)
    _check(packed, x, out, epilogue, space, on_host=bool(loaded.cosparse_cuda_on_host()))
    variant, residual, bias = packed.variant, epilogue.residual, epilogue.bias
    args = _Args(
        *(x.data.data_ptr(), residual.data.data_ptr() if residual else None, out.data.data_ptr()),
        None if bias is None else bias.data_ptr(),
        *(t.data_ptr() for t in (packed.weights, packed.rows, packed.steps, packed.chunks, packed.firsts, packed.entries)),
        None if space is None else space.data_ptr(),
        *(x.stride, residual.stride if residual else 0, out.stride),
        *(x.shape[0], *x.shape[2:], *out.shape[2:], packed.filters),
        *(*attrs["stride"], *attrs["dilation"], *attrs["pad"][:2]),
        *(ACTS[epilogue.act], epilogue.alpha, epilogue.beta, _DTYPES[x.data.dtype]),
        *(variant.groups, variant.pixels, variant.wide, variant.split, variant.slices, packed.sets, packed.most_channels, packed.most_rows),
    )
    stream = torch.cuda.current_stream(x.data.device).cuda_stream if x.data.is_cuda else None
    code = loaded.cosparse_conv_basis(ctypes.byref(args), stream)
    if code:
        raise UnsupportedError("conv_basis", "a launch", loaded.cosparse_cuda_error(code).decode(), f"variant {variant.name}, x {x.shape}")


def _check(packed: PackedBasis, x: Planes, out: Planes, epilogue: Epilogue, space: torch.Tensor | None, on_host: bool) -> None:
    """What would read or write the wrong memory; UnsupportedError that names it."""
    if epilogue.act not in ACTIVATIONS:
        raise UnsupportedError("conv_basis", f"an activation of {', '.join(ACTIVATIONS)}", epilogue.act, "apply it in a kernel of its own")
    if x.data.is_cuda == on_host:
        raise UnsupportedError("conv_basis", "planes on the CPU" if on_host else "planes on a GPU", str(x.data.device), "move them there")
    planes = [("x", x, packed.channels), ("out", out, packed.filters)]
    planes += [("residual", epilogue.residual, packed.filters)] if epilogue.residual else []
    for name, value, channels in planes:
        if value.shape[1] != channels or value.data.dtype != packed.weights.dtype or value.data.device != packed.weights.device:
            expected = f"{channels} planes of {packed.weights.dtype} on {packed.weights.device}"
            raise UnsupportedError(f"conv_basis, {name}", expected, f"{value.shape} of {value.data.dtype} on {value.data.device}")
        if value.stride % 64 or value.stride < value.pixels or value.data.stride(1) != 1:
            got = f"strides {value.data.stride()}"
            raise UnsupportedError(f"conv_basis, {name}", "rows of contiguous pixels, a multiple of 64 apart", got, "see planes.py")
    if x.shape[0] != out.shape[0] or (epilogue.residual and epilogue.residual.shape != out.shape):
        raise UnsupportedError("conv_basis", f"an output for {x.shape}, and a residual of its shape", f"{out.shape}")
    needed = workspace_numbers(packed, out.shape)
    if needed and (space is None or space.numel() < needed or space.dtype != torch.float32 or space.device != x.data.device):
        raise UnsupportedError("conv_basis, space", f"{needed} float32 on {x.data.device}", "less, or elsewhere", "see workspace()")
    bias = epilogue.bias
    if bias is not None and (bias.dtype != torch.float32 or bias.shape != (packed.filters,) or not bias.is_contiguous()):
        raise UnsupportedError("conv_basis, bias", f"float32 [{packed.filters}]", f"{bias.dtype} {list(bias.shape)}")
