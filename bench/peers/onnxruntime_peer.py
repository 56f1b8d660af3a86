"""ONNX Runtime on the CPU with every graph optimisation, the same thread count, and its other settings as they come.

int8: its own static quantisation, in the form that it advises for x86 (QDQ nodes, weights signed with a scale for each filter, activations
unsigned).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

from cosparse.bench.peers import Arrays, Runner, Shapes, onnx_file
from cosparse.engine.graph import Graph

LABELS = {"float32": "all optimisations", "int8": "QDQ, all optimisations"}


def ways(dtype: str) -> Sequence[str]:
    return (LABELS[dtype],)


def save(graph: Graph, shapes: Shapes, folder: Path, dtype: str, samples: Sequence[Arrays]) -> Path:
    path = onnx_file.write(graph, shapes, folder)
    return path if dtype == "float32" else _quantize(path, samples)


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    session = _session(path, threads)
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Arrays) -> Arrays:
        return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

    def bind(inputs: Arrays) -> Callable[[], object]:
        binding = session.io_binding()
        for name, array in zip(names, inputs, strict=True):
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return lambda: session.run_with_iobinding(binding)

    return Runner(label, run, bind, dtype)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _quantize(path: Path, samples: Sequence[Arrays]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> dict | None:
            arrays = next(self._left, None)
            return None if arrays is None else {f"in{place}": array for place, array in enumerate(arrays)}

    quantized = path.with_name("dense_int8.onnx")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises a clean-up of the graph that ours does not need
    try:
        quantize_static(
            path,
            quantized,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    finally:
        root.setLevel(level)
    return quantized
