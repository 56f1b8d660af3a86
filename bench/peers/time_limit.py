"""A bound on how long a piece of work may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cosparse.errors import Error


@contextmanager
def time_limit(seconds: float, about: str, next_step: str) -> Iterator[None]:
    """Raises Error about `about` once the body has run for `seconds`. No bound outside the main thread or where alarms do not exist."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    expired = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal expired
        expired = True
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:  # libraries wrap the TimeoutError in errors of their own
        if expired:
            raise Error(about, f"at most {seconds:g} s", "more", next_step) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
