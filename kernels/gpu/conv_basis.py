"""conv 3x3 in the DCT's domain, on tensor cores: the basis step and the product in one kernel in CUDA C++ (csrc/cuda/conv_basis.cu).

    y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p])       k = (c 3 + u) 3 + v
    xhat   = D_u D_v of the nine taps of pixel p in channel c, as in kernels/basis.py; never in global memory

    x         Planes [N, C, H, W]     float16 or bfloat16; zeros outside the image
    out       Planes [N, O, H, W]     the same dtype; numbers behind a row's last pixel may be written
    residual  Planes like out, or None; bias float32 [O] or None; act one of ACTIVATIONS
    S         Groups of 64 filters (groups.py), with the basis' scales 1/sqrt 3, 1/sqrt 2, 1/sqrt 6 folded in, then rounded to x's dtype

Numbers: the basis vectors are (1,1,1), (1,0,-1), (1,-2,1), so maps are sums of x alone, rounded to the dtype twice in the vertical
and twice in the horizontal half; products are summed in float32. With e the dtype's unit roundoff (2^-11 or 2^-8):

    |y - exact| <= (6 e + 2^-23 (K + 4)) sum over k of |S[o,k]| a[k,p] + e |y|       a: maps of |x| by the absolute values of the basis

A map is at most 16 max |x|, and float16 ends at 65504: beyond max |x| = 4094 a map may be infinite. bfloat16 has no such limit.

Refused (UnsupportedError): kernels other than 3x3 with stride 1, dilation 1 and padding 1, grouped convolutions, transformed channels or
filters, transforms other than dct, other activations, other dtypes, planes of 2^31 numbers, rows too wide for shared memory (some 10,000
pixels), a missing library.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.cuda_library import ACTIVATIONS, DTYPES, call, fields, left_operand, on_host
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.planes import Planes

ROWS = 64
"""Filters of a group, and so of a warp's tile."""

VISITS = 8
"""To channels, in a step; each makes two maps, so that a step has 16 columns."""

SCALES = np.array([1 / 3, 1 / 2, 1 / 6]) ** 0.5
"""What makes (1,1,1), (1,0,-1), (1,-2,1) orthonormal."""

MIDDLE, LAST = np.array([1, 0, -2]), np.array([1, -1, 1])
"""Their second and third numbers; the first is 1."""


@dataclass(frozen=True)
class Variant:
    """One way to cut the work: `across` warps of a block have 32 pixels each, `split` warps share those pixels' steps, `per` steps of each
    pass between two waits. The first two name a compiled kernel."""

    across: int
    split: int = 1
    per: int = 1

    @property
    def name(self) -> str:
        return f"{32 * self.across}px{f' {self.split} parts' if self.split > 1 else ''} {self.per * self.split} steps"

    @property
    def pixels(self) -> int:
        """Of a block's tile."""
        return 32 * self.across


VARIANTS = (
    Variant(4, 2, 1),
    Variant(4, 2, 2),
    Variant(4, 1, 4),
    Variant(8),
    Variant(8, 1, 4),
    Variant(12, 1, 4),
    Variant(16, 1, 4),
    Variant(16, 1, 5),
)
"""What a planner measures. The first ones suit few pixels, the last many; with short stages wide images fit shared memory."""


@dataclass(frozen=True, eq=False)
class PackedBasis:
    """A layer's coefficients as the kernel reads them (csrc/cuda/conv_basis.h); every variant reads the same."""

    filters: int
    channels: int
    steps: torch.Tensor  # [steps, numbers of cosparse_basis_step]
    visits: torch.Tensor  # int32 [steps, 8]
    starts: torch.Tensor  # int32 [groups + 1]

    @property
    def bytes(self) -> int:
        """What the GPU holds of it."""
        return sum(t.numel() * t.element_size() for t in (self.steps, self.visits, self.starts))


def supports(node: Node) -> str:
    """Why the kernel cannot run a node; '' if it can."""
    attrs = node.attrs
    if node.op != "conv" or list(attrs["kernel"]) != [3, 3]:
        return "not a 3x3 convolution"
    if attrs["groups"] != 1:
        return "a grouped convolution"
    if {*attrs["stride"], *attrs["dilation"], *attrs["pad"]} != {1}:
        return "a stride, dilation or padding other than 1"
    if any(f"{axis}_tile" in attrs for axis in ("channels", "filters")):
        return "transformed channels or filters"
    return "" if attrs["transform"] == "dct" else f"transform {attrs['transform']}, not dct"


