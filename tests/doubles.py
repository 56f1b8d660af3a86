"""An engine that doubles, and batchers around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from cosparse.engine.serve import Batcher
from cosparse.errors import ShapeError


class Double:
    """Twice its input, as an engine; keeps the batch sizes that it saw, and waits while `go` is clear."""

    name = "double"

    def __init__(self, outputs: int = 1) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.outputs = outputs

    def __call__(self, *arrays: np.ndarray) -> Any:
        assert self.go.wait(20)
        self.batches.append(len(arrays[0]))
        if np.isnan(arrays[0]).any():
            raise ShapeError("input 'x'", "no NaN", "one")
        answer = tuple(2 * array for array in arrays)
        return answer if self.outputs > 1 else answer[0]


def rows(count: int, value: float = 1.0, size: int = 3) -> np.ndarray:
    return np.full((count, size), value, np.float32)


def run(engine: Double, body: Callable[[Batcher], Any], **options: Any) -> Any:
    async def main() -> Any:
        async with Batcher(engine, **options) as batcher:
            return await body(batcher)

    return asyncio.run(main())


async def held(engine: Double, batcher: Batcher, waiting: list[Any]) -> list[asyncio.Task[Any]]:
    """Tasks for `waiting`, all in the queue behind a first call that the engine holds."""
    engine.go.clear()
    first = asyncio.create_task(batcher(rows(1)))
    await asyncio.sleep(0)
    while batcher.depth:
        await asyncio.sleep(0.001)
    tasks = [asyncio.create_task(batcher(*(arrays if isinstance(arrays, tuple) else (arrays,)))) for arrays in waiting]
    await asyncio.sleep(0.01)
    return [first, *tasks]
