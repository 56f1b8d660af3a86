"""The signal stack that other code leaves behind is taken away again."""

from __future__ import annotations

import ctypes
import sys

import pytest

from cosparse.bench import signal_stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack as Linux has it")


def address() -> int | None:
    now = signal_stack._Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.address


def test_the_stack_is_put_back() -> None:
    memory = ctypes.create_string_buffer(1 << 17)
    before = address()

    @signal_stack.kept()
    def careless() -> int | None:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(signal_stack._Stack(ctypes.addressof(memory), 0, len(memory))), None)
        return address()

    assert careless() == ctypes.addressof(memory)
    assert address() == before

    @signal_stack.kept()
    def careless_and_failing() -> None:
        careless.__wrapped__()  # type: ignore[attr-defined]
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        careless_and_failing()
    assert address() == before
