"""From a module to a pure program: torch.export, batch, height and width free, mutation removed, dead operations dropped."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import MappingKey, tree_flatten_with_path

from cosparse.compress import given
from cosparse.compress.importer.functional import cleared
from cosparse.compress.importer.guards import Way, followed, text
from cosparse.compress.importer.layout import ONE, Size, size_of
from cosparse.compress.importer.names import base, layers, module_path
from cosparse.compress.importer.quiet import quiet, why
from cosparse.compress.importer.ranges import Range, box
from cosparse.compress.importer.regions import opened
from cosparse.compress.importer.shapes import batch_guard, ranges_of
from cosparse.errors import ShapeError, UnsupportedError

POOLS = ("avg_pool2d", "max_pool2d", "max_pool2d_with_indices")
AXES = ("batch", "channels", "height", "width")


@dataclass(frozen=True)
class Program:
    """Live operations in order, without mutation. `constants`: parameters, buffers, literals; `outputs`: dict key or None, and value.

    `fixed` says which heights and widths the model's code has fixed to the example's, though they were to be free; `way` what torch.export
    has asked about sizes, and `sizes`, for each input, the heights and the widths for which all of that holds: least and greatest, None for
    an input without them.
    """

    operations: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[tuple[str | None, Any], ...]
    constants: dict[fx.Node, Tensor]
    fixed: tuple[str, ...] = ()
    sizes: tuple[tuple[Range, Range] | None, ...] = ()
    way: Way = field(default_factory=Way)


def trace(model: nn.Module, inputs: Sequence[Tensor], name: str, free_size: bool) -> Program:
    """The program that `model` runs on inputs shaped like `inputs`, batch free, height and width too where `free_size`.

    Raises UnsupportedError where torch.export cannot follow the model, or the model decides by the batch, ShapeError for inputs that are
    no images or rows.
    """
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise ShapeError(f"model {name}, input {i}", "a tensor", type(x).__name__)
        if x.ndim not in (2, 4) or not x.is_floating_point() or not x.numel():
            next_step = "" if x.is_floating_point() else "give a float32 example; of pixels, with the values 0..255"
            raise ShapeError(f"model {name}, input {i}", "floating point [N, C, H, W] or [N, F]", f"{x.dtype} {list(x.shape)}", next_step)
    # A size of 1 would be taken for fixed.
    inputs = tuple(x if x.shape[0] > 1 else x.repeat(2, *[1] * (x.ndim - 1)) for x in inputs)
    image_axes = (2, 3) if free_size else ()
    free = [{0: Dim.AUTO} | {a: Dim.AUTO for a in image_axes[: x.ndim - 2] if x.shape[a] > 1} for x in inputs]
    with given.evaluating(model), quiet():
        keys = [_key(path) for path, _ in tree_flatten_with_path(given.run(model, inputs))[0]]
        # As the signature has them: what *args takes is one argument.
        shapes = tuple(signature(model.forward).bind(*free).arguments.values())
        try:
            exported = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise UnsupportedError(f"model {name}", "a model that torch.export can follow", why(error)) from error
        opened(exported.graph_module)
        if _aliased_mutation(exported.graph):
            exported = exported.run_decompositions({})
            cleared(exported.graph)
    program = _program(exported, keys, name)
    way = followed(exported, program.inputs, inputs)
    if (guard := batch_guard(way)) is not None:
        decided = f"code that decides by it, {text(guard, dict.fromkeys(way.batch, 'batch'))}"
        raise UnsupportedError(f"model {name}", given.ONE_IMAGE[0], decided, given.ONE_IMAGE[2])
    classes = layers(model)
    ones: dict[Any, Any] = {}
    for node in program.operations:
        node.meta["layer"] = classes.get(module_path(node), "")
        node.meta["ones"] = ones
        if base(node.target) in POOLS and _whole(node, way):
            node.meta["whole"] = True
            ones |= dict.fromkeys((size for size in _pixel(node) if not size.is_Integer), ONE)
    way = way.where(ones)
    program = replace(program, way=way, sizes=tuple(ranges_of(shape, box(way.guards, way.example, way.sizes)) for shape in way.shapes))
    if not free_size:
        return program
    wanted = [(node, axis) for node, given in zip(program.inputs, free, strict=True) for axis in given]
    sizes = ((node, axis, size_of(node.meta["val"].shape[axis])) for node, axis in wanted)
    return replace(program, fixed=tuple(f"{node.name}'s {AXES[axis]} is {size}" for node, axis, size in sizes if size.is_Integer))


def _program(exported: ExportedProgram, keys: Sequence[str | None], name: str) -> Program:
    signature, graph = exported.graph_signature, exported.graph
    holders = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    data: dict[str, Any] = {**dict(exported.named_parameters()), **exported.state_dict, **exported.constants}
    constants = {n: data[holders[n.name]].detach().cpu() for n in graph.nodes if n.op == "placeholder" and n.name in holders}
    inputs = tuple(n for n in graph.nodes if n.op == "placeholder" and n.name in signature.user_inputs)
    for node in inputs:
        if size_of(node.meta["val"].shape[0]).is_Integer:
            fixed = f"code that fixes it to {node.meta['val'].shape[0]}"
            next_step = "x.size(0) or flatten(1) in place of len(x) or of a number"
            raise UnsupportedError(f"model {name}, input {node.name}", "a batch of any size", fixed, next_step)
    values = _without_mutation(graph)
    returned = [value for value, spec in zip(values, signature.output_specs, strict=True) if spec.kind == OutputKind.USER_OUTPUT]
    outputs = tuple((key, value) for key, value in zip(keys, returned, strict=True) if value is not None)
    live: set[fx.Node] = set()
    pending = [value for _, value in outputs if isinstance(value, fx.Node)]
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            pending.extend(node.all_input_nodes)
    operations = tuple(n for n in graph.nodes if n in live and n.op == "call_function")
    return Program(operations, inputs, outputs, constants)


def _whole(pool: fx.Node, way: Way) -> bool:
    """Whether the pool's window was made from the size of its input, so that it takes in the whole of it at other sizes too."""
    source, window = pool.args[0], pool.args[1]
    if not isinstance(source, fx.Node) or not isinstance(window, Sequence) or len(window) != 2:
        return False
    sizes = zip(source.meta["val"].shape[-2:], window, strict=True)
    return all(isinstance(n, int) and (size_of(size) == n or way.says(size_of(size), n)) for size, n in sizes)


