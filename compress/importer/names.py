"""What an operation is called: in the graph by its module's path, in an error by operator, module and source line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import fx


def base(target: Any) -> str:
    """aten.relu_.default -> relu: the operation's name without overload and in-place mark."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return getattr(target, "__name__", str(target))
    name = schema.name.split("::")[1]
    return name[:-1] if schema.is_mutable and name.endswith("_") else name


def module_path(node: fx.Node) -> tuple[str, str]:
    """The module that ran the operation, as path and class; the outermost has path ""."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    where, kind = list(stack.values())[-1]
    return re.sub(r"@\d+", "", where), kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def path(node: fx.Node, op: str = "") -> str:
    """The name for the operation's node: the path of a torch layer, else the path of the module and the operation."""
    where, kind = module_path(node)
    operation = op or base(node.target).removeprefix("_")
    if kind.startswith("torch.nn.modules.") and where and not (operation == "pad" and "conv" in kind):
        return where
    return f"{where}.{operation}" if where else operation


def place(node: fx.Node) -> str:
    """Operator, module and source line, for an error."""
    where, _ = module_path(node)
    library = str(Path(torch.__file__).parent)
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in lines if not file.startswith(library)]
    source = f", {Path(own[-1][0]).name}:{own[-1][1]}" if own else ""
    return f"{node.target} in {where!r}{source}" if where else f"{node.target} in the model's own forward{source}"
