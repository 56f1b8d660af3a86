"""The dense network as an ONNX file, as every runtime that reads the format is given it."""

from __future__ import annotations

from pathlib import Path

from cosparse.bench.peers import Shapes
from cosparse.engine.graph import Graph


def write(graph: Graph, shapes: Shapes, folder: Path) -> Path:
    """Writes dense.onnx with shapes fixed, its weights beside it: protobuf refuses messages of 2 GiB and more."""
    # Imported here, so that a process which only loads the file does not carry the package in its memory figure.
    import onnx

    from cosparse.bench.peers.onnx_model import to_onnx

    path = folder / "dense.onnx"
    data = folder / f"{path.name}.data"
    data.unlink(missing_ok=True)  # onnx appends to a file that exists
    onnx.save_model(to_onnx(graph, shapes), str(path), save_as_external_data=True, location=data.name)
    return path
