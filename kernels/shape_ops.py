"""concat, slice, pad, reshape, permute: the same numbers in another arrangement; constant: numbers of its own.

    x  [N, C, H, W] or [N, F]   any float; rank 2 has C = F, H = W = 1
    y  float64

concat   joins along `axis`, 1..3
slice    takes start, start + step, ... below stop along `axis`; negative bounds count from the end, bounds beyond the end are the end
pad      puts `before` and `after` [c, h, w] around: `value` (constant), the mirror image without the edge (reflect), the edge (replicate)
reshape  to `shape` after N; 0 keeps the input's size at that place, one -1 takes what is left
permute  makes x's axis order[i] y's axis i
constant gives `values` [F] or [C, H, W] float32 for each image of x, of which it reads nothing: [N, F] or [N, C, H, W]

Refused (ShapeError): sizes that do not fit; an empty result; a reflection wider than the image.
"""

from __future__ import annotations

import math

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, require


def concat(node: Node, *inputs: Array) -> Array:
    axis = node.attrs["axis"]
    rest = {(x.ndim, x.shape[:axis], x.shape[axis + 1 :]) for x in inputs}
    require(len(rest) == 1 and axis < inputs[0].ndim, node, f"inputs that differ only along axis {axis}", *inputs)
    return np.concatenate(inputs, axis)


def slice_(node: Node, x: Array) -> Array:
    axis = node.attrs["axis"]
    require(axis < x.ndim, node, f"an input with axis {axis}", x)
    window = slice(node.attrs["start"], node.attrs["stop"], node.attrs["step"])
    y = x[(slice(None),) * axis + (window,)]
    require(y.shape[axis] > 0, node, f"an input that has pixels in {window.start}:{window.stop} of axis {axis}", x)
    return y


def pad(node: Node, x: Array) -> Array:
    before, after, mode = node.attrs["before"], node.attrs["after"], node.attrs["mode"]
    require(x.ndim == 4, node, "an input [N, C, H, W]", x)
    widest = [max(b, a) for b, a in zip(before, after, strict=True)]
    mirrored = mode != "reflect" or all(w < size for w, size in zip(widest, x.shape[1:], strict=True))
    require(mirrored, node, f"an input larger than the reflected {widest}", x)
    widths = [(0, 0), *zip(before, after, strict=True)]
    if mode == "constant":
        return np.pad(x, widths, constant_values=node.attrs["value"])
    return np.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")


def reshape(node: Node, x: Array) -> Array:
    own = (*x.shape[1:], 1, 1)
    sizes = [size or own[i] for i, size in enumerate(node.attrs["shape"])]
    count, known = math.prod(x.shape[1:]), math.prod(size for size in sizes if size != -1)
    fits = count % known == 0 if -1 in sizes else count == known
    require(fits, node, f"an input that reshapes to [N, {', '.join(map(str, sizes))}]", x)
    return x.reshape(x.shape[0], *(count // known if size == -1 else size for size in sizes))


def permute(node: Node, x: Array) -> Array:
    require(x.ndim == 4, node, "an input [N, C, H, W]", x)
    return np.ascontiguousarray(x.transpose(node.attrs["order"]))


def constant(node: Node, x: Array) -> Array:
    return np.repeat(node.tensors["values"].astype(np.float64)[None], len(x), axis=0)


REFERENCES: dict[str, Reference] = {
    "concat": concat,
    "slice": slice_,
    "pad": pad,
    "reshape": reshape,
    "permute": permute,
    "constant": constant,
}
