"""Upsampling by a factor, to a size, or to another tensor's size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sympy
import torch
from torch import fx

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.layout import Size, Value, same
from cosparse.compress.importer.table import handles


@handles("upsample_nearest2d", "upsample_bilinear2d")
def upsample(call: Call) -> Value:
    x = call.as_stored(call.value())
    factors = call.arguments.get("scale_factors") or [call.arguments.get("scales_h"), call.arguments.get("scales_w")]
    sizes = call.shape[2:]
    ratios = [sympy.cancel(size / before) for size, before in zip(sizes, x.sizes[2:], strict=True)]
    given = None not in factors
    # A ratio of sizes that equals the factor samples at the same positions.
    stated = all(size.is_Integer for size in sizes) and (not given or all(float(r) == f for r, f in zip(ratios, factors, strict=True)))
    inputs, size, factor = [x.name], [0, 0], [0, 0]
    if given and _whole(factors):
        factor = [int(f) for f in factors]
    elif stated:
        size = [int(n) for n in sizes]
    elif given:
        raise Unsupported("scale factors that are no whole numbers")
    elif (like := _like(sizes, _asked(call))) is not None:
        inputs.append(like.name)
    elif _whole(ratios):
        factor = [int(ratio) for ratio in ratios]
    elif (like := _like(sizes, call.values.values())) is not None:
        inputs.append(like.name)
    else:
        raise Unsupported("a new size that depends on the input's in a way that no tensor has")
    mode = "nearest" if "nearest" in call.op else "bilinear"
    attrs = {"mode": mode, "size": size, "factor": factor, "align_corners": int(bool(call.arguments.get("align_corners")))}
    return call.result(call.emit("upsample", inputs, attrs))


def _whole(factors: Sequence[Any]) -> bool:
    """Whether they are numbers that an artifact can hold as factors."""
    return all(isinstance(f, int | float) or f.is_Rational for f in factors) and all(f == int(f) and f >= 1 for f in factors)


def _asked(call: Call) -> list[Any]:
    """The tensors whose sizes the code handed on as the new size."""
    numbers = (n for n in call.arguments["output_size"] if isinstance(n, fx.Node) and n.target is torch.ops.aten.sym_size.int)
    return [call.values.get(node) for number in numbers if isinstance(node := number.args[0], fx.Node)]


def _like(sizes: Sequence[Size], candidates: Iterable[Any]) -> Value | None:
    """The first tensor of that height and width."""
    images = (value for value in candidates if isinstance(value, Value) and len(value.sizes) == 4)
    return next((value for value in images if all(map(same, value.sizes[2:], sizes))), None)
