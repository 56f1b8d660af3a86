"""A transform as an object: S = T W along up to three axes of a weight [O, C, R, S] or [O, F], each orthonormal.

    taps       one matrix [R S, R S] for all filters and channels
    channels   tiles of `channels_tile` consecutive input channels, a matrix for all of them or one for each
    filters    tiles of `filters_tile` consecutive filters, one matrix for all of them

Along channels and filters, what is left over after the last whole tile stays as it is. The axes are independent of each other, so their
order does not matter; a 1x1 layer has no taps to transform. T is orthonormal, so its inverse is its transpose along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

from cosparse.compress.transforms.dct import dct_matrix
from cosparse.compress.transforms.walsh import walsh_matrix
from cosparse.errors import Error

Array = TypeVar("Array", np.ndarray, torch.Tensor)

MATRIX = "matrix"
"""The kind of an axis whose matrices the transform holds."""


@dataclass(frozen=True, eq=False)
class Transform:
    """`taps`, `channels`, `filters`: identity, dct, walsh or matrix (not all along each axis).

    `basis`: float64 [R S, R S] where taps is "matrix"; `tiles`: float64 [C // channels_tile, channels_tile, channels_tile] where channels
    is. `source` says what made the matrices: "klt", "random:7". Equal where every bit is.
    """

    taps: str = "identity"
    channels: str = "identity"
    channels_tile: int = 0
    filters: str = "identity"
    filters_tile: int = 0
    source: str = ""
    basis: np.ndarray | None = None
    tiles: np.ndarray | None = None

    def __post_init__(self) -> None:
        for role, kind in (("basis", self.taps), ("tiles", self.channels)):
            matrices = getattr(self, role)
            if (matrices is None) != (kind != MATRIX):
                found = "none" if matrices is None else "some"
                raise Error(f"transform {self.source or kind}", f"matrices exactly where the kind is matrix ({role})", found)
            if matrices is not None:
                matrices.flags.writeable = False

    @property
    def name(self) -> str:
        """As a user asks for it: "identity", "dct", "dct+walsh:16", "two-sided-walsh:8", "klt", "klt:16", "random:7", ..."""
        words = {"identity": [], MATRIX: [self.source]}.get(self.taps, [self.taps])
        if self.channels == self.filters != "identity" and self.channels_tile == self.filters_tile:
            return "+".join([*words, f"two-sided-{self.channels}:{self.channels_tile}"])
        if self.channels != "identity":
            kind = {"dct": "dct-channels", MATRIX: self.source}.get(self.channels, self.channels)
            words = [*words, f"{kind}:{self.channels_tile}"]
        if self.filters != "identity":
            words = [*words, f"{self.filters}-filters:{self.filters_tile}"]
        return "+".join(words) or "identity"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        return self.name == other.name and _same(self.basis, other.basis) and _same(self.tiles, other.tiles)

    def __hash__(self) -> int:
        heads = (matrices.ravel()[:8].tobytes() for matrices in (self.basis, self.tiles) if matrices is not None)
        return hash((self.name, *heads))

    @property
    def unit(self) -> int:
        """Input channels that share one basis step: a tile where channels are transformed, else 1."""
        return max(1, self.channels_tile)

    def forward(self, weight: Array) -> Array:
        """Coefficients S of weights W, same shape and kind (numpy or torch). Raises Error where the weight does not fit the matrices."""
        return self._applied(weight, backward=False)

    def inverse(self, coefficients: Array) -> Array:
        """Weights W of coefficients S."""
        return self._applied(coefficients, backward=True)

    def _applied(self, weight: Array, backward: bool) -> Array:
        kernel = (int(weight.shape[2]), int(weight.shape[3])) if weight.ndim == 4 else (1, 1)
        self._check(weight, kernel)
        x = weight
        if self.taps != "identity" and kernel != (1, 1):
            matrix = placed(self, "taps", kernel, weight)
            x = (x.reshape(-1, kernel[0] * kernel[1]) @ (matrix if backward else matrix.T)).reshape(weight.shape)
        for axis, kind, points in (("filters", self.filters, self.filters_tile), ("channels", self.channels, self.channels_tile)):
            if kind != "identity" and points <= weight.shape[axis == "channels"]:
                matrices = placed(self, axis, kernel, weight)  # [T or 1, points, points]
                x = along(x, matrices if backward else matrices.swapaxes(1, 2), axis == "channels")
        return x

    def _check(self, weight: Array, kernel: tuple[int, int]) -> None:
        taps, got = kernel[0] * kernel[1], f"weights {list(weight.shape)}"
        if self.basis is not None and len(self.basis) != taps:
            raise Error(f"transform {self}", f"weights of {len(self.basis)} taps, as its matrix", got)
        if self.tiles is not None and len(self.tiles) != weight.shape[1] // self.channels_tile:
            raise Error(f"transform {self}", f"weights of {len(self.tiles)} tiles of {self.channels_tile} channels, as its matrices", got)

    def matrices(self, axis: str, kernel: tuple[int, int] = (1, 1)) -> np.ndarray:
        """The matrix along the taps [R S, R S] ("taps"), or those along "channels" or "filters" [tiles or 1, points, points], float64."""
        if axis == "taps":
            if self.basis is not None:
                return self.basis
            return np.kron(dct_matrix(kernel[0]), dct_matrix(kernel[1])) if self.taps == "dct" else np.eye(kernel[0] * kernel[1])
        if axis == "channels" and self.tiles is not None:
            return self.tiles
        kind, points = (self.channels, self.channels_tile) if axis == "channels" else (self.filters, self.filters_tile)
        return (walsh_matrix(points) if kind == "walsh" else dct_matrix(points))[None]


IDENTITY = Transform()


def along(x: Array, matrices: Array, axis: int) -> Array:
    """Each whole tile of x along axis 0 or 1, as row vectors, times its matrix [T or 1, n, n]; the rest as it is."""
    points, length = int(matrices.shape[1]), int(x.shape[axis])
    tiles, outer, inner = length // points, int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis + 1 :]))
    flat = x.reshape(outer, length, inner)
    whole = _turned(flat[:, : tiles * points].reshape(outer, tiles, points, inner), (1, 0, 3, 2))  # [tiles, outer, inner, points]
    done = (whole.reshape(tiles, outer * inner, points) @ matrices).reshape(whole.shape)
    done = _turned(done, (1, 0, 3, 2)).reshape(outer, tiles * points, inner)
    parts: Any = (done, flat[:, tiles * points :])
    return (torch.cat(parts, 1) if isinstance(x, torch.Tensor) else np.concatenate(parts, 1)).reshape(x.shape)


def _turned(x: Any, axes: tuple[int, ...]) -> Any:
    return x.permute(axes) if isinstance(x, torch.Tensor) else x.transpose(axes)


def placed(transform: Transform, axis: str, kernel: tuple[int, int], like: Array) -> Array:
    """The transform's matrices along an axis, of the kind, dtype and place of `like`; float64 where that is numpy."""
    if isinstance(like, torch.Tensor):
        return _torch_matrices(transform, axis, kernel, like.dtype, like.device)
    return _matrices(transform, axis, kernel)


@lru_cache(maxsize=256)
def _matrices(transform: Transform, axis: str, kernel: tuple[int, int]) -> np.ndarray:
    return transform.matrices(axis, kernel)


@lru_cache(maxsize=256)
def _torch_matrices(transform: Transform, axis: str, kernel: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(_matrices(transform, axis, kernel), dtype=dtype, device=device)


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or (a is not None and b is not None and a.shape == b.shape and a.tobytes() == b.tobytes())
