"""`cosparse run`: one artifact on arrays from files."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Annotated

import typer

from cosparse.atomic import require_writable, write_bytes
from cosparse.cli.device import DeviceOption, load
from cosparse.cli.output import JsonOption, emit, table
from cosparse.cli.values import CalibrationOption, DtypeOption, IsaOption, ThreadsOption, read_array
from cosparse.errors import Error


def command(
    artifact: Annotated[Path, typer.Argument(help="The network, NAME.cosparse.")],
    input: Annotated[list[Path], typer.Option(help="Input array, .npy, float32 [N, C, H, W]; once for each input of the network.")],
    output: Annotated[list[Path], typer.Option(help="Where the output goes, .npy; once for each output of the network.")],
    device: DeviceOption = "cpu",
    dtype: DtypeOption = None,
    calibration: CalibrationOption = None,
    threads: ThreadsOption = None,
    isa: IsaOption = None,
    json: JsonOption = None,
) -> None:
    """Run a network on an array from a file."""
    import numpy as np

    for path in output:
        require_writable("--output", path, streams=True)
    engine = load(artifact, device, dtype, threads, isa, calibration)
    for option, files, wanted in (("--input", input, engine.inputs), ("--output", output, engine.outputs)):
        if len(files) != len(wanted):
            raise Error(option, f"{len(wanted)} files ({', '.join(value.name for value in wanted)})", str(len(files)))
    arrays = [read_array(path) for path in input]
    start = time.perf_counter()
    results = engine(*arrays)
    ms = (time.perf_counter() - start) * 1e3
    results = results if isinstance(results, tuple) else (results,)
    for path, array in zip(output, results, strict=True):
        file = io.BytesIO()  # np.save would append .npy to a name without it, and cannot write into a pipe
        np.save(file, array, allow_pickle=False)
        write_bytes(path, file.getbuffer())
    rows = [{"name": v.name, "file": str(p), "shape": list(y.shape)} for v, p, y in zip(engine.outputs, output, results, strict=True)]
    cells = [(row["name"], row["shape"], row["file"]) for row in rows]
    shown = table(f"{artifact.name}: first run {ms:.2f} ms", ("output", "shape", "file"), cells, left=("output", "file"))
    emit({"device": engine.device, "dtype": engine.dtype, "outputs": rows, "first_run_ms": round(ms, 3)}, json, shown)
