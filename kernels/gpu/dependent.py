"""Programmatic dependent launch: a kernel begins while the one ahead of it ends, and loads what that one does not write.

A kernel calls `release` first of all, so that the next one's programs are in place when its own end, and `await_previous` before it touches
what earlier kernels read or wrote. Since every kernel waits so, what an earlier one wrote is there too. From compute capability 9.0 on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl


@lru_cache
def begins_early(device: torch.device) -> bool:
    """Whether launches on the device can begin before the one ahead has ended."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def launch_options(early: bool) -> dict[str, Any]:
    """Triton's options of a launch whose kernel was compiled with this `early`."""
    return {"early": early, "launch_pdl": True} if early else {"early": early}


@triton.jit
def release(early: tl.constexpr):
    """The next kernel may begin."""
    if early:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def await_previous(early: tl.constexpr):
    """Waits until all that was launched before has ended."""
    if early:
        tl.extra.cuda.gdc_wait()
