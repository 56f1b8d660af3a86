"""Walks the exported program once and turns each operation into nodes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor, fx, nn

from cosparse.compress import given
from cosparse.compress.importer import (  # noqa: F401
    ops_arithmetic,
    ops_conv,
    ops_conv1d,
    ops_join,
    ops_layout,
    ops_pick,
    ops_pointwise,
    ops_pool,
    ops_reduce,
    ops_resize,
    ops_scatter,
    ops_slice,
)
from cosparse.compress.importer.call import Call, Unsupported
from cosparse.compress.importer.constants import SizedConstant, agreed, computed
from cosparse.compress.importer.draft import Draft
from cosparse.compress.importer.fold import simplified
from cosparse.compress.importer.guards import Way
from cosparse.compress.importer.layout import Filled, OfBatch, Value, sizes_of, stored
from cosparse.compress.importer.names import base, place, source
from cosparse.compress.importer.output import Output, as_output
from cosparse.compress.importer.regions import REASONS
from cosparse.compress.importer.sizes import settled
from cosparse.compress.importer.table import HANDLERS
from cosparse.compress.importer.trace import Program, trace
from cosparse.engine.graph import Graph, Input, Node, unique_name
from cosparse.errors import UnsupportedError

NEXT_STEP = "docs/operators.md lists what is supported and what usually takes the place of the rest"


KEEP = ("slice", "select", "narrow", "view", "reshape", "expand", "unsqueeze", "to", "_to_copy", "type_as", "clone", "contiguous", "detach")
"""Operations after which a tensor of one number is still one."""


@dataclass(frozen=True)
class Refused:
    """Stands for the result of an operation that cannot be imported, and of all that depends on it; `sized`: of a SizedConstant."""

    sized: bool = False


def from_torch(model: nn.Module, example: Tensor | Sequence[Tensor], name: str = "") -> Graph:
    """The model in eval mode as a graph, weights float32, batch norm folded, nodes named after its modules.

    `example` is one input [N, C, H, W] or [N, F], or a sequence of them. The batch is free. Height and width are free where the model's
    code allows it; else the sizes of the example are built in, `provenance["import"]["size"]` says why, and the inputs' `sizes` say which
    ones are left: at others the engine raises ShapeError.
    Raises UnsupportedError that lists every operator without a counterpart (docs/operators.md), with module and source line, and those
    whose form has none, save where that depends on the result of another one in the list.
    """
    inputs = tuple(example) if isinstance(example, list | tuple) else (example,)
    model = given.taken(model)
    given.require_memory(model)
    name = name or type(model).__name__.lower()
    try:
        program = trace(model, inputs, name, free_size=True)
        graph, reason = _imported(program, inputs, name), "; ".join(program.fixed)
    except UnsupportedError as error:
        program = trace(model, inputs, name, free_size=False)
        graph, reason = _imported(program, inputs, name), error.got
    graph, limits = settled(graph, program.way, model, inputs)
    size = f"the example's, for {reason}" if reason else f"limited by {limits}" if limits else "free"
    return replace(graph, provenance={"import": {"torch": str(torch.__version__), "size": size}})


def _imported(program: Program, inputs: tuple[Tensor, ...], name: str) -> Graph:
    draft = Draft(node.name for node in program.inputs)
    values: dict[fx.Node, Any] = {node: stored(node.name, sizes_of(node.meta["val"].shape)) for node in program.inputs}
    values |= program.constants
    problems: dict[fx.Node, str] = {}
    for node in program.operations:
        try:
            values[node] = _evaluated(node, draft, values, program.way)
        except Unsupported as reason:
            problems[node] = str(reason)
            values[node] = Refused(isinstance(reason, SizedConstant))
    outputs, unfit = _outputs(program, draft, values)
    views = tuple(output.view for output in outputs) if any(output.view is not None for output in outputs) else ()
    if problems or unfit:
        found = "; ".join([*_listed(problems), *unfit])
        raise UnsupportedError(f"model {name}", "operators that an artifact can hold", found, NEXT_STEP)
    sources = tuple(
        Input(node.name, (None, *x.shape[1:]), sizes=sizes) for node, x, sizes in zip(program.inputs, inputs, program.sizes, strict=True)
    )
    graph = simplified(Graph(name, sources, tuple(o.name for o in outputs), tuple(draft.nodes), views=views))
    ranks = [output.rank for output in outputs]
    return _named(replace(graph, nodes=tuple(map(_single, graph.nodes))), [key for key, _ in program.outputs], ranks)


def _evaluated(node: fx.Node, draft: Draft, values: dict[fx.Node, Any], way: Way) -> Any:
    """What the operation gives: a Value (a tuple of them), a constant, or None where it is no tensor."""
    fake = node.meta.get("val")
    tensor = fake[0] if isinstance(fake, list | tuple) and fake else fake
    if not isinstance(tensor, Tensor):
        return None
    operands = [values.get(n) for n in node.all_input_nodes]
    handler = HANDLERS.get(base(node.target))
    if any(isinstance(operand, Refused) for operand in operands):
        if not any(isinstance(operand, Value) or operand == Refused() for operand in operands):
            return Refused(sized=True)
        if handler is None and node.target is not operator.getitem:
            raise Unsupported
        return Refused()
    if node.target is operator.getitem:
        items, index = operands[0], node.args[1]
        if isinstance(items, OfBatch):
            return agreed([result[index] for result in items.results])
        if not isinstance(items, tuple | list) or not isinstance(index, int) or index >= len(items):
            raise Unsupported("this result of the operation")
        return items[index]
    if operands and isinstance(operands[0], Filled) and base(node.target) in KEEP:
        return replace(operands[0], shape=sizes_of(tensor.shape))
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if not random and (result := computed(node, values, way)) is not None:
        return result
    if handler is None:
        raise Unsupported(REASONS.get(base(node.target), ""))
    if not tensor.is_floating_point():
        raise Unsupported(f"a result of {tensor.dtype}")
    return handler(Call(node, draft, values))


def _listed(problems: dict[fx.Node, str]) -> list[str]:
    """One entry for each operator, line and reason: the first module where it is met, and how often it comes again."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for node, reason in problems.items():
        alike.setdefault((str(node.target), source(node), reason), []).append(place(node))
    return [
        places[0] + (f" and {len(places) - 1} more like it" if len(places) > 1 else "") + (f": {reason}" if reason else "")
        for (_, _, reason), places in alike.items()
    ]


