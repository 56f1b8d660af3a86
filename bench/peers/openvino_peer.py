"""OpenVINO on the CPU, from the same ONNX file, one stream, tuned for latency, the same thread count.

Its precision is always asked for: left to itself it takes bfloat16 where the processor has it. int8 is post-training quantisation by NNCF,
preset "mixed" (weights symmetric, activations as they lie); what stays unquantised runs in float32 or in bfloat16, whichever is faster.
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

PRECISIONS = {
    "float32": {"f32": "f32"},
    "bfloat16": {"bf16": "bf16"},
    "int8": {"int8, rest f32": "f32", "int8, rest bf16": "bf16"},
}


def ways(dtype: str) -> Sequence[str]:
    return tuple(PRECISIONS[dtype])


def save(graph: Graph, shapes: Shapes, folder: Path, dtype: str, samples: Sequence[Arrays]) -> Path:
    path = onnx_file.write(graph, shapes, folder)
    return path if dtype != "int8" else _quantize(path, samples)


def load(path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
    core = openvino.Core()
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype][label], "INFERENCE_NUM_THREADS": threads}
    settings |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    model = core.compile_model(core.read_model(path), "CPU", settings)

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
    quantized = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(samples))
    target = path.with_name("dense_int8.xml")
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target
