"""One torch operation during import: its arguments by name, its result's shape, the node that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor, fx

from cosparse.compress.importer.draft import Draft
from cosparse.compress.importer.layout import Filled, OfBatch, Size, Value, size_of, sizes_of, stored
from cosparse.compress.importer.names import base, path
from cosparse.compress.importer.rearrange import as_stored

Result = Value | Filled | OfBatch | Tensor | tuple[Value, ...]
Handler = Callable[["Call"], Result]


class Unsupported(Exception):
    """An operation that is known but not in this form. The walk adds the place and raises UnsupportedError."""


class Call:
    """An operation's arguments, bound to the names in its ATen schema with the defaults filled in."""

    def __init__(self, node: fx.Node, draft: Draft, values: dict[fx.Node, Any]) -> None:
        self.node, self.draft, self.values = node, draft, values
        schema = getattr(node.target, "_schema", None)
        names = [a.name for a in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
        self.arguments: dict[str, Any] = {a.name: a.default_value for a in schema.arguments if a.has_default_value()} if schema else {}
        self.arguments |= dict(zip(names, node.args, strict=False)) | node.kwargs
        self.first = names[0] if names else ""

    def get(self, name: str) -> Any:
        """The argument as it is; tensors as Value or constant Tensor, lists of them as lists."""
        return fx.map_arg(self.arguments.get(name), lambda n: self.values.get(n, n))

    def value(self, name: str = "") -> Value:
        """The argument, which must be a tensor computed from the inputs."""
        value = self.get(name or self.first)
        if not isinstance(value, Value):
            place = "" if (name or self.first) in ("self", "input", "x") else f" as {name}"
            raise Unsupported(f"a constant{place} where a value that depends on the input is expected")
        return value

    def plain(self, name: str = "") -> str:
        """The name of a stored value that lies as the argument's tensor does."""
        return self.as_stored(self.value(name)).name

    def as_stored(self, value: Value) -> Value:
        """The tensor rearranged in the graph, where need be, so that it is a stored value; raises Unsupported where no operator can."""
        arranged = as_stored(self.draft, value, self.node)
        if isinstance(arranged, str):
            raise Unsupported(arranged)
        return arranged

    def constant(self, name: str) -> numpy.ndarray:
        """The argument, which must be a constant tensor, in float64."""
        value = self.get(name)
        if not isinstance(value, Tensor):
            raise Unsupported(f"a {name} that depends on the input")
        return value.detach().to(torch.float64).numpy()

    def optional(self, name: str) -> numpy.ndarray | None:
        return None if self.arguments.get(name) is None else self.constant(name)

    def integer(self, name: str) -> int:
        return self.as_integer(self.arguments[name], name)

    def as_integer(self, number: Any, name: str) -> int:
        return self.fixed(self.size(number), name)

    def fixed(self, size: Size, what: str) -> int:
        """A size as an int; raises Unsupported where it is a symbol."""
        if not size.is_Integer:
            raise Unsupported(f"{what} depends on the input's size")
        return int(size)

    def size(self, number: Any) -> Size:
        """A number in the arguments, which may be a symbol, as an expression."""
        return self._known((size_of(number.meta["val"] if isinstance(number, fx.Node) else number),))[0]

    def _known(self, sizes: tuple[Size, ...]) -> tuple[Size, ...]:
        """Sizes that are 1, though torch writes them as expressions of the input's size (trace.py), as 1."""
        return tuple(size.xreplace(ones) for size in sizes) if (ones := self.node.meta.get("ones")) else sizes

    def integers(self, name: str, count: int = 2) -> list[int]:
        """A list argument; one number stands for all."""
        numbers = self.arguments[name]
        numbers = [numbers] if isinstance(numbers, int | fx.Node) else list(numbers)
        result = [self.as_integer(n, name) for n in numbers]
        return result * count if len(result) == 1 else result

    def number(self, name: str) -> float:
        value = self.arguments[name]
        if isinstance(value, bool | int | float):
            return float(value)
        raise Unsupported(f"{name} is computed")

    def flag(self, name: str) -> bool:
        return bool(self.arguments[name])

    @property
    def op(self) -> str:
        """The operation's name as the table of handlers has it."""
        return base(self.node.target)

    @property
    def shape(self) -> tuple[Size, ...]:
        """The result's shape; of the first where there are several."""
        value = self.node.meta["val"]
        return self._known(sizes_of((value[0] if isinstance(value, list | tuple) else value).shape))

    def dim(self, name: str = "dim", rank: int | None = None) -> int:
        """A dimension argument, counted from 0."""
        return self.integer(name) % (len(self.value().shape) if rank is None else rank)

    def emit(
        self,
        op: str,
        inputs: list[str],
        attrs: dict[str, Any] | None = None,
        tensors: dict[str, numpy.ndarray] | None = None,
        *,
        suffix: str = "",
    ) -> str:
        """Adds a node, named after the module and the operation (and `suffix`), and returns the name."""
        name = path(self.node)
        if suffix:
            name = f"{name}.{suffix}"
        return self.draft.add(name, op, inputs, attrs or {}, tensors or {})

    def result(self, name: str) -> Value:
        """The stored value `name`, which is the operation's result as torch has it."""
        return stored(name, self.shape)
