"""Channels, rows or columns in another order or several times: slices, joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import ONE, Atom, Size, Value, axis_of, lifted, same, size_of
from cosparse.compress.importer.ops_join import joined
from cosparse.compress.importer.ops_slice import part
from cosparse.compress.importer.table import handles

MOST_PIECES = 16
"""Of height or width, each piece is a pass over the whole map."""


@handles("index", "index_select")
def index(call: Call) -> Value:
    if call.op == "index_select":
        return _picked(call, call.value(), call.dim(), call.constant("index").astype(int).tolist())
    where = [(dim, item) for dim, item in enumerate(call.get("indices")) if item is not None]
    if len(where) != 1 or not isinstance(where[0][1], Tensor) or where[0][1].ndim != 1:
        raise Unsupported("indices that are computed, or of more than one dimension")
    dim, item = where[0]
    chosen = item.nonzero()[:, 0] if item.dtype == torch.bool else item
    return _picked(call, call.value(), dim, chosen.tolist())


@handles("flip")
def flip(call: Call) -> Value:
    x = call.value()
    for dim in call.integers("dims", 1):
        x = _picked(call, x, dim % len(x.shape), range(call.fixed(x.shape[dim], "a flipped axis") - 1, -1, -1))
    return x


@handles("roll")
def roll(call: Call) -> Value:
    x, dims = call.value(), call.integers("dims", 1)
    if not dims:
        raise Unsupported("a roll over all dimensions as one")
    for shift, dim in zip(call.integers("shifts", 1), dims, strict=True):
        size = x.shape[dim]
        cut = size_of(-shift % int(size)) if size.is_Integer else size - shift if shift > 0 else size_of(-shift)
        if not (same(cut, size_of(0)) or same(cut, size)):
            dim %= len(x.shape)
            halves = [part(call, x, dim, cut, size, suffix="last"), part(call, x, dim, size_of(0), cut, suffix="first")]
            x = joined(call, halves, dim, x.shape)
    return x


@handles("repeat", "tile")
def repeat(call: Call) -> Value:
    """Copies, joined; where the size was 1, the value is only expanded."""
    counts = [call.size(n) for n in call.arguments["repeats" if call.op == "repeat" else "dims"]]
    x = lifted(call.value(), len(counts))
    counts = [ONE] * (len(x.shape) - len(counts)) + counts
    for dim, count in enumerate(counts):
        if same(count, ONE):
            continue
        shape = tuple(size * count if i == dim else size for i, size in enumerate(x.shape))
        if not x.dims[dim] and same(x.shape[dim], ONE):
            x = replace(x, shape=shape, origin=call.node)
        else:
            x = joined(call, [x] * call.fixed(count, "a number of copies"), dim, shape)
    return x


@handles("repeat_interleave")
def repeat_interleave(call: Call) -> Value:
    """All copies side by side, then read with the copy as the faster factor."""
    x, count = call.value(), call.get("repeats")
    dim = call.dim() if call.arguments.get("dim") is not None else -1
    if not isinstance(count, int) or dim < 0 or x.expanded or axis_of(x, dim) != 1:
        raise Unsupported("a repetition of other elements than channels, or a computed one")
    channels = call.fixed(x.sizes[1], "channels")
    copies = joined(call, [x] * count, dim, call.shape)
    atoms = (Atom(1, size_of(channels), 1), Atom(1, size_of(count), channels))
    dims = tuple(tuple(a for a in atoms if a.size != 1) if i == dim else d for i, d in enumerate(copies.dims))
    return replace(copies, dims=dims, origin=call.node)


def _picked(call: Call, x: Value, dim: int, indices: Sequence[int]) -> Value:
    """x[indices] along `dim`: a slice for each run of indices with the same step upwards."""
    if x.expanded or (axis_of(x, dim) is None and x.dims[dim]):
        x = call.as_stored(x)
    size = call.fixed(x.shape[dim], "an indexed axis")
    runs = _runs([i % size for i in indices])
    if len(runs) > MOST_PIECES and axis_of(x, dim) != 1:
        raise Unsupported(f"an order of rows, columns or images in more than {MOST_PIECES} pieces")
    steps = [run[1] - run[0] if len(run) > 1 else 1 for run in runs]
    pieces = [part(call, x, dim, size_of(run[0]), size_of(run[-1] + 1), step) for run, step in zip(runs, steps, strict=True)]
    shape: list[Size] = [size_of(len(indices)) if i == dim else s for i, s in enumerate(x.shape)]
    return joined(call, pieces, dim, shape)


def _runs(indices: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for i in indices:
        last = runs[-1] if runs else []
        if last and i > last[-1] and (len(last) == 1 or i - last[-1] == last[1] - last[0]):
            last.append(i)
        else:
            runs.append([i])
    return runs
