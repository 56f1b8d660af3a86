"""Who calls, over all batchers of one event loop: whether a call competes with others, or may run on the loop itself.

It does not compete where nothing runs, and either nothing has run for QUIET seconds or the last ALONE calls all came from one `caller`.
So many callers at once still form batches, of one network or of several.
"""

from __future__ import annotations

import threading
import time
from collections import deque

QUIET = 0.002
ALONE = 4


class Traffic:
    """Shared by batchers; each tells of its calls. Any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: deque[object] = deque(maxlen=ALONE - 1)
        self._running = 0
        self._ended = 0.0

    def came(self, caller: object) -> None:
        """A call that goes to a worker. caller: such as the client's address; None for somebody unknown."""
        with self._lock:
            self._callers.append(caller)

    def alone(self, caller: object) -> bool:
        """Whether a call that comes now has no other beside it; if so, it has come and runs."""
        with self._lock:
            steady = caller is not None and len(self._callers) == ALONE - 1 and all(other == caller for other in self._callers)
            if self._running or not (steady or time.monotonic() - self._ended > QUIET):
                return False
            self._callers.append(caller)
            self._running += 1
            return True

    def started(self) -> None:
        """A worker runs an engine."""
        with self._lock:
            self._running += 1

    def ended(self) -> None:
        """It has returned, or a call that was alone has."""
        with self._lock:
            self._running -= 1
            self._ended = time.monotonic()