def _outputs(program: Program, draft: Draft, values: dict[fx.Node, Any]) -> tuple[list[Output], list[str]]:
    """The outputs, and what is wrong with those that are none."""
    outputs, unfit = [], []
    for i, (key, node) in enumerate(program.outputs):
        value = values.get(node) if isinstance(node, fx.Node) else None
        if isinstance(value, Refused):
            continue
        result = as_output(draft, value, node) if isinstance(value, Value) else "a constant"
        if isinstance(result, str):
            unfit.append(f"output {key or i}: {result}")
        else:
            outputs.append(result)
    return outputs, unfit


def _single(node: Node) -> Node:
    return replace(node, tensors={role: numpy.ascontiguousarray(array, numpy.float32) for role, array in node.tensors.items()})


def _named(graph: Graph, keys: Sequence[str | None], ranks: Sequence[int]) -> Graph:
    """Outputs returned under a key bear it. A node with weights keeps its module's name, and a reshape to the same shape follows it."""
    for i, key in enumerate(keys):
        old = graph.outputs[i]
        if key is None or key == old:
            continue
        new = unique_name(key, {*(x.name for x in graph.inputs), *(node.name for node in graph.nodes)})
        source = next((node for node in graph.nodes if node.name == old), None)
        if source is None or source.tensors or graph.outputs.count(old) > 1:
            graph = replace(graph, nodes=(*graph.nodes, Node(new, "reshape", (old,), {"shape": [0] * (ranks[i] - 1)})))
        else:
            graph = replace(graph, nodes=tuple(_renamed(node, old, new) for node in graph.nodes))
        graph = replace(graph, outputs=(*graph.outputs[:i], new, *graph.outputs[i + 1 :]))
    return graph


def _renamed(node: Node, old: str, new: str) -> Node:
    inputs = tuple(new if name == old else name for name in node.inputs)
    return replace(node, name=new if node.name == old else node.name, inputs=inputs)
