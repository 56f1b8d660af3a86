"""The few PTX instructions that our Triton kernels contain, for Triton's interpreter, which knows none: on words of two 16-bit numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from triton.runtime import interpreter

NUMBERS = {"f16x2": torch.float16, "bf16x2": torch.bfloat16}


def _floats(words: np.ndarray, kind: str) -> torch.Tensor:
    halves = np.ascontiguousarray(words, np.int32).view(np.int16).reshape(*words.shape, 2)
    return torch.from_numpy(halves.copy()).view(NUMBERS[kind]).double()


def _words(numbers: torch.Tensor, kind: str) -> np.ndarray:
    return numbers.to(NUMBERS[kind]).view(torch.int16).numpy().copy().view(np.int32)[..., 0]


def run(code: str, operands: list[np.ndarray]) -> np.ndarray:
    """The result of one line of inline assembly: add, sub, fma (by the word in a register of its own) or prmt."""
    if match := re.search(r"prmt\.b32 \$0, \$1, \$2, 0x(\w{4});", code):
        both = np.concatenate([np.ascontiguousarray(x, np.int32).view(np.uint8).reshape(*x.shape, 4) for x in operands], -1)
        chosen = [int(digit, 16) for digit in reversed(match[1])]
        return np.ascontiguousarray(both[..., chosen]).view(np.int32)[..., 0]
    match = re.search(r"(add|sub|fma)\.rn\.(b?f16x2)", code)
    if match is None:
        raise NotImplementedError(code)
    operation, kind = match.groups()
    a, b = (_floats(x, kind) for x in operands)
    if operation == "fma":
        constant = re.search(r"mov\.b32 \w+, 0x(\w{8});", code)
        if constant is None:
            raise NotImplementedError(code)
        word = np.array(int(constant[1], 16), np.uint32).view(np.int32).reshape(1)
        return _words(a * _floats(word, kind) + b, kind)
    return _words(a + b if operation == "add" else a - b, kind)


@contextmanager
def understood() -> Iterator[None]:
    """Inside, the interpreter runs inline assembly."""

    def create_inline_asm(self: Any, code: str, constraints: str, values: Any, kinds: Any, pure: bool, pack: int) -> Any:
        result = run(code, [value.data for value in values])
        handle = interpreter.TensorHandle(result, values[0].dtype)
        handle.get_result = lambda index: handle
        return handle

    before = interpreter.InterpreterBuilder.create_inline_asm
    interpreter.InterpreterBuilder.create_inline_asm = create_inline_asm
    try:
        yield
    finally:
        interpreter.InterpreterBuilder.create_inline_asm = before
