"""cosparse in Triton's Python backend. Triton batches; requests of one call are joined here, as the backend leaves them apart."""

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as utils  # Triton gives it

import cosparse


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        threads = int(config.get("parameters", {}).get("threads", {}).get("string_value", "1"))
        path = os.path.join(args["model_repository"], args["model_version"], "model.cosparse")
        self.engine = cosparse.load(path, threads=threads).warmup((1, max(1, int(config["max_batch_size"]))))

    def execute(self, requests: list[Any]) -> list[Any]:
        try:
            parts = [[utils.get_input_tensor_by_name(r, spec.name).as_numpy() for spec in self.engine.inputs] for r in requests]
            outputs = self.engine(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        except cosparse.Error as error:
            return [utils.InferenceResponse(error=utils.TritonError(str(error))) for _ in requests]
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        ends = np.cumsum([len(part[0]) for part in parts])[:-1]
        rows = zip(*(np.split(output, ends) for output in outputs), strict=True)
        names = [spec.name for spec in self.engine.outputs]
        return [utils.InferenceResponse([utils.Tensor(n, a) for n, a in zip(names, arrays, strict=True)]) for arrays in rows]
