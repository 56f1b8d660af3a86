"""What follows a convolution in the same kernel: y = act(z + bias + residual), in float32, rounded once.

act     one of ACTS; alpha and beta as in kernels/activation.py
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from cosparse.kernels.gpu.planes import Planes

ACTS = {
    "none": 0, "relu": 1, "clip": 2, "leaky_relu": 3, "elu": 4, "sigmoid": 5, "silu": 6, "tanh": 7,
    "gelu": 8, "gelu_tanh": 9, "hardswish": 10, "hardsigmoid": 11, "softplus": 12, "mish": 13,
    "sqrt": 14, "abs": 15, "exp": 16, "log": 17, "pow": 18,
}  # fmt: skip
"""Activation -> the number by which kernels in Triton and CUDA C++ know it."""


@dataclass(frozen=True, eq=False)
class Epilogue:
    """`bias` float32 [O] or None; `residual` planes of the output's shape, added before the activation."""

    bias: torch.Tensor | None = None
    residual: Planes | None = None
    act: str = "none"
    alpha: float = 0.0
    beta: float = 0.0


@triton.jit
def larger(a, b):
    """The larger of two; NaN where one is NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _tanh(x):
    e = tl.exp(-2.0 * tl.abs(x))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def activated(x, act: tl.constexpr, alpha, beta):
    """f(x) for float32 x; NaN in, NaN out."""
    if act == 1:
        x = tl.where(x < 0.0, 0.0, x)
    elif act == 2:
        x = tl.where(x < alpha, alpha, tl.where(x > beta, beta, x))
    elif act == 3:
        x = tl.where(x < 0.0, alpha * x, x)
    elif act == 4:
        x = tl.where(x < 0.0, alpha * (tl.exp(x) - 1.0), x)
    elif act == 5:
        x = 1.0 / (1.0 + tl.exp(-x))
    elif act == 6:
        x = x / (1.0 + tl.exp(-x))
    elif act == 7:
        x = _tanh(x)
    elif act == 8:
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif act == 9:
        x = 0.5 * x * (1.0 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    elif act == 10:
        x = x * tl.where(x < -3.0, 0.0, tl.where(x > 3.0, 1.0, (x + 3.0) / 6.0))
    elif act == 11:
        x = tl.where(x < -3.0, 0.0, tl.where(x > 3.0, 1.0, (x + 3.0) / 6.0))
    elif act == 12:
        x = tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))
    elif act == 13:
        x = x * _tanh(tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x))))
    elif act == 14:
        x = tl.sqrt(x)
    elif act == 15:
        x = tl.abs(x)
    elif act == 16:
        x = tl.exp(x)
    elif act == 17:
        x = tl.log(x)
    elif act == 18:
        x = tl.exp(alpha * tl.log(x))
    return x
