"""Brings a tensor that torch code has viewed, permuted or split into the order in which an operator needs it, with the fewest nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from cosparse.compress.importer.convolution import unshuffled
from cosparse.compress.importer.draft import Draft
from cosparse.compress.importer.layout import ONE, Atom, Dim, Size, Value, axis_of, joined, product, same, stored, stored_dims, whole
from cosparse.compress.importer.names import base, path, place

MOST_BLOCK = 65535  # of a depth_to_space


def as_stored(draft: Draft, value: Value, user: fx.Node) -> Value | str:
    """The stored value that lies as the tensor `value` does, made where there is none yet; a reason where that cannot be had.

    New nodes are named after the last layout operation (`user` where there was none).
    """
    if value.dims == stored_dims(value.sizes) and len(value.sizes) == len(value.shape) and not value.expanded:
        return value
    if len(value.shape) not in (2, 4):
        return f"a tensor of rank {len(value.shape)}: values have rank 2 or 4"
    if value.dims[0] != whole(0, value.sizes[0]):
        return "the batch mixed with another axis"
    key = (value.name, value.dims, value.shape)
    if key not in draft.arranged:
        name = _repeated(draft, value, user) if value.expanded else _arranged(draft, value, value.origin or user)
        if name is None:
            what = "an expansion" if value.expanded else "an order of dimensions"
            return f"{what} that no operator gives, to shape {in_words(value.shape)}" + _made(value.origin, user)
        draft.arranged[key] = name
    return stored(draft.arranged[key], value.shape)


def in_words(shape: Sequence[Size]) -> str:
    """A shape whose free sizes are named N, H and W, in place of the symbols that stand for them."""
    letters = "NCHW" if len(shape) == 4 else "N" + "?" * len(shape)
    return f"[{', '.join(str(size) if size.is_Integer else letter for size, letter in zip(shape, letters, strict=False))}]"


def _made(origin: fx.Node | None, user: fx.Node) -> str:
    """Where the layout comes from, if not from the operation that cannot take it."""
    return f", made by {place(origin)}" if origin is not None and origin is not user else ""


def _arranged(draft: Draft, value: Value, origin: fx.Node) -> str | None:
    flat = [atom for dim in value.dims for atom in dim]
    ordered = sorted(flat, key=lambda atom: (atom.axis, -atom.stride))
    if flat == ordered:
        op = "flatten" if base(origin.target) == "flatten" else "reshape"
        return _reshape(draft, path(origin, op), value.name, value.sizes, value.shape)
    if len(value.sizes) == 2:
        return _rows(draft, value, origin)
    if (order := _whole_axes(value)) is not None:
        return draft.add(path(origin, "permute"), "permute", [value.name], {"order": order}, {})
    if (groups := _shuffle(value)) is not None:
        return draft.add(path(origin, "channel_shuffle"), "channel_shuffle", [value.name], {"groups": groups}, {})
    if (block := _depth_to_space(value)) is not None:
        size, order_name = block
        attrs = {"block": size, "order": order_name, "crop": [0, 0, 0, 0]}
        return draft.add(path(origin, "depth_to_space"), "depth_to_space", [value.name], attrs, {})
    if (moved := _space_to_depth(draft, value, origin)) is not None:
        return _arranged(draft, moved, origin) if moved.dims != stored_dims(moved.sizes) else moved.name
    return _by_runs(draft, value, origin)


def _rows(draft: Draft, value: Value, origin: fx.Node) -> str | None:
    """Features in another order: as channels of an image of one pixel, since what moves channels takes rank 4."""
    name, unit = path(origin, "reshape"), (ONE, ONE)
    image = _reshape(draft, f"{name}.before", value.name, value.sizes, (*value.sizes, *unit))
    if image is None or len(value.shape) == 4:
        return image and _arranged(draft, replace(value, name=image, sizes=(*value.sizes, *unit)), origin)
    moved = Value(image, (*value.sizes, *unit), (*value.dims, (), ()), (*value.shape, *unit))
    arranged = _arranged(draft, moved, origin)
    return arranged and _reshape(draft, f"{name}.after", arranged, moved.shape, value.shape)


def _repeated(draft: Draft, value: Value, user: fx.Node) -> str | None:
    """An expanded tensor: a channel is joined with itself, a pixel repeated over height and width by a nearest-neighbour upsampling."""
    name, count = path(value.origin or user, "expand"), value.shape[1]
    if not value.dims[1] and count.is_Integer and count > 1:
        one = as_stored(draft, replace(value, shape=(value.shape[0], ONE, *value.shape[2:])), user)
        return None if isinstance(one, str) else draft.add(name, "concat", [one.name] * int(count), {"axis": 1}, {})
    if len(value.shape) != 4 or any(value.dims[2:]) or not all(size.is_Integer for size in value.shape[2:]):
        return None
    pixel = as_stored(draft, Value(value.name, value.sizes, value.dims, (*value.shape[:2], ONE, ONE)), user)
    if isinstance(pixel, str):
        return None
    attrs = {"mode": "nearest", "size": [int(size) for size in value.shape[2:]], "factor": [0, 0], "align_corners": 0}
    return draft.add(name, "upsample", [pixel.name], attrs, {})


def _reshape(draft: Draft, name: str, source: str, before: Sequence[Size], after: Sequence[Size]) -> str | None:
    """A reshape node from sizes `before` to `after` (both with N), `source` itself where they are the same.

    None where more than one new size would depend on the input's.
    """
    if len(before) == len(after) and all(map(same, before, after)):
        return source
    if len(after) == 2:
        sizes = [-1]
    else:
        kept = [len(before) == len(after) and same(a, b) for a, b in zip(before, after, strict=False)] + [False] * 2
        sizes = [int(size) if size.is_Integer else 0 if keep else -1 for keep, size in zip(kept[1:], after[1:], strict=False)]
    return None if sizes.count(-1) > 1 else draft.add(name, "reshape", [source], {"shape": sizes}, {})


def _whole_axes(value: Value) -> list[int] | None:
    """The order of a permute: dimension i is stored axis order[i]. Axes of size 1 take what places are left."""
    if len(value.sizes) != 4 or len(value.dims) != 4:
        return None
    axes = [axis_of(value, i) for i in range(4)]
    if any(dim and axis is None for dim, axis in zip(value.dims, axes, strict=True)):
        return None
    axes[0] = 0
    spare = [axis for axis in range(4) if axis not in axes]
    return [spare.pop(0) if axis is None else axis for axis in axes]


def _shuffle(value: Value) -> int | None:
    """Groups of a channel shuffle: channels (a, b) read as (b, a), all else in place."""
    match value.dims:
        case (_, (Atom(1, _, 1), Atom(1, groups, _)), *rest) if groups.is_Integer and [*rest] == [
            whole(i + 2, s) for i, s in enumerate(value.sizes[2:])
        ]:
            return int(groups)
    return None


def _depth_to_space(value: Value) -> tuple[list[int], str] | None:
    """Block and order where channels (c, i, j) or (i, j, c) go to rows (h, i) and columns (w, j)."""
    if len(value.sizes) != 4 or len(value.dims) != 4:
        return None
    channels, rows, columns = value.dims[1:]
    h, w = whole(2, value.sizes[2]), whole(3, value.sizes[3])
    i, j = rows[len(h) :], columns[len(w) :]
    if rows[: len(h)] != h or columns[: len(w)] != w or any(a.axis != 1 for a in (*channels, *i, *j)):
        return None
    sizes = [product(a.size for a in i), product(a.size for a in j)]
    if not all(size.is_Integer and size <= MOST_BLOCK for size in sizes):
        return None
    block = [int(size) for size in sizes]
    axis = whole(1, value.sizes[1])
    for order, atoms in (("crd", (*channels, *i, *j)), ("dcr", (*i, *j, *channels))):
        if joined(atoms) == axis:
            return block, order
    return None


def _space_to_depth(draft: Draft, value: Value, origin: fx.Node) -> Value | None:
    """Where rows (h, i) and columns (w, j) go to h, w and channels, in any order with these: the value with channels (c, i, j)."""
    if len(value.sizes) != 4 or len(value.dims) != 4:
        return None
    channels, block = value.sizes[1], [ONE, ONE]
    for atom in value.dims[1]:
        if atom.axis > 1 and atom.stride == 1:
            block[atom.axis - 2] *= atom.size
    i, j = block
    inner = [(Atom(axis, n),) if n != 1 else () for axis, n in ((2, i), (3, j))]
    rest = [joined((*value.dims[axis], *inner[axis - 2])) == whole(axis, value.sizes[axis]) for axis in (2, 3)]
    if not (channels.is_Integer and i.is_Integer and j.is_Integer and all(rest)) or not 1 < i * j <= MOST_BLOCK:
        return None
    sizes = (value.sizes[0], channels * i * j, *value.shape[2:])
    strides = {1: i * j, 2: j, 3: ONE}
    dim = tuple(Atom(1, a.size, a.stride * int(strides[a.axis])) for a in value.dims[1])
    if product(a.size for a in dim) != sizes[1]:
        return None
    name = unshuffled(draft, value.name, int(channels), int(i), int(j), path(origin, "space_to_depth"))
    return Value(name, sizes, (value.dims[0], joined(dim), *stored_dims(sizes)[2:]), value.shape, origin)


def _by_runs(draft: Draft, value: Value, origin: fx.Node) -> str | None:
    """Reshape, permute, reshape: where the order has at most three runs of atoms that lie together."""
    flat = list(joined(atom for dim in value.dims for atom in dim))
    ordered = sorted(flat, key=lambda atom: (atom.axis, -atom.stride))
    runs: list[Dim] = []
    for atom in flat[1:]:
        if len(flat) > 4 and runs and (at := ordered.index(runs[-1][-1]) + 1) < len(ordered) and ordered[at] == atom:
            runs[-1] += (atom,)
        else:
            runs.append((atom,))
    if len(runs) > 3:
        return None
    stored_runs = sorted(runs, key=lambda run: ordered.index(run[0]))
    between = [value.sizes[0], *(product(a.size for a in run) for run in stored_runs), *[ONE] * (3 - len(runs))]
    order = [0, *(1 + stored_runs.index(run) for run in runs), *range(1 + len(runs), 4)]
    name = path(origin, "permute")
    first = _reshape(draft, f"{name}.before", value.name, value.sizes, between)
    if first is None:
        return None
    middle = draft.add(name, "permute", [first], {"order": order}, {})
    return _reshape(draft, f"{name}.after", middle, [between[i] for i in order], value.shape)
