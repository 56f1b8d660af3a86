"""The table of kernels: what exists for which op, and whether this machine can run it. Tests and benchmarks read this one list."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

GROUP = 16  # pixels; kLanes of csrc/kernels/kernel.h


@dataclass(frozen=True)
class KernelRow:
    """One implementation of one op."""

    name: str
    op: str
    target: str  # scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx, triton, cuda, torch, reference
    dtype: str  # what it multiplies: float32, bfloat16, int8; float64 the references
    tile: str  # filters x pixels computed at once; empty where the kernel has no tile
    available: bool
    why: str


def reference_rows() -> list[KernelRow]:
    from cosparse.kernels.reference import REFERENCES

    return [KernelRow(f"{op}_f64__reference", op, "reference", "float64", "", True, "plain NumPy") for op in sorted(REFERENCES)]


def tile(row: dict[str, Any]) -> str:
    """t groups of 16 pixels; where t is 0 the lanes hold filters, and pixels come one by one."""
    return f"{row['r']}x{row['t'] * GROUP or 1}" if row["op"] == "conv" else ""


def compiled_rows() -> list[KernelRow]:
    """The rows of the C++ runtime's own table; one row that says why where the runtime is not there."""
    try:
        runtime = importlib.import_module("cosparse._C")
    except ImportError as error:
        return [KernelRow("cosparse._C", "all", "compiled", "float32", "", False, f"the C++ runtime does not import: {error}")]
    return [
        KernelRow(
            name=row["name"],
            op=row["op"],
            target=row["isa"],
            dtype=row["dtype"],
            tile=tile(row),
            available=row["available"],
            why="this CPU has it" if row["available"] else f"this CPU lacks {row['isa']}",
        )
        for row in runtime.kernels()
    ]


def gpu_rows() -> list[KernelRow]:
    """The GPU's kernels; one row that says why where torch or Triton is missing."""
    try:
        return importlib.import_module("cosparse.kernels.gpu.table").rows()
    except ImportError as error:
        return [KernelRow("cosparse.kernels.gpu", "all", "triton", "float16, bfloat16", "", False, f"pip install 'cosparse[gpu]': {error}")]


def available(gpu: bool = False) -> list[KernelRow]:
    """All kernels that this installation knows, best target first, the plain references last; `why` tells what was found.

    `gpu`: those for GPUs too, which imports torch.
    """
    return compiled_rows() + (gpu_rows() if gpu else []) + reference_rows()
