"""The GPU that is measured: that there is one, what it is, its clocks, and the two ceilings that no kernel passes by much."""

from __future__ import annotations

import os
import subprocess
import time
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


def require_cuda(device: str = "cuda") -> None:
    """Raises UnsupportedError where torch sees no CUDA device, or not the one that is asked for."""
    if not torch.cuda.is_available():
        raise UnsupportedError("CUDA device", "one that torch sees", f"none with torch {torch.__version__}", "run this on a GPU machine")
    if (torch.device(device).index or 0) >= (count := torch.cuda.device_count()):
        raise UnsupportedError("CUDA device", f"cuda:0 to cuda:{count - 1}", device, "`cosparse doctor` lists the cards")


def description() -> dict[str, Any]:
    """The `machine` of a result: the current GPU, memory and L2 in bytes, driver, versions, commit."""
    require_cuda()
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
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
        card = card_name()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(card)) if card.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(card)
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


def busy() -> float | None:
    """Share of the last second in which somebody's kernels ran on the current GPU; None where the driver does not say. Waits that second
    first, so that work of this process that is done by now does not count."""
    torch.cuda.synchronize()
    time.sleep(1.0)
    try:
        return float((_query("utilization.gpu") or "").split()[0]) / 100
    except (IndexError, ValueError):
        return None


def card_name() -> str:
    """The driver's number or UUID of the current device. Both count cards alike unless CUDA_DEVICE_ORDER or unlike cards say otherwise."""
    index = torch.cuda.current_device() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[index].strip() if index < len(visible) and visible[index].strip() else str(index)


def _query(field: str) -> str | None:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", f"--id={card_name()}"]
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
