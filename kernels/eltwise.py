"""add, sub, mul, div, maximum, minimum, affine: y = a op b, and y = scale[c] x + shift[c].

    a, b          [N, C, H, W] or [N, F]   any float; each of N, C, H, W equal, or 1 in one of the two
    scale, shift  [C]                      float32
    y             the broadcast shape      float64; maximum and minimum are NaN where either is

Refused (ShapeError): shapes that do not broadcast; ranks that differ; a channel count other than the tensors'.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, per_channel, require


def _binary(ufunc: Callable[[Array, Array], Array]) -> Reference:
    def reference(node: Node, a: Array, b: Array) -> Array:
        fits = a.ndim == b.ndim and all(m == n or 1 in (m, n) for m, n in zip(a.shape, b.shape, strict=True))
        require(fits, node, "two inputs whose sizes are equal or 1", a, b)
        return ufunc(a, b)

    return reference


def affine(node: Node, x: Array) -> Array:
    scale, shift = node.tensors["scale"], node.tensors["shift"]
    require(x.shape[1] == len(scale), node, f"{len(scale)} channels", x)
    return per_channel(scale, x) * x + per_channel(shift, x)


REFERENCES: dict[str, Reference] = {
    "add": _binary(np.add),
    "sub": _binary(np.subtract),
    "mul": _binary(np.multiply),
    "div": _binary(np.divide),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "affine": affine,
}
