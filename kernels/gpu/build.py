"""Compiles csrc/cuda into one shared library: python -m cosparse.kernels.gpu.build [OUTPUT]; needs nvcc, but no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cosparse.errors import Error

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"

ARCHITECTURES = ("80", "90a")

FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC", "-cudart", "static")


def compiler() -> str:
    """nvcc: COSPARSE_NVCC, or the one on the path, or in CUDA_HOME. Error where there is none."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    found = shutil.which(os.environ.get("COSPARSE_NVCC") or "nvcc") or shutil.which(Path(home, "bin", "nvcc"))
    if not found:
        expected = "nvcc on the path, in CUDA_HOME or named by COSPARSE_NVCC"
        raise Error("building the CUDA kernels", expected, "none", "install CUDA 12 or newer")
    return found


def version() -> str:
    """The compiler's release, such as "nvcc 13.0"; Error where there is none."""
    said = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    return f"nvcc {said.partition('release ')[2].partition(',')[0]}"


def build(output: Path, archs: Sequence[str] = ARCHITECTURES, flags: Sequence[str] = ()) -> str:
    """Writes the library for the compute capabilities `archs`; returns what nvcc printed. `flags` are added to FLAGS."""
    sources = sorted(SOURCES.glob("*.cu"))
    if not sources:
        raise Error("building the CUDA kernels", f"sources in {SOURCES}", "none", "build from a checkout: wheels do not carry them")
    # And the oldest as PTX, which drivers compile for GPUs that are newer than all of these.
    kinds = [(arch, f"sm_{arch}") for arch in archs] + [(archs[0], f"compute_{archs[0]}")]
    targets = [word for arch, code in kinds for word in ("-gencode", f"arch=compute_{arch},code={code}")]
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target and renamed at the end: a process that has the old library open keeps it whole.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".cuda-") as folder:
        made = Path(folder) / "made.so"
        command = [compiler(), *FLAGS, *targets, *flags, *map(str, sources), "-o", str(made)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            said = f"{' '.join(command)}\n{done.stdout}"
            raise Error("building the CUDA kernels", "nvcc to succeed", f"exit status {done.returncode}", said)
        made.replace(output)
    return done.stdout


def main() -> None:
    import cosparse

    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(cosparse.__file__).parent / "_cuda.so"
    try:
        build(output)
    except Error as error:
        sys.exit(str(error))
    print(output)


if __name__ == "__main__":
    main()
