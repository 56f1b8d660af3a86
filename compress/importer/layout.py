"""Which axis of a stored value each dimension of a torch tensor runs over.

The graph stores values as [N, C, H, W] or [N, F]. Torch code views, permutes and splits them at will. Such operations move nothing here:
a tensor is a stored value plus, for each of its dimensions, the atoms that the dimension runs over, slowest first. An atom (axis, size,
stride) is a factor of one stored axis, whose index is the sum of index x stride over its atoms. So `x.view(n, g, c // g, h, w)` splits the
atom (1, c, 1) into (1, g, c/g) and (1, c/g, 1), `transpose(1, 2)` swaps two dimensions, and the next `view` joins them into one dimension
of two atoms: a channel shuffle, recognised only when an operator needs the tensor as it stands (rearrange.py).

Sizes are sympy expressions, since batch, height and width are symbols. Size 1 has no atom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy
import torch
from torch import fx

# A sympy expression: sympy has no types.
Size: TypeAlias = Any
ONE = sympy.Integer(1)


@dataclass(frozen=True)
class Atom:
    """`size` steps of `stride` along the stored axis `axis` (0 = N, 1 = C, 2 = H, 3 = W)."""

    axis: int
    size: Size
    stride: int = 1


Dim = tuple[Atom, ...]


@dataclass(frozen=True)
class Value:
    """A torch tensor of shape `shape` whose numbers are those of the stored value `name` of shape `sizes` (rank 2 or 4).

    `dims[i]` are the atoms of dimension i. Where their product is 1 and shape[i] is not, the tensor was expanded: it repeats.
    `origin` is the last layout operation, after which a rearrangement is named.
    """

    name: str
    sizes: tuple[Size, ...]
    dims: tuple[Dim, ...]
    shape: tuple[Size, ...]
    origin: fx.Node | None = None

    @property
    def expanded(self) -> bool:
        return any(not same(product(a.size for a in dim), size) for dim, size in zip(self.dims, self.shape, strict=True))


@dataclass(frozen=True)
class Filled:
    """A tensor of one number in a shape that depends on the input's: `torch.zeros(x.shape[0], ...)`."""

    shape: tuple[Size, ...]
    number: float


@dataclass(frozen=True)
class OfBatch:
    """A constant, or a tuple of them, that depends on the batch alone: what it is at constants.BATCHES."""

    results: tuple[Any, ...]


def size_of(number: Any) -> Size:
    """An int or SymInt as a sympy expression."""
    return number.node.expr if isinstance(number, torch.SymInt) else sympy.Integer(number)


def sizes_of(shape: Iterable[Any]) -> tuple[Size, ...]:
    return tuple(map(size_of, shape))


def product(sizes: Iterable[Size]) -> Size:
    return sympy.Mul(*sizes)


def same(a: Size, b: Size) -> bool:
    """Equal for every batch, height and width."""
    return a == b or (not (a.is_Integer and b.is_Integer) and sympy.expand(a - b) == 0)


def whole(axis: int, size: Size) -> Dim:
    """The dimension that runs over one whole axis."""
    return () if same(size, ONE) else (Atom(axis, size),)


def stored_dims(sizes: Sequence[Size]) -> tuple[Dim, ...]:
    """The dimensions of a tensor that lies as it is stored."""
    return tuple(whole(axis, size) for axis, size in enumerate(sizes))


def stored(name: str, sizes: Sequence[Size]) -> Value:
    """The tensor that is the stored value `name` itself."""
    return Value(name, tuple(sizes), stored_dims(sizes), tuple(sizes))


def in_order(value: Value) -> bool:
    """Whether the tensor's numbers, read in order, are the stored value's."""
    atoms = joined(atom for dim in value.dims for atom in dim)
    return not value.expanded and atoms == joined(atom for dim in stored_dims(value.sizes) for atom in dim)


def axis_of(value: Value, dim: int) -> int | None:
    """The stored axis that dimension `dim` covers as a whole; None where it is split, joined, expanded or of size 1."""
    atoms = value.dims[dim]
    if len(atoms) == 1 and same(atoms[0].size, value.sizes[atoms[0].axis]):
        return atoms[0].axis
    return None


def axes_of(value: Value, dims: Iterable[int]) -> list[int] | None:
    """The stored axes that the dimensions `dims` cover together, ascending; None where they cover only a part of one."""
    atoms = [atom for dim in dims for atom in value.dims[dim]]
    axes = sorted({atom.axis for atom in atoms})
    covered = all(same(product(a.size for a in atoms if a.axis == axis), value.sizes[axis]) for axis in axes)
    return axes if covered else None


def permuted(value: Value, order: Sequence[int], origin: fx.Node) -> Value:
    """Dimension i of the result is dimension order[i]."""
    dims, shape = tuple(value.dims[i] for i in order), tuple(value.shape[i] for i in order)
    return replace(value, dims=dims, shape=shape, origin=origin)


