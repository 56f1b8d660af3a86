"""The library of kernels in CUDA C++ (csrc/cuda, build.py), found and loaded."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cosparse
from cosparse.errors import UnsupportedError

INTERFACE = 4
"""COSPARSE_CUDA_INTERFACE of csrc/cuda/conv_basis.h: what is packed for the kernels."""

DTYPES = {torch.float16: 0, torch.bfloat16: 1}
"""Numbers by which the kernels know them."""

ACTIVATIONS = ("none", "relu", "clip")
"""What these kernels can end with."""


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """For a ctypes.Structure: fields of one kind."""
    return [(name, kind) for name in names.split()]


def left_operand(matrix: np.ndarray) -> np.ndarray:
    """[steps, 16 columns, 64 filters] in the order of mma's first operand: [steps, 1024], of [16 of 64 filters, lane, 8]. In the second one
    lane l has the columns 2 (l % 4) + 0..1 and those 8 further on."""
    lane, i = np.arange(32)[:, None], np.arange(8)[None, :]
    filters = lane // 4 + i // 2 % 2 * 8
    columns = lane % 4 * 2 + i % 2 + i // 4 * 8
    tiles = matrix.reshape(len(matrix), 16, 4, 16)  # [steps, column, tile, filter]
    return tiles.transpose(0, 2, 1, 3)[:, :, columns, filters].reshape(len(matrix), 1024)


def right_operand(matrix: np.ndarray) -> np.ndarray:
    """[steps, 16 columns, 64 filters] as products read it that have pixels on the left: [steps, 1024], of [8 of 8 filters, 2 of 8 columns,
    filter, column]."""
    return matrix.reshape(-1, 2, 8, 8, 8).transpose(0, 3, 1, 4, 2).reshape(len(matrix), 1024)


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
    loaded.cosparse_cuda_error.restype = ctypes.c_char_p
    return loaded


def library() -> ctypes.CDLL:
    """The compiled kernels; UnsupportedError where there are none."""
    return _load(library_path())


def on_host() -> bool:
    """Whether the library's kernels run on the CPU, as the tests' emulation does."""
    return bool(library().cosparse_cuda_on_host())


def available() -> tuple[bool, str]:
    """Whether the kernels can run here, and why not."""
    try:
        if on_host() or torch.cuda.is_available():
            return True, ""
    except UnsupportedError as error:
        return False, str(error)
    return False, "torch finds no CUDA device"


def call(kernel: str, args: ctypes.Structure, device: torch.device, what: str) -> None:
    """Runs cosparse_`kernel` on the device's current stream; UnsupportedError that says what `what` was refused for."""
    loaded = library()
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    code = getattr(loaded, f"cosparse_{kernel}")(ctypes.byref(args), ctypes.c_void_p(stream))
    if code:
        raise UnsupportedError(kernel, "a launch", loaded.cosparse_cuda_error(code).decode(), what)
