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
from typing import Any

import sympy
import torch
from torch import fx

Size = sympy.Expr


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
    return () if same(size, sympy.Integer(1)) else (Atom(axis, size),)


def stored_dims(sizes: Sequence[Size]) -> tuple[Dim, ...]:
    """The dimensions of a tensor that lies as it is stored."""
    return tuple(whole(axis, size) for axis, size in enumerate(sizes))


def stored(name: str, sizes: Sequence[Size]) -> Value:
    """The tensor that is the stored value `name` itself."""
    return Value(name, tuple(sizes), stored_dims(sizes), tuple(sizes))


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
    """The tensor read in order into `shape`; None where a dimension would split a symbolic size or two sizes without common divisor."""
    atoms = [atom for dim in value.dims for atom in dim]
    dims: list[Dim] = []
    for size in shape:
        taken: list[Atom] = []
        while not same(have := product(a.size for a in taken), size):
            if not atoms:
                return None
            atom = atoms.pop(0)
            if size.is_Integer and have.is_Integer and atom.size.is_Integer and have * atom.size > size:
                outer, rest = divmod(int(size), int(have))
                inner, uneven = divmod(int(atom.size), outer) if outer and not rest else (0, 1)
                if uneven:
                    return None
                atoms.insert(0, Atom(atom.axis, sympy.Integer(inner), atom.stride))
                atom = Atom(atom.axis, sympy.Integer(outer), atom.stride * inner)
            taken.append(atom)
        dims.append(joined(taken))
    return replace(value, dims=tuple(dims), shape=tuple(shape), origin=origin) if not atoms else None


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
    return replace(value, dims=((),) * missing + value.dims, shape=(sympy.Integer(1),) * missing + value.shape)


def alike(a: Value, b: Value) -> bool:
    """Whether two tensors of equal rank, broadcast against each other, are the broadcast of their stored values."""
    if len(a.sizes) != len(b.sizes):
        return False
    one = sympy.Integer(1)
    for x, y in zip(a.sizes, b.sizes, strict=True):
        if not (same(x, y) or same(x, one) or same(y, one)):
            return False
    for p, q in zip(a.dims, b.dims, strict=True):
        if p and q and p != q:
            return False
        if not q and any(not same(b.sizes[atom.axis], one) for atom in p):
            return False
        if not p and any(not same(a.sizes[atom.axis], one) for atom in q):
            return False
    return True