def viewed(value: Value, shape: Sequence[Size], origin: fx.Node) -> Value | None:
    """The tensor read in order into `shape`; None where a dimension would split a symbolic size or two sizes without common divisor.

    One dimension may be a symbol that cannot be compared with the atoms' sizes: it takes what the others leave.
    """
    atoms = [atom for dim in value.dims for atom in dim]
    front: list[Dim] = []
    back: list[Dim] = []
    while len(front) < len(shape) and (taken := _take(atoms, shape[len(front)], 0)) is not None:
        front.append(taken)
    while len(front) + len(back) + 1 < len(shape):
        if (taken := _take(atoms, shape[len(shape) - 1 - len(back)], -1)) is None:
            return None
        back.insert(0, taken)
    if len(front) + len(back) < len(shape):
        if shape[len(front)].is_Integer and product(a.size for a in atoms).is_Integer:
            return None
        front.append(joined(atoms))
        atoms = []
    dims = [*front, *back]
    if any(a.size.is_Integer for a in atoms) or (atoms and not dims):
        return None
    if atoms:
        # Torch has shown them to be 1 at the example's size.
        dims[-1] = joined((*dims[-1], *atoms))
    return replace(value, dims=tuple(dims), shape=tuple(product(a.size for a in dim) for dim in dims), origin=origin)


def _take(atoms: list[Atom], size: Size, end: int) -> Dim | None:
    """Removes atoms that make `size` together from one end (0 or -1), splitting the last; None, and nothing removed, where they do not."""
    rest, taken = list(atoms), list[Atom]()
    while not same(have := product(a.size for a in taken), size):
        if not rest:
            return None
        atom = rest.pop(end)
        if size.is_Integer and have.is_Integer and atom.size.is_Integer and have * atom.size > size:
            near, uneven = divmod(int(size), int(have))
            far, odd = divmod(int(atom.size), near) if near else (0, 1)
            if uneven or odd:
                return None
            outer, inner = (near, far) if end == 0 else (far, near)
            halves = [Atom(atom.axis, sympy.Integer(outer), atom.stride * inner), Atom(atom.axis, sympy.Integer(inner), atom.stride)]
            atom = halves.pop(end)
            rest.insert(0 if end == 0 else len(rest), halves[0])
        elif end == -1 and size.is_Integer and have.is_Integer and int(size) % int(have) == 0:
            inner = size / have
            if _divides(int(inner), atom.size):  # a free size: the flattened maps of a detector, read as rows of so many numbers
                rest.append(Atom(atom.axis, sympy.expand(atom.size / inner), atom.stride * int(inner)))
                atom = Atom(atom.axis, inner, atom.stride)
        taken.insert(len(taken) if end == 0 else 0, atom)
    atoms[:] = rest
    return joined(taken)


def _divides(number: int, size: Size) -> bool:
    """Whether a free size is a multiple of the number, whatever its symbols are."""
    return number > 1 and not size.is_Integer and all(c.is_Integer for c in sympy.expand(size / number).as_coefficients_dict().values())


def joined(atoms: Iterable[Atom]) -> Dim:
    """The atoms with neighbours that continue each other made one."""
    result: list[Atom] = []
    for atom in atoms:
        last = result[-1] if result else None
        if last and last.axis == atom.axis and atom.size.is_Integer and last.stride == atom.stride * int(atom.size):
            result[-1] = Atom(atom.axis, last.size * atom.size, atom.stride)
        else:
            result.append(atom)
    return tuple(result)


def lifted(value: Value, rank: int) -> Value:
    """The tensor with dimensions of size 1 in front up to `rank`, as broadcasting reads it."""
    missing = rank - len(value.dims)
    return replace(value, dims=((),) * missing + value.dims, shape=(ONE,) * missing + value.shape)


def collapsed(value: Value) -> Value:
    """The tensor before it was expanded: for operators that broadcast anyway."""
    return replace(value, shape=tuple(product(a.size for a in dim) for dim in value.dims))


def alike(a: Value, b: Value) -> bool:
    """Whether two tensors of equal rank, broadcast against each other, are the broadcast of their stored values.

    Torch has found the shapes to fit, so sizes that are both symbols are equal even where sympy cannot tell.
    """
    if len(a.sizes) != len(b.sizes):
        return False
    for p, q in zip(a.dims, b.dims, strict=True):
        if p and q and not (len(p) == len(q) and all(map(_matches, p, q))):
            return False
        if any(not same(b.sizes[atom.axis], ONE) for atom in p if not q) or any(not same(a.sizes[atom.axis], ONE) for atom in q if not p):
            return False
    return True


def _matches(a: Atom, b: Atom) -> bool:
    return (a.axis, a.stride) == (b.axis, b.stride) and (same(a.size, b.size) or not (a.size.is_Integer or b.size.is_Integer))
