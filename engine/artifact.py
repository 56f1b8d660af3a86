"""Writes and reads artifacts (docs/artifact.md). What is written is read back by the C++ reader before it takes its name."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy

from cosparse import _C
from cosparse.atomic import replacing
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import ArtifactError, Error
from cosparse.kernels.view import Axis, View

VERSION = 3
"""The highest version that is written, and only where the first one has no words for the graph."""

_SINCE_2 = {"channels_transform", "channels_tile", "filters_transform", "filters_tile"}
_SINCE_3 = {"group_norm", "log_softmax", "maximum", "minimum", "sum", "amax", "constant"}
_KINDS_SINCE_3 = {"sqrt", "abs", "exp", "log", "pow"}  # of activation
CHECKSUM_PREFIX = "blake2b-256:"
_NO_DIGITS = "0" * 64
_MOST_VALUES = 65536  # inputs, and outputs: each costs memory at every call, and the file a few bytes
_DTYPES = ("float32", "uint16", "uint32")


def write(path: str | os.PathLike[str], graph: Graph) -> None:
    """Writes `graph` to `path`, all or nothing: on any failure an older file of that name stays as it was.

    Equal graphs give equal bytes. An array object that several nodes share is stored once. Raises ArtifactError or UnsupportedError
    where the graph breaks a rule of docs/artifact.md, Error where `path` is a device, pipe or socket, OSError where the file system does.
    """
    with replacing(path) as part:
        part.write_bytes(to_bytes(graph))
        with _named(os.fspath(path), part):
            _C.read_artifact(part)


def read(path: str | os.PathLike[str]) -> Graph:
    """The graph in an artifact. Its arrays are read-only views of the file's bytes, which they keep alive."""
    artifact = _C.read_artifact(path)
    network = json.loads(artifact.json)
    arrays = {name: artifact.tensor(name) for name in artifact.tensors}
    return Graph(
        name=network["name"],
        inputs=tuple(_input(i) for i in network["inputs"]),
        outputs=tuple(network["outputs"]),
        nodes=tuple(
            Node(n["name"], n["op"], tuple(n["inputs"]), n["attrs"], {role: arrays[name] for role, name in n["tensors"].items()})
            for n in network["nodes"]
        ),
        preprocessing=network["preprocessing"],
        provenance=network["provenance"],
        views=tuple(map(view_of, network.get("views", ()))),
    )


def _input(fields: dict[str, Any]) -> Input:
    sizes = fields.get("sizes")
    return Input(fields["name"], tuple(fields["shape"]), fields["dtype"], (tuple(sizes[0]), tuple(sizes[1])) if sizes else None)


def view_of(entries: list[Any] | None) -> View | None:
    """A view as the JSON has it: sizes, null, {"axis": 2}."""
    return None if entries is None else tuple(Axis(entry["axis"]) if isinstance(entry, dict) else entry for entry in entries)


def _entries(view: View | None) -> list[Any] | None:
    return None if view is None else [{"axis": entry.axis} if isinstance(entry, Axis) else entry for entry in view]


def to_bytes(graph: Graph) -> bytes:
    """The bytes of the artifact, checksum included; of what docs/artifact.md asks, only what could not be written is checked."""
    for kind, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(values) > _MOST_VALUES:
            raise ArtifactError("graph", f"at most {_MOST_VALUES} {kind}", str(len(values)))
    roles, arrays = _name_tensors(graph)
    text = _to_json(_network(graph, roles))
    content = safetensors.numpy.save(arrays, metadata={"cosparse": text})
    # The header holds the text as a JSON string, and keys are sorted, so the placeholder stands at the very start of it.
    start = json.dumps('{"checksum":"' + CHECKSUM_PREFIX)[1:-1].encode()
    at = content.index(start + _NO_DIGITS.encode()) + len(start)
    return b"".join((content[:at], _C.blake2b(content).encode(), content[at + len(_NO_DIGITS) :]))


def _name_tensors(graph: Graph) -> tuple[list[dict[str, str]], dict[str, numpy.ndarray]]:
    """For each node role -> tensor name, and tensor name -> array: "<node>.<role>" of the first node that uses the array object."""
    arrays: dict[str, numpy.ndarray] = {}
    names: dict[int, str] = {}
    roles: list[dict[str, str]] = []
    for node in graph.nodes:
        for role, array in sorted(node.tensors.items()):
            if not isinstance(array, numpy.ndarray) or array.dtype.name not in _DTYPES:
                got = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
                raise ArtifactError(f"node {node.name!r}: tensor {role!r}", f"a numpy array of {', '.join(_DTYPES)}", got)
            name = names.setdefault(id(array), f"{node.name}.{role}")
            arrays[name] = array
        roles.append({role: names[id(array)] for role, array in node.tensors.items()})
    return roles, {name: numpy.asarray(array, order="C") for name, array in arrays.items()}  # safetensors stores memory as it lies


def _network(graph: Graph, roles: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "format": "cosparse",
        "version": _version(graph),
        "checksum": CHECKSUM_PREFIX + _NO_DIGITS,
        "name": graph.name,
        "inputs": [
            {"name": i.name, "shape": list(i.shape), "dtype": i.dtype} | ({"sizes": i.sizes} if i.sizes else {}) for i in graph.inputs
        ],
        "outputs": list(graph.outputs),
        "nodes": [
            {"name": n.name, "op": n.op, "inputs": list(n.inputs), "attrs": n.attrs, "tensors": tensors}
            for n, tensors in zip(graph.nodes, roles, strict=True)
        ],
        "preprocessing": graph.preprocessing,
        "provenance": graph.provenance,
    } | ({"views": [_entries(view) for view in graph.views]} if any(view is not None for view in graph.views) else {})


def _version(graph: Graph) -> int:
    """The lowest version that can state the graph."""
    viewed = any(view is not None for view in graph.views)
    newer = any(n.op in _SINCE_3 or n.attrs.get("kind") in _KINDS_SINCE_3 for n in graph.nodes)
    if viewed or newer or any(i.sizes for i in graph.inputs):
        return 3
    new = any(_SINCE_2 & n.attrs.keys() or (n.op == "conv" and n.attrs.get("transform") == "matrix") for n in graph.nodes)
    return 2 if new else 1


def _to_json(network: dict[str, Any]) -> str:
    try:
        return json.dumps(network, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # no JSON, a NaN or a circle, too deep
        about = f"graph {network['name']!r}"
        raise ArtifactError(about, "attributes, preprocessing and provenance that JSON can hold", str(error)) from error


@contextlib.contextmanager
def _named(target: str, temporary: Path) -> Iterator[None]:
    """Errors about the temporary file name the file that was asked for."""
    try:
        yield
    except Error as error:
        about = error.about.replace(str(temporary), target, 1)
        raise type(error)(about, error.expected, error.got, error.next_step) from None
