"""What a conv node of one group means in bfloat16 and int8: the kernels' roundings in NumPy, and how far from it they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nodes import FakeNode

from cosparse.kernels.basis import basis_step
from cosparse.kernels.conv import coefficients, unpack
from cosparse.kernels.transform import dct_matrix
from cosparse.kernels.window import output_sizes

EPS = float(np.finfo(np.float32).eps)
BF16_ULP = 2.0**-7  # of 1
DCT3 = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])  # the 3-point DCT without its scales, which the weights take
DCT3_SCALES = np.array([1 / 3, 1 / 2, 1 / 6]) ** 0.5


def round_bf16(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of finite numbers, ties to even, as float64."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Product:
    """A convolution as the kernels see it: y = values @ maps + bias.

    values [O, K] float32; maps [N, K, P] float64; size (Ho, Wo); exact: float32 has these maps without rounding, if x is of few bits;
    transformed: maps of different taps are different functions of the source.
    """

    values: np.ndarray
    maps: np.ndarray
    bias: np.ndarray
    size: tuple[int, int]
    taps: int
    exact: bool
    transformed: bool

    def image(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(len(y), -1, *self.size)


def product_of(node: FakeNode, x: np.ndarray, *, transformed: bool) -> Product:
    """transformed: the coefficients meet the maps of the DCT; else the weights, transformed back, meet the taps."""
    size = output_sizes(node, x, node.attrs["kernel"], node.attrs["dilation"])
    rows, columns = node.attrs["kernel"]
    plain = FakeNode(node.name, node.op, node.inputs, node.attrs | {"transform": "identity"}, node.tensors)
    taps = basis_step(plain, x.astype(np.float64), size)
    values, vertical, horizontal = unpack(node), np.eye(rows), np.eye(columns)
    if transformed:
        values, vertical, horizontal = coefficients(node), dct_matrix(rows), dct_matrix(columns)
    if transformed and (rows, columns) == (3, 3):
        values, vertical, horizontal = values * np.outer(DCT3_SCALES, DCT3_SCALES), DCT3, DCT3
    maps = np.einsum("ui,vj,ncijp->ncuvp", vertical, horizontal, taps, optimize=True).reshape(len(x), -1, size[0] * size[1])
    filters = len(values)
    bias = node.tensors.get("bias", np.zeros(filters, np.float32))
    exact = not transformed or (rows, columns) == (3, 3)
    values, bias = values.reshape(filters, -1).astype(np.float32), bias.astype(np.float64)[:, None]
    return Product(values, maps, bias, size, rows * columns, exact, transformed)


def in_bf16(p: Product) -> tuple[np.ndarray, np.ndarray]:
    """y of weights and maps rounded to bfloat16, and the bound on what float32 sums make of it, both [N, O, Ho, Wo].

    Products of bfloat16 are exact in float32; of their sums each rounding is at most eps / 2 of the sum of magnitudes. A map that float32
    has not exactly may end one ulp beside ours.
    """
    values, maps = round_bf16(p.values), round_bf16(p.maps)
    y, magnitude = values @ maps + p.bias, np.abs(values) @ np.abs(maps)
    bound = EPS * (p.values.shape[1] + 4) * (magnitude + np.abs(p.bias)) + (0 if p.exact else BF16_ULP * magnitude)
    return p.image(y), p.image(bound)


@dataclass(frozen=True)
class Steps:
    """A map of tap t is stored as round(x / step[t] + zero[t]) in 0..255."""

    step: np.ndarray
    zero: np.ndarray


def steps_for(samples: Product) -> Steps:
    """The steps that calibration takes: all 256 numbers upwards of 0 where nothing is negative, else 128 on either side.

    Where taps are maps they share one step.
    """
    by_tap = samples.maps.reshape(len(samples.maps), -1, samples.taps, samples.maps.shape[-1]).astype(np.float32)
    low, high = by_tap.min(axis=(0, 1, 3)), by_tap.max(axis=(0, 1, 3))
    if not samples.transformed:
        low[:], high[:] = low.min(), high.max()
    one = np.float32
    step = np.where(low < 0, np.maximum(-low / one(128), high / one(127)), high / one(255))
    return Steps(step, np.where(low < 0, one(128), one(0)))


@dataclass(frozen=True)
class Quantized:
    """y = scale * (weights @ numbers) + bias. weights [O, K], numbers [N, K, P]: whole numbers in float64."""

    weights: np.ndarray
    numbers: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    @property
    def y(self) -> np.ndarray:
        return self.weights @ self.numbers * self.scale + self.bias

    @property
    def largest_sum(self) -> float:
        return float((np.abs(self.weights) @ self.numbers).max())


def in_int8(p: Product, steps: Steps, *, fused: bool) -> Quantized:
    """fused: product and sum of a map's number in one rounding."""
    each = p.values.shape[1] // p.taps
    step, zero = np.tile(steps.step, each), np.tile(steps.zero, each)[:, None]
    inverse = np.where(step > 0, np.float32(1) / np.where(step > 0, step, np.float32(1)), np.float32(0))[:, None]
    scaled = p.values * step
    most = np.abs(scaled).max(axis=1, keepdims=True)
    scale = np.where(most > 0, most / np.float32(127), np.float32(1))
    weights = np.rint(scaled / scale).astype(np.float64)
    bias = (p.bias - (weights @ zero.astype(np.float64) * scale).astype(np.float32)).astype(np.float32)
    maps = p.maps.astype(np.float32)
    shifted = (maps.astype(np.float64) * inverse + zero).astype(np.float32) if fused else maps * inverse + zero
    return Quantized(weights, np.clip(np.rint(shifted), 0, 255).astype(np.float64), scale.astype(np.float64), bias.astype(np.float64))


def int8_error(p: Product, steps: Steps, q: Quantized) -> np.ndarray:
    """How far int8 may be from the real convolution, [N, O, P]: half a step a map within the calibrated range, half a scale a weight."""
    each = p.values.shape[1] // p.taps
    step, zero = (np.tile(a, each)[:, None].astype(np.float64) for a in (steps.step, steps.zero))
    of_maps = np.abs(p.values.astype(np.float64)) @ (step / 2)
    of_weights = np.abs((q.numbers - zero) / 2).sum(axis=1, keepdims=True) * q.scale
    return of_maps + of_weights


def few_bits(rng: np.random.Generator, *shape: int, low: int = -96, high: int = 96) -> np.ndarray:
    """Multiples of 1/32: sums of nine of them, each times at most 4, are exact in float32."""
    return (rng.integers(low, high, shape, endpoint=True) / 32).astype(np.float32)


def assert_within(got: np.ndarray, want: np.ndarray, bound: np.ndarray | float) -> None:
    assert got.shape == want.shape, f"shape {got.shape}, wanted {want.shape}"
    excess = np.nan_to_num(np.abs(got.astype(np.float64) - want) - bound, nan=np.inf)
    worst: Sequence[int] = np.unravel_index(int(np.argmax(excess)), excess.shape)
    assert excess[tuple(worst)] <= 0, f"at {tuple(map(int, worst))}: got {got[tuple(worst)]!r}, wanted {want[tuple(worst)]!r}"
