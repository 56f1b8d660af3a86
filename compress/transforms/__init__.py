"""Orthonormal transforms of weights, in which masks make them sparse, and what the transform of the activations costs at run time.

The functions take a `Transform` as a layer's choice or mask holds it, or the name of one that needs no fit ("dct", "walsh:16").
"""

from __future__ import annotations

from functools import lru_cache

from cosparse.compress.transforms import cost
from cosparse.compress.transforms.activations import apply
from cosparse.compress.transforms.dct import dct_matrix
from cosparse.compress.transforms.spec import Spec, parse, restored
from cosparse.compress.transforms.transform import IDENTITY, Array, Transform
from cosparse.errors import Error

__all__ = [
    "IDENTITY",
    "Spec",
    "Transform",
    "apply",
    "basis_cost",
    "dct_matrix",
    "forward",
    "inverse",
    "output_cost",
    "parse",
    "resolved",
    "restored",
    "stored",
]


def resolved(transform: Transform | str) -> Transform:
    """The transform itself, or that of a name without matrices; Error for the name of a fitted or random one."""
    return transform if isinstance(transform, Transform) else _named(transform)


@lru_cache(maxsize=64)
def _named(name: str) -> Transform:
    spec = parse(name)
    if spec.source:
        raise Error("transform", "a transform without matrices of a layer's own", repr(name), "take the one of the layer's mask or choice")
    return spec.fixed


def forward(weight: Array, transform: Transform | str) -> Array:
    """Coefficients S of weights W, same shape ([O, C, R, S], or [O, F]) and kind (numpy or torch)."""
    return resolved(transform).forward(weight)


def inverse(coefficients: Array, transform: Transform | str) -> Array:
    """Weights W of coefficients S: the transpose of `forward`, which is its inverse."""
    return resolved(transform).inverse(coefficients)


def basis_cost(transform: Transform | str, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> float:
    """Multiply-add equivalents of the basis step, per input channel and output pixel, by the rule in cost.py. Identity: 0."""
    return cost.channel_cost(resolved(transform), kernel, stride)


def output_cost(transform: Transform | str, filters: int) -> float:
    """Multiply-add equivalents of the step behind the product, per output pixel: 0 unless filters are transformed."""
    return cost.output_cost(resolved(transform), filters)


def stored(transform: Transform | str) -> int:
    """Numbers that a transform's own matrices take."""
    return cost.stored(resolved(transform))
