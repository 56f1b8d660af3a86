"""conv 7x7 with stride 2 and the 3x3 max pool with stride 2 behind it, as one kernel in CUDA C++ (csrc/cuda/conv_stem.cu).

    y[o,p] = act(max over the pool's window of z[o,q]),   z[o,q] = bias[o] + sum over c,i,j of W[o,c,i,j] x[c, 2 q + (i,j) - pad]

    x     Planes [N, C, H, W]      float16 or bfloat16; W a multiple of 8; zeros outside the image
    y     Planes [N, O, Hp, Wp]    the same dtype; Wp even; z outside its own Ho x Wo is left out of the maximum
    W     float32, rounded to x's dtype; bias float32 [O] or None; act one of ACTIVATIONS, which rise: so it may follow the pool

Sums in float32, the bias added in two parts of x's dtype, z rounded once, the maximum exact. z is never in memory: of the bytes of a stem's
output three quarters are neither written nor read again. NaN in a window gives NaN, and nowhere else.

Refused (UnsupportedError): what `supports` names; images so wide that four rows of the result need more than a block's shared memory.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.conv import unpack
from cosparse.kernels.gpu.cuda_library import ACTIVATIONS, DTYPES, call, fields, right_operand
from cosparse.kernels.gpu.epilogue import ACTS, Epilogue
from cosparse.kernels.gpu.planes import Planes

KERNEL, TAPS, GROUP = 7, 8, 64
"""Rows of taps; taps of a row, some of them zeros; filters that a block makes."""

ROWS = (8, 7, 4, 2, 1)
"""Rows of the result that a block may make: many share more, few make more blocks."""

BESIDE, BEHIND, SHARED_ON_HOST = 32, 528, 227 << 10
"""Bytes in shared memory: beside each row of the image, around all of them, and of a block where a CPU stands in for the GPU."""

LEAST = 112 * 112
"""Convolved pixels from which on this is known to pay: an image of 224 x 224."""

MOST = 2**31 - 2**20
"""Pixels of a plane that the kernel can count."""


def supports(conv: Node, pool: Node, width: int) -> str:
    """Why the two cannot run so on images of this width; '' if they can."""
    if conv.op != "conv" or conv.attrs["groups"] != 1 or list(conv.attrs["kernel"]) != [KERNEL, KERNEL]:
        return "not a 7x7 convolution of one channel group"
    if list(conv.attrs["stride"]) != [2, 2] or list(conv.attrs["dilation"]) != [1, 1]:
        return "a stride other than 2, or dilation"
    if any(f"{axis}_tile" in conv.attrs for axis in ("channels", "filters")):
        return "transformed channels or filters"
    pad = conv.attrs["pad"]
    if pad[1] % 2 == 0:
        return "an even padding on the left"  # TAPS would not hold the row and what fills its first word
    if max(pad) > KERNEL:
        return "a padding wider than the window"
    attrs = pool.attrs
    window = [*attrs["kernel"], *attrs["stride"], *attrs["pad"], *attrs["dilation"], attrs["ceil"]] if pool.op == "max_pool" else []
    if window != [3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 0]:
        return "not a 3x3 max pool with stride 2 and padding 1"
    convolved = (width + pad[1] + pad[3] - KERNEL) // 2 + 1
    return "" if width % 8 == 0 and (convolved + 1) // 2 % 2 == 0 else "a width that 8, or a pooled one that 2 does not divide"


def widest(channels: int, rows: int, device: torch.device) -> int:
    """Most columns of images whose rows fit a block's shared memory, as many as its `rows` need; 0 or less where weights leave no room."""
    shared = SHARED_ON_HOST
    if device.type == "cuda":
        properties: Any = torch.cuda.get_device_properties(device)
        shared = properties.shared_memory_per_block_optin
    of_weights = 2 * GROUP * (KERNEL + 1) * TAPS * channels
    return ((shared - BEHIND - of_weights) // (channels * (4 * rows + 7)) - BESIDE) // 2


class _Args(ctypes.Structure):
    """cosparse_conv_stem_args."""

    _fields_ = [
        *fields(ctypes.c_void_p, "x y weights"),
        *fields(ctypes.c_int64, "x_stride y_stride"),
        *fields(ctypes.c_int32, "images channels height width conv_height conv_width out_height out_width filters pad_top pad_words act"),
        *fields(ctypes.c_float, "alpha beta"),
        *fields(ctypes.c_int32, "dtype rows"),
    ]


@dataclass(frozen=True, eq=False)
class Stem:
    """One layer on the device, ready to launch."""

    filters: int
    channels: int
    pad: tuple[int, int, int, int]
    weights: torch.Tensor  # [groups, channels, numbers of cosparse_stem_channel]

    @classmethod
    def of(cls, conv: Node, dtype: torch.dtype, device: torch.device | str) -> Stem:
        """`conv` is one that `supports`."""
        taps = unpack(conv)
        filters, channels = taps.shape[:2]
        pad = tuple(int(n) for n in conv.attrs["pad"])
        first = -pad[1] % 2
        lines = np.zeros((-(-filters // GROUP) * GROUP, channels, KERNEL + 1, TAPS), np.float32)
        lines[:filters, :, :KERNEL, first : first + KERNEL] = taps
        if "bias" in conv.tensors:
            bias = torch.from_numpy(conv.tensors["bias"].copy())
            high = bias.to(dtype).float()
            lines[:filters, 0, KERNEL, 0], lines[:filters, 0, KERNEL, 1] = high.numpy(), (bias - high).numpy()
        steps = lines.reshape(-1, GROUP, channels, 4, 2 * TAPS).transpose(0, 2, 3, 4, 1)  # [group, channel, of two rows, tap, filter]
        packed = right_operand(steps.reshape(-1, 2 * TAPS, GROUP)).reshape(len(steps), channels, -1)
        return cls(filters, channels, pad, torch.from_numpy(packed).to(dtype).to(device))  # type: ignore[arg-type]

    @property
    def bytes(self) -> int:
        return self.weights.numel() * self.weights.element_size()

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue, rows: int = ROWS[0]) -> None:
        """Launches on the current stream; the bias is the one that was packed, whatever `epilogue` has."""
        n, c, height, width = x.shape
        top, left, bottom, right = self.pad
        size = [(height + top + bottom - KERNEL) // 2 + 1, (width + left + right - KERNEL) // 2 + 1]
        expected = (n, self.filters, (size[0] + 1) // 2, (size[1] + 1) // 2)
        if c != self.channels or out.shape != expected or epilogue.residual is not None or epilogue.act not in ACTIVATIONS:
            wanted = f"{self.channels} channels, an output {expected}, no residual, an activation of {', '.join(ACTIVATIONS)}"
            raise UnsupportedError("conv_stem", wanted, f"{x.shape}, {out.shape}, {epilogue.act}")
        if not x.data.dtype == out.data.dtype == self.weights.dtype or not x.data.device == out.data.device == self.weights.device:
            wanted = f"planes of {self.weights.dtype} on {self.weights.device}"
            raise UnsupportedError("conv_stem", wanted, f"{x.data.dtype} and {out.data.dtype} on {x.data.device} and {out.data.device}")
        args = _Args(
            *(x.data.data_ptr(), out.data.data_ptr(), self.weights.data_ptr()),
            *(x.stride, out.stride, n, c, height, width, *size, *out.shape[2:], self.filters, top, (left + 1) // 2),
            *(ACTS[epilogue.act], epilogue.alpha, epilogue.beta, DTYPES[x.data.dtype], rows),
        )
        call("conv_stem", args, x.data.device, f"x {x.shape}, {rows} rows")
