"""Work in a thread that nobody has to wait for: neither the event loop when it ends nor the interpreter.

Those of the loop's executor are joined at exit, however long they take. Loading a model may take longer than a server that was told to
stop has left.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

R = TypeVar("R")


class Aside:
    """`await aside(work)`: one piece of work at a time, so that many who ask make no more than one thread."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def __call__(self, work: Callable[[], R]) -> R:
        """What it returns or raises. Where the caller is cancelled, work that has begun goes on for itself."""
        done: Future[R] = Future()
        done.set_running_or_notify_cancel()  # from now on it cannot be cancelled, only nobody may want it

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # whatever it is, it is the caller's
                done.set_exception(error)

        async with self._turn:
            threading.Thread(target=run, name="aside", daemon=True).start()
            return await asyncio.wrap_future(done)
