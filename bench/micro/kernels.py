"""Every convolution kernel of the table on single layers: those of a ResNet's four stages, 1x1 and 3x3, sparse and full.

    pytest bench/micro/kernels.py --benchmark-max-time=0.1 -k "8x2 and 3x3"

Each benchmark carries GFLOP/s (on what is executed, and dense-equivalent), the kernel and the density as extra information. A kernel that
the plan does not take for a layer, even when asked for its tile, is skipped and says what is taken instead.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import cosparse
from cosparse.bench.check import compare
from cosparse.bench.layer_net import Layer, image, network
from cosparse.engine import artifact
from cosparse.engine.engine import Engine
from cosparse.errors import Error, UnsupportedError
from cosparse.kernels import reference
from cosparse.kernels.table import KernelRow, compiled_rows

STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))  # channels, pixels a side
LAYERS = [Layer(channels, channels, size, kernel) for channels, size in STAGES for kernel in (1, 3)]
DENSITIES = (0.2, 1.0)
# Those that observe serve calibration, which nobody waits for.
ROWS = [row for row in compiled_rows() if row.op == "conv" and row.available and "observe" not in row.name]


def _tile(row: KernelRow) -> tuple[int, int]:
    """(filters, vectors of pixels) from the kernel's name."""
    filters, _, vectors = row.name.split("_")[2].partition("x")
    return int(filters), int(vectors)


@lru_cache(maxsize=4)
def _answer(layer: Layer, density: float, block: int) -> np.ndarray:
    (expected,) = reference.run(network(layer, density, block), image(layer))
    return expected


def _load(row: KernelRow, layer: Layer, density: float) -> Engine:
    block, vectors = _tile(row)
    options: dict[str, Any] = {} if row.dtype == "float32" else {"dtype": row.dtype}
    if row.dtype == "int8":
        options["calibration"] = (image(layer),)
    with TemporaryDirectory(prefix="cosparse-") as folder:
        path = Path(folder) / "layer.cosparse"
        artifact.write(path, network(layer, density, block))
        return cosparse.load(path, isa=row.target, tile=vectors, **options)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_kernel(benchmark: Any, row: KernelRow, layer: Layer, density: float) -> None:
    """One call of the engine on one layer."""
    try:
        engine = _load(row, layer, density)
    except UnsupportedError as error:
        pytest.skip(f"{row.dtype}: {error}")
    step = next(step for step in engine.plan if step.name == "conv")
    if step.kernel != row.name:
        pytest.skip(f"the plan takes {step.kernel} here")
    x = image(layer)
    out = engine(x)
    if row.dtype == "float32" and not (check := compare([out], [_answer(layer, density, _tile(row)[0])])).passed:
        raise Error(row.name, f"outputs within {check.tolerance:.2g} of the reference", f"{check.max_abs_err:.2g}")
    benchmark.group = f"{layer}, density {density:g}"
    benchmark(engine, x, out=out)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {"kernel": step.kernel, "density": round(step.density, 4), "threads": engine.threads}
    benchmark.extra_info |= {"gflops": 2e-9 * (step.flops + step.basis_flops) / seconds, "dense_gflops": 2e-9 * step.dense_flops / seconds}
