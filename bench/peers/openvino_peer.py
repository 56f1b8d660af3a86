"""OpenVINO on the CPU, from the same ONNX file, one stream, tuned for latency, the same thread count.

Its precision is always asked for: left to itself it takes bfloat16 where the processor has it. int8 is post-training quantisation by NNCF,
preset "mixed" (weights symmetric, activations as they lie); what stays unquantised runs in float32 or in bfloat16, whichever is faster.
Without VNNI sums of pairs of products overflow 16 bits; weights have seven bits there, NNCF's remedy. Without AVX-512 OpenVINO takes
float32 where bfloat16 is asked for: the label says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from cosparse.bench.peers import Arrays, Runner, Shapes, onnx_file
from cosparse.engine.graph import Graph
from cosparse.kernels import available

PRECISIONS = {
    "float32": {"f32": "f32"},
    "bfloat16": {"bf16": "bf16"},
    "int8": {"int8, rest f32": "f32", "int8, rest bf16": "bf16"},
}
IN_FLOAT32 = ", run in f32"  # what a label ends with where the processor has nothing shorter


def ways(dtype: str) -> Sequence[str]:
    return tuple(PRECISIONS[dtype])


def save(graph: Graph, shapes: Shapes, folder: Path, threads: int, dtype: str, samples: Sequence[Arrays]) -> Path:
    path = onnx_file.write(graph, shapes, folder)
    return path if dtype != "int8" else _quantize(path, samples)


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    core = openvino.Core()
    precision = PRECISIONS[dtype][label.removesuffix(IN_FLOAT32)]
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    settings |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    model = core.compile_model(core.read_model(path), "CPU", settings)
    if precision == "bf16" and model.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32:
        label += IN_FLOAT32

    def bind(inputs: Arrays) -> Callable[[], object]:
        request = model.create_infer_request()
        for place, array in enumerate(inputs):
            request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
        return lambda: request.infer(share_outputs=True)

    def run(inputs: Arrays) -> Arrays:
        outputs = model.create_infer_request().infer(dict(enumerate(inputs)))
        return tuple(np.asarray(outputs[place], np.float32) for place in range(len(model.outputs)))

    return Runner(label, run, bind, dtype)


def _quantize(path: Path, samples: Sequence[Arrays]) -> Path:
    os.environ.setdefault("NNCF_CI", "1")  # a benchmark reports to nobody
    import nncf

    nncf.set_log_level(40)
    data = nncf.Dataset([dict(enumerate(arrays)) for arrays in samples])
    model = openvino.Core().read_model(path)
    fix = nncf.OverflowFix.FIRST_LAYER if _has_vnni() else nncf.OverflowFix.ENABLE
    parameters = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
    preset = nncf.QuantizationPreset.MIXED
    quantized = nncf.quantize(model, data, preset=preset, subset_size=len(samples), advanced_parameters=parameters)
    target = path.with_name("dense_int8.xml")
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target


def _has_vnni() -> bool:
    return any(row.target == "avx512_vnni" and row.available for row in available())
