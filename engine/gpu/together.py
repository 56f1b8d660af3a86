"""Compiles the kernels of many forms at once: a planner's first network would otherwise wait a minute for one core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

from cosparse.kernels.gpu import compiling

MOST_THREADS = 16


def compile_together(device: torch.device, launches: Iterable[Callable[[], None]]) -> None:
    """Runs `launches` of Triton kernels so that they only compile. What cannot be compiled says so when it is launched."""

    def one(launch: Callable[[], None]) -> None:
        with torch.cuda.device(device), compiling.only(), contextlib.suppress(Exception):
            launch()

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
        list(threads.map(one, launches))
