"""The callers' memory: what a call writes may overlap nothing else that it reads or writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy

from cosparse.errors import Error


class Named(Protocol):
    """What an array is for: an input or output of a network."""

    @property
    def name(self) -> str: ...


def require_apart(inputs: Iterable[tuple[numpy.ndarray, Named]], outputs: Iterable[tuple[numpy.ndarray, Named]]) -> None:
    """Raises Error where an output shares memory with an input or another output. All are contiguous, so their bounds decide.

    Inputs may overlap each other. In the order of their starts, an array overlaps an earlier one if any of those ends behind its start.
    """
    spans = [(*_bounds(array), False, spec.name) for array, spec in inputs]
    spans += [(*_bounds(array), True, spec.name) for array, spec in outputs]
    furthest = {False: (0, False, ""), True: (0, True, "")}  # the end of what is read so far, and of what is written; whose that is
    for start, end, writes, name in sorted(span for span in spans if span[0] < span[1]):
        mine = (end, writes, name)
        other = max(furthest.values()) if writes else furthest[True]
        if other[0] > start:
            about, beside = (mine, other) if writes else (other, mine)
            raise Error(_words(about), "memory of its own", f"memory of {_words(beside)}", "pass another array, or none")
        furthest[writes] = max(furthest[writes], mine)


def _bounds(array: numpy.ndarray) -> tuple[int, int]:
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def _words(which: tuple[int, bool, str]) -> str:
    return f"out for output '{which[2]}'" if which[1] else f"input '{which[2]}'"