def _pixel(pool: fx.Node) -> list[Size]:
    """Height and width of what such a pool gives, which are 1, and which torch writes as expressions of the input's size."""
    value = pool.meta["val"]
    return [size_of(size) for size in (value[0] if isinstance(value, list | tuple) else value).shape[-2:]]


def _key(path: Sequence[Any]) -> str | None:
    names = [str(part.key) for part in path if isinstance(part, MappingKey)]
    return ".".join(names) or None


def _written(node: fx.Node) -> list[fx.Node]:
    """The tensors that the operation writes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    bound = {**dict(zip((a.name for a in schema.arguments), node.args, strict=False)), **node.kwargs}
    written = (bound.get(a.name) for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    return [value for value in written if isinstance(value, fx.Node)]


def _source(node: fx.Node) -> fx.Node | None:
    """The tensor whose memory the result may share without being the same variable."""
    schema = getattr(node.target, "_schema", None)
    shares = node.target is operator.getitem or "dropout" in str(node.target)
    if schema is not None and not schema.is_mutable:
        shares = shares or any(r.alias_info is not None for r in schema.returns)
    return node.args[0] if shares and node.args and isinstance(node.args[0], fx.Node) else None


def _aliased_mutation(graph: fx.Graph) -> bool:
    """Whether an in-place operation writes memory that another variable sees, so that renaming alone cannot remove it."""
    root: dict[fx.Node, fx.Node] = {}
    shared: set[fx.Node] = set()
    written: set[fx.Node] = set()
    for node in graph.nodes:
        targets, source = _written(node), _source(node)
        if len(targets) == 1:
            root[node] = root[targets[0]]
            written.add(root[node])
        elif targets:
            return True
        elif source is not None:
            root[node] = root[source]
            shared.add(root[node])
        else:
            root[node] = node
    return bool(shared & written)


def _without_mutation(graph: fx.Graph) -> list[Any]:
    """Maps each later use of a variable to the operation that last wrote it, in place in `graph`; returns what the graph returns."""
    latest: dict[fx.Node, fx.Node] = {}
    output: list[Any] = []
    for node in graph.nodes:
        if latest:
            node.args = fx.map_arg(node.args, lambda n: latest.get(n, n))
            node.kwargs = fx.map_arg(node.kwargs, lambda n: latest.get(n, n))
        if node.op == "output":
            output = list(node.args[0])
        for target in _written(node):
            older = [n for n, last in latest.items() if last is target]
            latest.update(dict.fromkeys([*older, target], node))
    return output
