"""What the inputs' numbers do not decide, computed at import: with sizes as torch.export has traced them, for any batch.

A tensor may depend on the batch, as `grid.expand(x.shape[0], -1, -1, -1)` does. Such a one is computed at two batches; whoever joins it
with values asks for what it is for an image (stored_constant.py), which must be the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from cosparse.compress.importer.call import Unsupported
from cosparse.compress.importer.guards import Way, value
from cosparse.compress.importer.layout import Filled, OfBatch, Size, size_of, sizes_of
from cosparse.compress.importer.names import base


class SizedConstant(Unsupported):
    """A constant that follows from the input's height or width, which are free: with the example's sizes it is known."""

    def __init__(self) -> None:
        super().__init__("a constant that depends on the input's height or width")


BATCHES = (2, 3)
"""Both more than 1, which torch takes for a case of its own."""

FILLERS = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
LEFT = (*FILLERS, "expand", "expand_as")
"""Operations with handlers that take sizes which depend on the input's height and width."""

TYPES, SHAPES = ("type_as", "to"), ("expand_as", "view_as", "reshape_as")
"""Operations that ask a second tensor for its dtype, for its shape."""


@dataclass(frozen=True)
class Uniform:
    """A tensor of one number; of any where an operation asks shape and dtype alone."""

    shape: tuple[Size, ...]
    dtype: torch.dtype
    number: float = 0.0


def computed(node: fx.Node, values: Mapping[fx.Node, Any], way: Way) -> Any:
    """The operation's result, a Tensor or a tuple of them, OfBatch where it depends on the batch; None where a handler has to decide.

    Raises SizedConstant where it depends on the input's height or width, as symbols, Unsupported where it cannot be had at other batches.
    """
    name = base(node.target)
    operands = {n: _operand(n, values.get(n), name if n is not node.all_input_nodes[0] else "") for n in node.all_input_nodes}
    if (name in FILLERS and node.meta["val"].is_floating_point()) or any(operand is None for operand in operands.values()):
        return None
    ones = node.meta.get("ones", {})
    symbols = {s for size in map(_sizes, operands.values()) for e in size for s in e.xreplace(ones).free_symbols}
    if not symbols and not any(isinstance(operand, OfBatch) for operand in operands.values()):
        return _run(node, {n: _at(operand, {}, ones) for n, operand in operands.items()})
    if symbols <= way.batch:
        try:
            return agreed([_run(node, {n: _at(x, dict.fromkeys(way.batch, at), ones) for n, x in operands.items()}) for at in BATCHES])
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise Unsupported(f"a constant that cannot be computed for {BATCHES[0]} and {BATCHES[1]} images") from error
    if name in LEFT or not symbols <= way.batch | set(way.sizes):
        return None
    raise SizedConstant


def agreed(found: list[Any]) -> Any:
    """The results at the batches as one where they are equal."""
    return found[0] if all(_equal(found[0], other) for other in found[1:]) else OfBatch(tuple(found))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return len(a) == len(b) and all(map(_equal, a, b))


def is_constant(operand: Any) -> bool:
    """Whether it is known at import, for any batch."""
    return isinstance(operand, Tensor) or (isinstance(operand, tuple | list) and all(map(is_constant, operand)))


def _operand(node: fx.Node, found: Any, reader: str) -> Any:
    """The operand as far as it is known at import: a constant, a size's expression; None where the inputs decide it."""
    fake: Any = node.meta.get("val")
    if isinstance(found, Filled):
        return Uniform(found.shape, fake.dtype, found.number)
    if isinstance(found, OfBatch) or is_constant(found):
        return found
    if isinstance(fake, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool):
        return _expression(fake)
    if isinstance(fake, Tensor) and reader in (*TYPES, *SHAPES):
        return Uniform(sizes_of(fake.shape) if reader in SHAPES else (), fake.dtype)
    return None


def _expression(number: Any) -> Any:
    if isinstance(number, float):
        return number
    return number.node.expr if isinstance(number, torch.SymFloat | torch.SymBool) else size_of(number)


def _sizes(operand: Any) -> tuple[Any, ...]:
    """The expressions that decide what the operand is."""
    if isinstance(operand, Uniform):
        return operand.shape
    return (operand,) if hasattr(operand, "free_symbols") else ()


def _at(operand: Any, at: Mapping[Any, int], ones: Mapping[Any, Any]) -> Any:
    """The operand at one batch; tensors as copies, since the operation may write in place."""
    if isinstance(operand, OfBatch):
        return _copied(operand.results[BATCHES.index(next(iter(at.values())))])
    if isinstance(operand, Uniform):
        return torch.full([int(value(size.xreplace(ones), at)) for size in operand.shape], operand.number, dtype=operand.dtype)
    if hasattr(operand, "free_symbols"):
        number = value(operand.xreplace(ones), at)
        return number.item() if hasattr(number, "item") else number
    return _copied(operand)


def _copied(found: Any) -> Any:
    return found.clone() if isinstance(found, Tensor) else [_copied(item) for item in found] if isinstance(found, tuple | list) else found


def _run(node: fx.Node, operands: Mapping[fx.Node, Any]) -> Any:
    load = operands.__getitem__
    kwargs = {key: torch.device("cpu") if isinstance(v, torch.device) else fx.map_arg(v, load) for key, v in node.kwargs.items()}
    with torch.no_grad():
        return node.target(*fx.map_arg(node.args, load), **kwargs)  # type: ignore[operator]
