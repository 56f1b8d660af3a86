"""Outputs as the caller has them: the numbers of the stored value in the shape that the output's view states (docs/artifact.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosparse.errors import ShapeError
from cosparse.kernels.contract import Graph


@dataclass(frozen=True)
class Axis:
    """In a view: the size of this axis of the stored value, 1 = C, 2 = H, 3 = W."""

    axis: int


View = tuple[int | Axis | None, ...]
"""The axes behind the batch: sizes, axes of the stored value, and at most one None for what the others leave."""


def view_sizes(view: View | None, stored: Sequence[int], about: str = "view") -> tuple[int, ...]:
    """The shape [N, ...] in which a value of the shape `stored` is given; ShapeError where the view has not as many numbers."""
    if view is None:
        return tuple(stored)
    sizes = [stored[entry.axis] if isinstance(entry, Axis) else -1 if entry is None else entry for entry in view]
    count, known = math.prod(stored[1:]), math.prod(size for size in sizes if size != -1)
    rest, left = divmod(count, known)
    if left or (-1 not in sizes and rest != 1):
        raise ShapeError(about, f"as many numbers as the view {words(view)} has", str(list(stored)))
    return (stored[0], *(rest if size == -1 else size for size in sizes))


def words(view: View) -> str:
    """[N, 3, null, axis 2, 85]"""
    named = (f"axis {entry.axis}" if isinstance(entry, Axis) else "null" if entry is None else str(entry) for entry in view)
    return f"[{', '.join(('N', *named))}]"


def views_of(graph: Graph) -> Sequence[View | None]:
    """One for each output."""
    return graph.views or (None,) * len(graph.outputs)


def outputs_of(graph: Graph, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs among all values (arrays of numpy or torch), each in the shape of its view."""
    return tuple(viewed(values[name], view, f"output {name}") for name, view in zip(graph.outputs, views_of(graph), strict=True))


def viewed(array: Any, view: View | None, about: str = "view") -> Any:
    return array if view is None else array.reshape(view_sizes(view, array.shape, about))
