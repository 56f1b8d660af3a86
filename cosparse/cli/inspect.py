"""`cosparse inspect`: what an artifact holds. Needs neither torch nor a peer."""

from __future__ import annotations

import json as jsonlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosparse.cli.output import JsonOption, emit, table

if TYPE_CHECKING:
    from cosparse.engine.graph import Graph, Node


def command(
    artifact: Annotated[Path, typer.Argument(help="The network, NAME.cosparse.")],
    plan: Annotated[bool, typer.Option("--plan", help="Also the plan of this machine: kernel and reason for each step.")] = False,
    json: JsonOption = None,
) -> None:
    """Show a network's graph, layers, densities, bytes and provenance."""
    from cosparse.engine import artifact as reader
    from cosparse.kernels.view import views_of, words

    graph = reader.read(artifact)
    size = artifact.stat().st_size
    layers = [_layer(node) for node in graph.nodes]
    result: dict[str, Any] = {
        "file": str(artifact),
        "bytes": size,
        "name": graph.name,
        "inputs": [{"name": value.name, "shape": list(value.shape), "dtype": value.dtype} for value in graph.inputs],
        "outputs": list(graph.outputs),
        "views": [None if view is None else words(view) for view in views_of(graph)],
        "layers": layers,
        "preprocessing": graph.preprocessing,
        "provenance": graph.provenance,
    }
    shown = [_summary(graph, size, layers), _layers(layers), *_notes(graph)]
    if plan:
        import cosparse

        planned = cosparse.load(artifact).plan
        fields = ("name", "op", "kernel", "density", "flops", "dense_flops", "bytes", "why")
        result["plan"] = [{field: getattr(row, field) for field in fields} for row in planned.rows]
        shown.append(str(planned))
    emit(result, json, *shown)


def _layer(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {"name": node.name, "op": node.op, "inputs": list(node.inputs), "attrs": node.attrs}
    row |= {"parameters": 0, "dense_parameters": 0, "density": None, "bytes": sum(array.nbytes for array in node.tensors.values())}
    sizes = {role: array.size for role, array in node.tensors.items() if role not in ("rows", "columns")}
    if node.op in ("conv", "linear"):
        from cosparse.kernels.conv import weight_shape

        dense = math.prod(weight_shape(node))
        row["density"] = sizes["values"] / dense
        row["dense_parameters"] = dense + sizes.get("bias", 0)
    else:
        row["dense_parameters"] = sum(sizes.values())
    row["parameters"] = sum(sizes.values())
    return row


def _summary(graph: Graph, size: int, layers: list[dict[str, Any]]) -> str:
    from cosparse.kernels.view import views_of, words

    inputs = ", ".join(f"{value.name} {_shape(value.shape)}" for value in graph.inputs)
    stored, dense = (sum(layer[key] for layer in layers) for key in ("parameters", "dense_parameters"))
    kept = f"{stored:,} of {dense:,} parameters ({stored / dense:.1%})" if dense else "no parameters"
    outputs = ", ".join(
        name if view is None else f"{name} {words(view)}" for name, view in zip(graph.outputs, views_of(graph), strict=True)
    )
    return f"{graph.name}: {inputs} -> {outputs}; {len(graph.nodes)} nodes, {kept}, {size:,} bytes\n"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def _layers(layers: list[dict[str, Any]]) -> Any:
    rows = []
    for layer in layers:
        density = "" if layer["density"] is None else f"{layer['density']:.1%}"
        parameters, size = (f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "bytes"))
        rows.append((layer["name"], layer["op"], _form(layer["attrs"]), ", ".join(layer["inputs"]), density, parameters, size))
    columns = ("layer", "op", "form", "inputs", "density", "parameters", "bytes")
    return table("layers", columns, rows, left=("layer", "op", "form", "inputs"))


def _form(attrs: dict[str, Any]) -> str:
    """A node's attributes in one short line; those that say "nothing special" are left out."""
    if "filters" not in attrs:
        return " ".join(f"{key}={_brief(value)}" for key, value in attrs.items() if value not in (0, 0.0, [0, 0, 0, 0]))
    words = [f"{attrs['channels']}->{attrs['filters']}"]
    if "kernel" in attrs:
        words[0] += f" {_brief(attrs['kernel'])}"
        words += [f"{key}={_brief(attrs[key])}" for key, usual in (("stride", [1, 1]), ("dilation", [1, 1])) if attrs[key] != usual]
        words += [f"groups={attrs['groups']}"] * (attrs["groups"] > 1)
    from cosparse.kernels.transform import name_of

    words.append(f"{name_of(attrs)} {attrs['block']}x1" if attrs["format"] == "block" else "dense")
    return " ".join(words)


def _brief(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _notes(graph: Graph) -> list[Any]:
    notes = []
    for title, content in (("preprocessing", graph.preprocessing), ("provenance", graph.provenance)):
        if content:
            rows = [(key, value if isinstance(value, str) else jsonlib.dumps(value)) for key, value in content.items()]
            notes += ["", table(title, ("field", "value"), rows, left=("field", "value"))]
    return notes
