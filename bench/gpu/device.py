"""The GPU that is measured: that there is one, what it is, its clocks, and the two ceilings that no kernel passes by much."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cosparse.bench.environment import commit, version
from cosparse.errors import UnsupportedError

COPY_BYTES = 2 << 30
PRODUCT = 8192
ROUNDS = 20
PACKAGES = ("cosparse", "torch", "triton", "numpy", "onnxruntime")
Clocks = tuple[float, float]
"""SM and memory clock, MHz."""


def require_cuda() -> None:
    """Raises UnsupportedError where torch sees no CUDA device."""
    if not torch.cuda.is_available():
        raise UnsupportedError("CUDA device", "one that torch sees", f"none with torch {torch.__version__}", "run this on a GPU machine")


def description() -> dict[str, Any]:
    """The `machine` of a result: GPU, memory and L2 in bytes, driver, versions, commit."""
    require_cuda()
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "l2_bytes": found.L2_cache_size,
        "driver": _query("driver_version"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def clock_reader() -> Callable[[], Clocks | None]:
    """A function that reads the clocks now: through NVML, which takes no time, else nvidia-smi, which takes a good part of a second."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        kinds = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM

        def read() -> Clocks | None:
            sm, memory = (float(pynvml.nvmlDeviceGetClockInfo(handle, kind)) for kind in kinds)
            return sm, memory

        read()
    except Exception:  # NVML raises its own kinds, and a machine may have the package and no library
        return from_smi
    return read


def from_smi() -> Clocks | None:
    """The clocks as nvidia-smi says; None where it does not."""
    answers = [_query("clocks.sm"), _query("clocks.mem")]
    try:
        sm, memory = (float((answer or "").split()[0]) for answer in answers)
    except (IndexError, ValueError):
        return None
    return sm, memory


def _query(field: str) -> str | None:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@dataclass(frozen=True)
class Ceilings:
    """Measured rates, lower bounds of the hardware's own: bytes read plus bytes written a second, and operations (two a multiply-add)."""

    bytes_per_s: float
    flops_per_s: float

    def floors_us(self, moved: float, multiply_adds: float) -> tuple[float, float]:
        """Least time, us, to move so many bytes through device memory, and to do so many multiply-adds."""
        return 1e6 * moved / self.bytes_per_s, 2e6 * multiply_adds / self.flops_per_s

    def to_json(self) -> dict[str, Any]:
        how = f"median of {ROUNDS}: copy of {COPY_BYTES >> 30} GiB within the device, fp16 product of {PRODUCT}^3 on normal random numbers"
        return {"copy_tb_s": round(self.bytes_per_s / 1e12, 3), "fp16_tflop_s": round(self.flops_per_s / 1e12, 1), "how": how}


def ceilings(times: Callable[[Callable[[], object], int], float]) -> Ceilings:
    """Measures both; `times(call, rounds)` gives the median seconds of a call."""
    require_cuda()
    found = Ceilings(2 * COPY_BYTES / times(_copy(), ROUNDS), 2 * PRODUCT**3 / times(_product(), ROUNDS))
    torch.cuda.empty_cache()
    return found


def _copy() -> Callable[[], object]:
    source = torch.empty(COPY_BYTES // 4, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _product() -> Callable[[], object]:
    a, b = (torch.randn(PRODUCT, PRODUCT, dtype=torch.float16, device="cuda") for _ in range(2))
    c = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=c)
