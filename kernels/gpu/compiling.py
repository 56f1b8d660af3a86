"""Launches that only compile, so that the kernels among which a planner measures are compiled by several threads at once beforehand.

Triton compiles a kernel at its first launch, a third of a second each, and leaves the interpreter's lock meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_thread = threading.local()


@contextlib.contextmanager
def only() -> Iterator[None]:
    """In this thread, launches inside the block compile their kernel and run nothing."""
    _thread.only = True
    try:
        yield
    finally:
        _thread.only = False


def place(device: torch.device) -> torch.device:
    """Where a launch's own memory is to be: nowhere if it is only compiled."""
    return torch.device("meta") if getattr(_thread, "only", False) else device


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **options: Any) -> None:
    """`kernel[grid](*arguments, **options)`, or what `only` makes of it."""
    if getattr(_thread, "only", False):
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)
