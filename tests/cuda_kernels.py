"""For the tests of kernels in CUDA C++: their source compiled for the CPU, the places where they run, outputs that are poisoned."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from cosparse.kernels.gpu import cuda_library
from cosparse.kernels.gpu.planes import Planes, stride_of

EPS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in EPS]


@pytest.fixture(scope="session")
def emulation(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each has a folder of its own in that of the run
        folder = folder.parent
    made = folder / "cuda_on_host.so"
    flags = ["-O1", "-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DCOSPARSE_CUDA_ON_HOST"]
    # A GPU refuses words at addresses that they do not divide, where a CPU reads them.
    flags += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    with open(made.with_suffix(".lock"), "w") as lock:  # of the processes that share out the tests, one builds, with all cores
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            sources = sorted((repository / "csrc/cuda").glob("*.cu"))
            objects = [str(folder / source.with_suffix(".o").name) for source in sources]
            each = [[compiler, *flags, "-x", "c++", "-c", str(s), "-o", o] for s, o in zip(sources, objects, strict=True)]
            for commands in (each, [[compiler, *flags, "-shared", *objects, "-o", str(made)]]):
                runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
                said = [run.communicate()[0] for run in runs]
                assert not any(run.returncode for run in runs), "".join(said)
    return made


@pytest.fixture
def on_host(emulation: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COSPARSE_CUDA_LIBRARY", str(emulation))
    return "cpu"


@pytest.fixture
def on_gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    fine, why = cuda_library.available()
    if not fine:
        pytest.skip(why)
    return "cuda"


def guarded(shape: tuple[int, int, int, int], dtype: Any, device: str) -> tuple[Planes, Any]:
    """Planes of NaN with NaN around them, and all of it."""
    everything = torch.full((shape[1] + 2, stride_of(shape)), torch.nan, dtype=dtype, device=device)
    return Planes(everything[1:-1], shape), everything
