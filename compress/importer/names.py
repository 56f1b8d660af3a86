"""What an operation is called: in the graph by its module's path, in an error by operator, module and source line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

LIBRARY = str(Path(torch.__file__).parent)


def base(target: Any) -> str:
    """aten.relu_.default -> relu: the operation's name without overload and in-place mark."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return getattr(target, "__name__", str(target))
    name = schema.name.split("::")[1]
    return name[:-1] if schema.is_mutable and name.endswith("_") else name


def module_path(node: fx.Node) -> str:
    """The path of the module that ran the operation; the outermost has path ""."""
    stack = node.meta.get("nn_module_stack") or {}
    # A module called again has "@1", "@2", ... behind its path.
    return re.sub(r"@\d+", "", list(stack.values())[-1][0]) if stack else ""


def layers(model: nn.Module) -> dict[str, str]:
    """Path -> class for the modules that are torch's own layers, subclasses and parametrised ones included."""
    found = {}
    for where, module in model.named_modules():
        own = [c for c in type(module).__mro__ if c.__module__.startswith("torch.nn.modules.") and c is not nn.Module]
        if own and not own[0].__module__.endswith(".container"):
            found[where] = own[0].__name__
    return found


def path(node: fx.Node, op: str = "") -> str:
    """The name for the operation's node: the path of a torch layer (`meta["layer"]`), else the module's path and the operation."""
    where, layer = module_path(node), node.meta.get("layer", "")
    operation = op or base(node.target).removeprefix("_")
    if where and layer and not (operation == "pad" and "Conv" in layer):
        return where
    return f"{where}.{operation}" if where else operation


def source(node: fx.Node) -> str:
    """The line of the user's code that the operation comes from, as "FILE:LINE", or the empty string."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in lines if not file.startswith(LIBRARY)]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""


def place(node: fx.Node) -> str:
    """Operator, module and source line, for an error."""
    where, line = module_path(node), source(node)
    module = repr(where) if where else "the model's own forward"
    return f"{node.target} in {module}" + (f", {line}" if line else "")
