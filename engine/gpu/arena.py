"""Where each value lies: offsets into one block of memory, which values share when their lives do not overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosparse.engine.gpu.fuse import Step

ALIGN = 256
"""Bytes that every offset is a multiple of."""


@dataclass(frozen=True)
class Arena:
    offsets: Mapping[str, int]
    bytes: int


def lifetimes(steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Value -> (the step that gives it, the last that reads it); inputs are there before the first step, outputs stay after the last."""
    lives = dict.fromkeys(inputs, (-1, -1))
    for at, step in enumerate(steps):
        for name in step.reads:
            lives[name] = (lives[name][0], at)
        lives[step.output] = (at, at)
    return lives | {name: (lives[name][0], len(steps)) for name in outputs}


def arrange(lives: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> Arena:
    """Largest first, each at the lowest offset where no value that lives at the same time stands."""
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first step, last step
    offsets: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        size = -(-sizes[name] // ALIGN) * ALIGN
        first, last = lives[name]
        offset = 0
        for start, end, a, b in sorted(placed):
            if a <= last and first <= b and start < offset + size and offset < end:
                offset = end
        placed.append((offset, offset + size, first, last))
        offsets[name] = offset
    return Arena(offsets, max((end for _, end, _, _ in placed), default=0))
