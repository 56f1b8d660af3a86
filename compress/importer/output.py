"""Outputs of any rank: which stored value holds the numbers, and the view in which they are given (docs/artifact.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from torch import fx

from cosparse.compress.importer.draft import Draft
from cosparse.compress.importer.layout import Dim, Size, Value, in_order, joined, product, same, whole
from cosparse.compress.importer.rearrange import as_stored
from cosparse.kernels.view import Axis, View

CUT = "cut the network before its head: return the maps themselves"


@dataclass(frozen=True)
class Output:
    """The stored value's name and rank, and the view in which it is given."""

    name: str
    rank: int
    view: View | None = None


def as_output(draft: Draft, value: Value, user: fx.Node) -> Output | str:
    """`value` as an output, a reason where nothing that an artifact holds gives it."""
    reason = f"a tensor of rank {len(value.shape)} in an order of dimensions that no operator gives"
    if len(value.shape) in (2, 4):
        result = as_stored(draft, value, user)
        if isinstance(result, Value):
            return Output(result.name, len(result.sizes))
        reason = result
    if not value.dims or value.dims[0] != whole(0, value.sizes[0]):
        return f"the batch mixed with another axis; {CUT}"
    if value.expanded or len(value.shape) > 8:
        return f"{'an expanded tensor' if value.expanded else reason}; {CUT}"
    if in_order(value) and (view := view_of(value.shape, value.sizes)) is not None:
        return Output(value.name, len(value.sizes), view)
    for grouped in _groupings(value):
        view = view_of(value.shape, grouped.shape)
        if view is not None and isinstance(made := as_stored(draft, grouped, user), Value):
            return Output(made.name, len(made.sizes), view)
    return f"{reason}; {CUT}"


def view_of(shape: Sequence[Size], sizes: Sequence[Size]) -> View | None:
    """The view of `shape` over a stored value of `sizes`; None where it cannot be stated: several sizes are free, and no stored ones."""
    view: list[int | Axis | None] = []
    several = sum(not size.is_Integer for size in shape[1:]) > 1
    for size in shape[1:]:
        axes = [axis for axis in range(1, len(sizes)) if several and same(sizes[axis], size)]
        view.append(int(size) if size.is_Integer else Axis(axes[0]) if axes else None)
    return None if view.count(None) > 1 else tuple(view)


def _groupings(value: Value) -> Iterator[Value]:
    """The same numbers in the same order as tensors [N, ., ., .]: of one atom an axis, of dimensions joined."""
    atoms = joined(atom for dim in value.dims[1:] for atom in dim)
    if len(atoms) <= 3:
        yield _grouped(value, [(atom,) for atom in atoms])
    inner = value.dims[1:]
    for first, second in combinations(range(len(inner) + 1), 2):
        yield _grouped(value, [joined(a for dim in part for a in dim) for part in (inner[:first], inner[first:second], inner[second:])])


def _grouped(value: Value, dims: list[Dim]) -> Value:
    dims = [*dims, *[()] * (3 - len(dims))]
    shape = tuple(product(atom.size for atom in dim) for dim in dims)
    return replace(value, dims=(value.dims[0], *dims), shape=(value.shape[0], *shape))
