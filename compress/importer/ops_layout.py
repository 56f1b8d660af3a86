"""Views, permutations, expansions: what moves numbers without changing them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.constants import SizedConstant
from cosparse.compress.importer.layout import Size, Value, lifted, permuted, size_of, viewed
from cosparse.compress.importer.names import base
from cosparse.compress.importer.table import handles


@handles("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def view(call: Call) -> Value:
    x = call.value()
    if x.expanded:
        x = call.as_stored(x)
    result = viewed(x, _written(call), call.node)
    if result is None:
        raise Unsupported("a view that splits an axis unevenly or by a size that depends on the input's")
    return result


def _written(call: Call) -> tuple[Size, ...]:
    """The result's sizes, as numbers where the program has numbers: torch may give what -1 leaves beside them as a quotient of symbols."""
    sizes = call.arguments.get("size", call.arguments.get("shape")) if call.op in ("view", "reshape", "_unsafe_view") else None
    if not isinstance(sizes, list | tuple) or len(sizes) != len(call.shape):
        return call.shape
    return tuple(size_of(n) if type(n) is int and n > 0 else size for n, size in zip(sizes, call.shape, strict=True))


@handles("permute")
def permute(call: Call) -> Value:
    x = call.value()
    return permuted(x, [dim % len(x.dims) for dim in call.integers("dims", 1)], call.node)


@handles("transpose", "swapaxes", "swapdims", "t")
def transpose(call: Call) -> Value:
    x = call.value()
    order = list(range(len(x.dims)))
    names = {"transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1"), "swapdims": ("dim0", "dim1")}.get(call.op)
    a, b = (call.dim(name) for name in names) if names else (0, len(order) - 1)
    order[a], order[b] = b, a
    return permuted(x, order, call.node)


@handles("movedim", "moveaxis")
def movedim(call: Call) -> Value:
    x = call.value()
    rank = len(x.dims)
    source, target = ([dim % rank for dim in call.integers(name, 1)] for name in ("source", "destination"))
    rest = [dim for dim in range(rank) if dim not in source]
    moved = dict(zip(target, source, strict=True))
    return permuted(x, [moved[i] if i in moved else rest.pop(0) for i in range(rank)], call.node)


BROADCASTS = ("add", "sub", "mul", "div", "rsub", "copy", "fill")


@handles("expand", "expand_as")
def expand(call: Call) -> Value | Tensor:
    """A constant stays as it is where all that follows broadcasts it anyway."""
    constant = call.get("self")
    if isinstance(constant, Tensor):
        if all(base(user.target) in BROADCASTS for user in call.node.users):
            return constant
        raise SizedConstant
    return replace(lifted(call.value(), len(call.shape)), shape=call.shape, origin=call.node)


@handles("pixel_shuffle")
def pixel_shuffle(call: Call) -> Value:
    attrs = {"block": [call.integer("upscale_factor")] * 2, "order": "crd", "crop": [0, 0, 0, 0]}
    return call.result(call.emit("depth_to_space", [call.plain()], attrs))


@handles("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Value:
    return call.result(call.emit("channel_shuffle", [call.plain()], {"groups": call.integer("groups")}))
