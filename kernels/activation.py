"""activation, prelu: y = f(x) for every number of x.

x      [N, C, H, W] or [N, F]   any float
slope  [C]                      float32; prelu: y = x where x > 0, else slope[c] x
y      as x                     float64; NaN in, NaN out

relu max(x, 0)            clip min(max(x, alpha), beta)     leaky_relu x or alpha x       elu x or alpha (e^x - 1)
sigmoid 1 / (1 + e^-x)    silu x sigmoid(x)                 tanh                          softplus log(1 + e^x)
gelu x Phi(x)             gelu_tanh its tanh approximation  mish x tanh(softplus(x))      hardsigmoid clip(x + 3, 0, 6) / 6
hardswish x hardsigmoid(x) sqrt, abs, exp, log              pow x^alpha, alpha not 0; NaN below 0
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Array, Node, Reference, per_channel, require

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def _softplus(x: Array) -> Array:
    # PyTorch hands x through above 20; the difference, 2e-9, would show in float64.
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def _gelu(x: Array) -> Array:
    return x / 2 * (1 + np.asarray(_erf(x / math.sqrt(2)), np.float64))


def _gelu_tanh(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _hardsigmoid(x: Array) -> Array:
    return np.clip(x + 3, 0, 6) / 6


KINDS: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, _a, _b: np.maximum(x, 0),
    "clip": lambda x, low, high: np.clip(x, low, high),
    "leaky_relu": lambda x, slope, _: np.where(x > 0, x, slope * x),
    "elu": lambda x, alpha, _: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "sigmoid": lambda x, _a, _b: _sigmoid(x),
    "silu": lambda x, _a, _b: x * _sigmoid(x),
    "tanh": lambda x, _a, _b: np.tanh(x),
    "gelu": lambda x, _a, _b: _gelu(x),
    "gelu_tanh": lambda x, _a, _b: _gelu_tanh(x),
    "hardswish": lambda x, _a, _b: x * _hardsigmoid(x),
    "hardsigmoid": lambda x, _a, _b: _hardsigmoid(x),
    "softplus": lambda x, _a, _b: _softplus(x),
    "mish": lambda x, _a, _b: x * np.tanh(np.logaddexp(0, x)),
    "sqrt": lambda x, _a, _b: np.sqrt(x),
    "abs": lambda x, _a, _b: np.abs(x),
    "exp": lambda x, _a, _b: np.exp(x),
    "log": lambda x, _a, _b: np.log(x),
    "pow": lambda x, alpha, _: np.where(x < 0, np.nan, np.abs(x) ** alpha),
}


def activation(node: Node, x: Array) -> Array:
    kind = node.attrs["kind"]
    if kind not in KINDS:
        raise UnsupportedError(f"node {node.name} (activation)", "kind one of " + ", ".join(KINDS), repr(kind))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # log 0, the root of a negative number
        return KINDS[kind](x, node.attrs["alpha"], node.attrs["beta"])


def prelu(node: Node, x: Array) -> Array:
    slope = node.tensors["slope"]
    require(x.shape[1] == len(slope), node, f"{len(slope)} channels", x)
    return np.where(x > 0, x, per_channel(slope, x) * x)


REFERENCES: dict[str, Reference] = {"activation": activation, "prelu": prelu}
