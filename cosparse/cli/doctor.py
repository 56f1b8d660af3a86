"""`cosparse doctor`: what this machine and this installation offer, what is missing and how to get it."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from cosparse.cli.output import JsonOption, emit, table

EXTRAS = {
    "numpy": "",
    "safetensors": "",
    "torch": "compress",
    "scipy": "compress",
    "scikit-learn": "compress",
    "pyarrow": "compress",
    "pillow": "compress",
    "matplotlib": "compress",
    "onnx": "bench",
    "onnxruntime": "bench",
    "openvino": "bench",
    "nncf": "bench",
    "triton": "gpu",
    "uvicorn": "serve",
    "tritonclient": "serve",
}
TOOLS = {
    "c++": "to build the extension, and for the peer torch.compile",
    "git": "to record commits with results",
    "nvcc": "to build CUDA kernels",
}
VARIABLES = ("COSPARSE_ISA", "COSPARSE_THREADS")


@dataclass(frozen=True)
class Finding:
    """One line: `found` is empty where the thing is missing, and `next_step` then says how to get it."""

    group: str
    thing: str
    found: str
    next_step: str = ""


def command(
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if the engine itself cannot run.")] = False,
    json: JsonOption = None,
) -> None:
    """Show what was found on this machine, what is missing, and how to get it."""
    findings = [*_machine(), *_engine(), *_packages(), *_tools(), *_gpu(), *_environment()]
    rows = [(f.group, f.thing, f.found or "missing", f.next_step) for f in findings]
    shown = table("cosparse doctor", ("", "what", "found", "next step"), rows, left=("", "what", "found", "next step"))
    emit([asdict(finding) for finding in findings], json, shown)
    if strict and any(f.group == "engine" and not f.found for f in findings):
        raise typer.Exit(1)


def _machine() -> list[Finding]:
    from cosparse.bench import environment, neighbours

    caches = ", ".join(f"{name} {size}" for name, size in environment.caches().items())
    busy = neighbours.sample(0.3)
    load = "not visible here" if busy is None else f"{busy:.2f} processors busy"
    quiet = "" if neighbours.quiet(busy) else "measure again when the machine is quiet"
    return [
        Finding("machine", "processor", environment.cpu_model()),
        Finding("machine", "processors at hand", f"{len(environment.processors())} of {os.cpu_count()}"),
        Finding("machine", "caches", caches or "not given by this system"),
        Finding("machine", "system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("machine", "neighbours", load, quiet),
    ]


def _engine() -> list[Finding]:
    from cosparse.bench import environment

    source = environment.commit()
    own = [Finding("engine", "cosparse", (environment.version("cosparse") or "not installed") + (f", commit {source}" if source else ""))]
    try:
        from cosparse import _C
    except ImportError as error:
        return [*own, Finding("engine", "extension", "", f"{error}; pip install -e . needs a C++17 compiler")]
    own.append(Finding("engine", "extension", os.path.basename(_C.__file__)))
    sets: dict[str, list[bool]] = {}
    for row in _C.kernels():
        sets.setdefault(row["isa"], []).append(bool(row["available"]))
    for isa, available in sets.items():
        have = f"{sum(available)} kernels" if any(available) else ""
        own.append(Finding("engine", f"kernels for {isa}", have, "" if have else "this processor lacks the instructions"))
    return own


def _packages() -> list[Finding]:
    from cosparse.bench.environment import version

    found = [Finding("packages", "python", platform.python_version())]
    for package, extra in EXTRAS.items():
        have = version(package) or ""
        install = f"pip install 'cosparse[{extra}]'" if extra else "pip install cosparse"
        found.append(Finding("packages", package, have, "" if have else install))
    return found


def _tools() -> list[Finding]:
    found = []
    for tool, purpose in TOOLS.items():
        lines = _run(tool, "--version").splitlines()
        # nvcc opens with its own name and says its release further down.
        line = next((line for line in lines if tool == "nvcc" and "release" in line), "".join(lines[:1]))
        found.append(Finding("tools", tool, line, "" if line else f"install it {purpose}"))
    return found


def _gpu() -> list[Finding]:
    cards = _run("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader").splitlines()
    if not cards:
        return [Finding("gpu", "NVIDIA driver", "", "none is needed: the engine runs on the CPU")]
    found = [Finding("gpu", f"card {number}", card) for number, card in enumerate(cards)]
    answer = _run(sys.executable, "-c", "import json, torch; print(json.dumps([torch.cuda.is_available(), torch.version.cuda]))")
    if answer:
        usable, cuda = jsonlib.loads(answer.splitlines()[-1])
        found.append(Finding("gpu", "torch with CUDA", f"CUDA {cuda}" if usable else "", "" if usable else "install a CUDA build of torch"))
    answer = _run(sys.executable, "-c", "from cosparse.kernels.gpu import cuda_library; print(cuda_library.available()[1] or 'there')")
    there = answer.endswith("there")
    next_step = "" if there else "make cuda; without them the Triton kernels serve"
    found.append(Finding("gpu", "CUDA kernels", "there" if there else "", next_step))
    return found


def _environment() -> list[Finding]:
    return [Finding("environment", name, os.environ[name]) for name in VARIABLES if name in os.environ]


def _run(tool: str, *arguments: str) -> str:
    """Output of a program, empty where it is missing or fails."""
    if not shutil.which(tool):
        return ""
    try:
        return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
