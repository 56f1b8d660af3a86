"""ONNX Runtime on the CPU with every graph optimisation, the same thread count, and its other settings as they come."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

from cosparse.bench.peers import Arrays, Runner, Shapes
from cosparse.engine.graph import Graph


def runners(graph: Graph, shapes: Shapes, threads: int) -> Sequence[Runner]:
    """One session over the dense `graph`; shapes are fixed, which lets the runtime fold most."""
    # Through a file: protobuf refuses messages of 2 GiB and more.
    with tempfile.TemporaryDirectory(prefix="cosparse-") as folder:
        opened = _session(save(graph, shapes, Path(folder)), threads)
    names = [value.name for value in opened.get_inputs()]

    def bind(inputs: Arrays) -> Callable[[], object]:
        binding = opened.io_binding()
        for name, array in zip(names, inputs, strict=True):
            binding.bind_cpu_input(name, array)
        for output in opened.get_outputs():
            binding.bind_output(output.name)
        return lambda: opened.run_with_iobinding(binding)

    return [Runner("all optimisations", _runner(opened), bind)]


def save(graph: Graph, shapes: Shapes, folder: Path) -> Path:
    """Writes the network as an ONNX file, its weights beside it."""
    # Imported here, so that a process which only loads the file does not carry the package in its memory figure.
    import onnx

    from cosparse.bench.peers.onnx_model import to_onnx

    path = folder / "dense.onnx"
    onnx.save_model(to_onnx(graph, shapes), str(path), save_as_external_data=True, location=path.name + ".data")
    return path


def load(path: Path, shapes: Shapes, threads: int) -> Callable[[Arrays], Arrays]:
    return _runner(_session(path, threads))


def _runner(session: onnxruntime.InferenceSession) -> Callable[[Arrays], Arrays]:
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: tuple(session.run(None, dict(zip(names, inputs, strict=True))))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
