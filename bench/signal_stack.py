"""The alternate signal stack of this thread, put back after code that leaves it dangling.

OpenVINO's CPU plugin (seen in 2026.4) gives the thread a larger stack for signals where the processor has AMX, whose registers make signal
frames large. Each compiled model puts back what it found when it goes; models that do not go in the reverse order of their coming so leave
the address of freed memory behind, and the next signal (a worker process that ends, Ctrl-C) kills the process without a word.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of <signal.h>."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept() -> Iterator[None]:
    """A context, or the decorator of a function, behind which this thread has the signal stack that it had before."""
    if sys.platform != "linux":
        yield
        return
    libc, before, now = ctypes.CDLL(None), _Stack(), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(None, ctypes.byref(now))
        if (now.address, now.flags, now.size) != (before.address, before.flags, before.size):
            libc.sigaltstack(ctypes.byref(before), None)
