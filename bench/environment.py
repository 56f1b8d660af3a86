"""What a measurement was taken on: processor, processors at hand, versions, commit. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "onnxruntime", "openvino", "nncf")
_SOURCE = Path(__file__).resolve().parents[1]


def machine(isa: str | None = None) -> dict[str, Any]:
    """The `machine` entry of a bench result. `cores` are those this process may use; `isa` is the one that the engine runs."""
    return {
        "cpu": cpu_model(),
        "cores": len(processors()),
        "isa": isa,
        "versions": {"cosparse": version("cosparse"), "python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": commit(),
    }


def processors() -> list[int]:
    """Numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    info = cpu_info()
    name = info.get("model name") or info.get("Model") or platform.processor() or platform.machine()
    family = [info.get(key, "") for key in ("cpu family", "model")]
    return f"{name} (family {family[0]}, model {family[1]})" if all(family) else name


def cpu_info() -> dict[str, str]:
    """First block of /proc/cpuinfo, empty where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def caches() -> dict[str, str]:
    """Cache name (L1d, L1i, L2, L3) -> size as the system writes it, for the first processor; empty where the system does not say."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / field).read_text().strip() for field in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = size
    return found


def version(package: str) -> str | None:
    """Installed version, None where the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the checkout that this code runs from, with `+changes` where files differ from it; None outside a checkout of its own."""
    top = _git("rev-parse", "--show-toplevel")
    # A wheel inside somebody else's repository must not report that repository's commit.
    if top is None or Path(top).resolve() != _SOURCE:
        return None
    head = _git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_SOURCE), *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
