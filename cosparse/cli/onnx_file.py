"""The dense network of an artifact as an ONNX file, for runtimes that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(artifact_file: Path, shapes: Sequence[Sequence[int]], out: Path) -> None:
    """Writes an ONNX model for inputs of these shapes, atomically: ordinary weights, batch norms folded; inputs are called in0, in1, ..."""
    import onnx

    from cosparse import _C
    from cosparse.atomic import replacing
    from cosparse.bench.dense import densify
    from cosparse.bench.peers.onnx_model import to_onnx
    from cosparse.engine import artifact

    model = to_onnx(densify(artifact.read(artifact_file)), _C.infer_shapes(_C.read_artifact(artifact_file), [list(s) for s in shapes]))
    with replacing(out) as part:
        onnx.save_model(model, str(part))
