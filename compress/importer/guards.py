"""What torch.export has asked about sizes on the way that it followed through the model's code: the answers hold for the program alone.

A guard is a condition on symbols, one for each free size. torch keeps the bounds of single symbols in `range_constraints` and everything
else, as "a quarter of the height is 16" or "half the height is even", in its shape environment. Guards that the model's own lines have
asked stand for a branch. Those that torch's operators have asked may stand for an error, for a number that an operator took as fixed, or
for nothing but the order of memory; and for a branch too, where the model's code asks the same later, since torch asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import sympy
import torch
from torch import fx
from torch.export import ExportedProgram

from cosparse.compress.importer.layout import Size, size_of

LIBRARY = Path(torch.__file__).parent
CALLS = LIBRARY / "nn/modules/module.py"  # what torch says of code without a file: what calls forward


@dataclass(frozen=True)
class Guard:
    """A condition on symbols. `own`: the model's code asks it, at `where`, FILE:LINE; else one of torch's operators does.

    A condition of None could not be read: it is taken to hold at the example's sizes alone.
    """

    condition: Any
    own: bool = False
    where: str = ""

    @property
    def symbols(self) -> set[Any]:
        return set() if self.condition is None else set(self.condition.free_symbols)


@dataclass(frozen=True)
class Way:
    """The way that was followed: the inputs' shapes as expressions, the symbols' values at the example, the guards."""

    shapes: tuple[tuple[Size, ...], ...] = ()
    example: Mapping[Any, int] = ()  # type: ignore[assignment]
    guards: tuple[Guard, ...] = ()

    @property
    def batch(self) -> set[Any]:
        return {symbol for shape in self.shapes for symbol in shape[0].free_symbols}

    @property
    def sizes(self) -> list[Any]:
        """The symbols of heights and widths, in their order."""
        found = [s for shape in self.shapes for size in shape[2:] for s in size.free_symbols]
        return [s for s in dict.fromkeys(found) if s not in self.batch]

    def where(self, known: Mapping[Any, Any]) -> Way:
        """The way where these expressions have these values: guards then true say nothing, nor do bounds that torch drew from them."""
        if not known:
            return self
        guards = (replace(g, condition=None if g.condition is None else g.condition.xreplace(known)) for g in self.guards)
        left = dict.fromkeys(g for g in guards if g.condition != sympy.true)
        drawn = {g for g in left if not g.own and isinstance(g.condition, sympy.LessThan) and g.condition.lhs.is_Symbol}
        return replace(self, guards=tuple(g for g in left if g not in drawn))

    def says(self, size: Size, number: int) -> bool:
        """Whether a guard has fixed the size to the number."""
        return any(guard.condition in (sympy.Eq(size, number), sympy.Eq(number, size)) for guard in self.guards)


def followed(exported: ExportedProgram, inputs: Sequence[fx.Node], example: Sequence[torch.Tensor]) -> Way:
    """The way of `exported`, whose inputs are `inputs`, traced with `example`."""
    shapes = tuple(tuple(map(size_of, node.meta["val"].shape)) for node in inputs)
    values = {e: int(n) for shape, x in zip(shapes, example, strict=True) for e, n in zip(shape, x.shape, strict=True) if e.is_Symbol}
    free = [s for node in inputs for s in node.meta["val"].shape if isinstance(s, torch.SymInt)]
    if not free:
        return Way(shapes)
    known: dict[Any, Guard] = {}
    environment = free[0].node.shape_env
    asked = getattr(environment, "guards", None)
    for guard in [None] if asked is None else asked:
        found = _guard(guard, getattr(environment, "replacements", {}), values)
        if found.condition == sympy.true:
            continue
        older = known.get(found.condition)
        if older is None or (found.own and not older.own):
            known[found.condition] = found
    for symbol, bounds in exported.range_constraints.items():
        if symbol in values:
            least, most = bounds.lower, bounds.upper
            limits = [symbol >= least] * bool(least > 2) + [symbol <= most] * bool(most < 2**31 - 1)  # 2 is where torch begins to count
            known.update({limit: Guard(limit) for limit in limits if limit not in known})
    unknown = set().union(*(size.free_symbols for shape in shapes for size in shape)) - set(values)
    return Way(shapes, values, (*known.values(), *[Guard(None)] * bool(unknown)))


def _guard(guard: Any, replacements: Mapping[Any, Any], values: Mapping[Any, int]) -> Guard:
    condition = getattr(guard, "expr", None)
    for _ in range(len(replacements) + 1):
        condition = condition.xreplace(replacements) if condition is not None else None
    frame: Any = getattr(getattr(guard, "sloc", None), "framework_loc", None)
    file = Path(getattr(frame, "filename", "") or "")
    own = not file.is_relative_to(LIBRARY) or file == CALLS
    where = f"{file.name}:{frame.lineno}" if own and file.name and file != CALLS else ""
    if condition is None or not condition.free_symbols <= set(values) or not _readable(condition, values):
        return Guard(None, own=True, where=where)
    return Guard(condition, own, where)


def _readable(condition: Any, values: Mapping[Any, int]) -> bool:
    """Whether the condition can be evaluated, and then holds at the example, as it must."""
    try:
        return bool(value(condition, values))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return False


def value(expression: Any, at: Mapping[Any, Any]) -> Any:
    """The expression's value, exact for integers; the symbols' values may be arrays that broadcast."""
    if expression.is_Symbol:
        return at[expression]
    if expression in (sympy.true, sympy.false):
        return expression == sympy.true
    if expression.is_Integer:
        return int(expression)
    if expression.is_Float:
        return float(expression)
    if expression.is_Rational:
        return expression.p / expression.q
    return OPERATIONS[type(expression).__name__](*(value(e, at) for e in expression.args))


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *terms: reduce(function, terms)


def _divided(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """0 where the divisor is, so that the other sizes of an array are evaluated."""
    return lambda a, b: np.where(np.equal(b, 0), 0, function(a, np.where(np.equal(b, 0), 1, b)))


def _rounded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(np.asarray(x, np.float64)).astype(np.int64)


# By class name, since torch's own functions moved and were renamed between releases. What is missing here is no guess: it cannot be read.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": _folded(np.add),
    "Mul": _folded(np.multiply),
    **dict.fromkeys(("Max", "Maximum"), _folded(np.maximum)),
    **dict.fromkeys(("Min", "Minimum"), _folded(np.minimum)),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), _divided(np.floor_divide)),
    **dict.fromkeys(("Mod", "PythonMod"), _divided(np.mod)),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), lambda a, b: np.asarray(a, np.float64) / np.asarray(b, np.float64)),
    **dict.fromkeys(("Pow", "PowByNatural", "FloatPow"), lambda a, b: np.asarray(a, object if b >= 0 else np.float64) ** b),
    "ToFloat": lambda x: np.asarray(x, np.float64),
    "Identity": lambda x: x,
    "Abs": np.abs,
    "TruncToInt": _rounded(np.trunc),
    "RoundToInt": _rounded(np.round),
    **dict.fromkeys(("FloorToInt", "floor"), _rounded(np.floor)),
    **dict.fromkeys(("CeilToInt", "ceiling"), _rounded(np.ceil)),
    "Equality": np.equal,
    "Unequality": np.not_equal,
    "GreaterThan": np.greater_equal,
    "LessThan": np.less_equal,
    "StrictGreaterThan": np.greater,
    "StrictLessThan": np.less,
    "And": _folded(np.logical_and),
    "Or": _folded(np.logical_or),
    "Not": np.logical_not,
}


def holds(guard: Guard, at: Mapping[Any, Any], example: Mapping[Any, int]) -> Any:
    """Whether the guard holds: one truth value for each of the sizes that `at` has, arrays that broadcast."""
    if guard.condition is None:
        return _folded(np.logical_and)(True, *(np.equal(x, example[s]) for s, x in at.items()))
    with np.errstate(all="ignore"):
        return np.asarray(value(guard.condition, at), bool)


def text(guard: Guard, names: Mapping[Any, str]) -> str:
    """The condition with the symbols by name, and the line that asks it."""
    if guard.condition is None:
        return f"a condition that cannot be read{guard.where and f' at {guard.where}'}"
    shown = guard.condition.xreplace({s: sympy.Symbol(name, integer=True, positive=True) for s, name in names.items()})
    signs = {"Equality": "==", "Unequality": "!="}
    sign = signs.get(type(shown).__name__)
    line = f"{shown.lhs} {sign} {shown.rhs}" if sign else str(shown)
    line = line.replace("TruncToInt", "int").replace("ToFloat", "float")
    return line + (f" at {guard.where}" if guard.where else "")