def pack(groups: Groups, channels: int, dtype: torch.dtype, device: torch.device | str) -> PackedBasis:
    """`groups` of 64 filters over channels x 9 columns, as steps of eight visits: column 2 v + e of a step is map e of its visit v."""
    check_groups("conv_basis", groups, channels, dtype)
    scale = np.outer(SCALES, SCALES).reshape(9)
    values = (groups.values.astype(np.float64) * scale[groups.columns % 9, None]).astype(np.float32)
    places, starts = [], [0]  # of each step's 16 columns: index into `groups.columns`; ~index where its weights are zeros
    for start, stop in pairwise(groups.starts.tolist()):
        places.append(_steps(start, groups.columns[start:stop]))
        starts.append(starts[-1] + len(places[-1]))
    place = np.concatenate([*places, np.zeros((0, 2 * VISITS), np.int64)])
    column = np.where(place < 0, ~place, place)
    maps = groups.columns[column] if len(groups.columns) else column
    weights = np.where(place[..., None] < 0, 0, values[column]) if len(values) else np.zeros((0, 2 * VISITS, ROWS))
    u, v = maps % 9 // 3, maps % 3
    vectors = np.stack([MIDDLE[v], LAST[v], MIDDLE[u], LAST[u]], -1).repeat(2, -1).reshape(len(place), 2 * VISITS * 8)
    numbers = np.concatenate([left_operand(weights), vectors], 1).astype(np.float32)
    return PackedBasis(
        groups.filters,
        channels,
        torch.from_numpy(numbers).to(dtype).to(device),
        torch.from_numpy((maps[:, ::2] // 9).astype(np.int32)).to(device),
        torch.tensor(starts, dtype=torch.int32, device=device),
    )


def _steps(first: int, columns: np.ndarray) -> np.ndarray:
    """A group's columns, ascending, in visits of two columns of one channel, and those in steps: [steps, 16] of first + index. Where a
    channel has an odd number, and at the end of the last step, columns are visited again, as ~(first + index): for nothing."""
    found: list[int] = []
    for index, channel in enumerate((columns // 9).tolist()):
        if len(found) % 2 and columns[found[-1] - first] // 9 != channel:
            found.append(~found[-1])
        found.append(first + index)
    if len(found) % 2:
        found.append(~found[-1])
    while len(found) % (2 * VISITS):
        found += [~max(place, ~place) for place in found[-2:]]
    return np.array(found, np.int64).reshape(-1, 2 * VISITS)


class _Args(ctypes.Structure):
    """cosparse_conv_basis_args."""

    _fields_ = [
        *fields(ctypes.c_void_p, "x residual y bias steps visits starts"),
        *fields(ctypes.c_int64, "x_stride residual_stride y_stride"),
        *fields(ctypes.c_int32, "images height width filters act"),
        *fields(ctypes.c_float, "alpha beta"),
        *fields(ctypes.c_int32, "dtype across split per backwards"),
    ]


def launch(packed: PackedBasis, x: Planes, out: Planes, epilogue: Epilogue, variant: Variant, backwards: bool = False) -> None:
    """Runs the kernel on torch's current stream; `backwards`, the last pixels first."""
    check_planes("conv_basis", packed.channels, packed.filters, packed.steps, x, out, epilogue)
    residual, bias = epilogue.residual, epilogue.bias
    args = _Args(
        *(x.data.data_ptr(), residual.data.data_ptr() if residual else None, out.data.data_ptr()),
        None if bias is None else bias.data_ptr(),
        *(t.data_ptr() for t in (packed.steps, packed.visits, packed.starts)),
        *(x.stride, residual.stride if residual else 0, out.stride),
        *(x.shape[0], *x.shape[2:], packed.filters),
        *(ACTS[epilogue.act], epilogue.alpha, epilogue.beta, DTYPES[x.data.dtype]),
        *(variant.across, variant.split, variant.per, backwards),
    )
    call("conv_basis", args, x.data.device, f"variant {variant.name}, x {x.shape}")


def check_groups(kernel: str, groups: Groups, channels: int, dtype: torch.dtype) -> None:
    """What cannot be packed for a kernel of 64 filters a group; UnsupportedError that names it."""
    if groups.rows != ROWS or groups.columns_total != channels * 9:
        expected, got = (f"groups of {r} filters over {k} columns" for r, k in ((ROWS, channels * 9), (groups.rows, groups.columns_total)))
        raise UnsupportedError(f"packing for {kernel}", expected, got, "group the coefficients by conv_basis.ROWS")
    if dtype not in DTYPES:
        raise UnsupportedError(f"packing for {kernel}", "float16 or bfloat16", str(dtype), "choose one of these")


def check_planes(kernel: str, channels: int, filters: int, weights: torch.Tensor, x: Planes, out: Planes, epilogue: Epilogue) -> None:
    """What would read or write the wrong memory; UnsupportedError that names it."""
    if epilogue.act not in ACTIVATIONS:
        raise UnsupportedError(kernel, f"an activation of {', '.join(ACTIVATIONS)}", epilogue.act, "apply it in a kernel of its own")
    if x.data.is_cuda == on_host():
        raise UnsupportedError(kernel, "planes on the CPU" if on_host() else "planes on a GPU", str(x.data.device), "move them there")
    planes = [("x", x, channels), ("out", out, filters)]
    planes += [("residual", epilogue.residual, filters)] if epilogue.residual else []
    for name, value, rows in planes:
        if value.shape[1] != rows or value.data.dtype != weights.dtype or value.data.device != weights.device:
            expected = f"{rows} planes of {weights.dtype} on {weights.device}"
            raise UnsupportedError(f"{kernel}, {name}", expected, f"{value.shape} of {value.data.dtype} on {value.data.device}")
        if value.shape[0] != x.shape[0] or value.shape[2:] != x.shape[2:]:
            raise UnsupportedError(f"{kernel}, {name}", f"images as those of x, {x.shape}", f"{value.shape}", "see supports()")
        if value.stride % 64 or value.stride < value.pixels or value.data.stride(1) != 1:
            got = f"strides {value.data.stride()}"
            raise UnsupportedError(f"{kernel}, {name}", "rows of contiguous pixels, a multiple of 64 apart", got, "see planes.py")
    bias = epilogue.bias
    if bias is not None and (bias.dtype != torch.float32 or bias.shape != (filters,) or not bias.is_contiguous()):
        raise UnsupportedError(f"{kernel}, bias", f"float32 [{filters}]", f"{bias.dtype} {list(bias.shape)}")
