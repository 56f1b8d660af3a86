"""Option values that are more than one word, and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosparse.errors import Error

if TYPE_CHECKING:
    import numpy

    from cosparse.compress import Latency

LARGEST = 2**31 - 1
"""Of a size, count, seed or batch: as many elements as a value may have (docs/artifact.md)."""

ThreadsOption = Annotated[int | None, typer.Option(help="Threads. Default: COSPARSE_THREADS, else all processors at hand.")]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="What convolutions multiply: float32 (default), bfloat16, int8; on a GPU float16 (default), bfloat16."),
]
CalibrationOption = Annotated[
    list[Path] | None, typer.Option(help="With int8: images to calibrate on, .npy [M, C, H, W]; once for each input.")
]
IsaOption = Annotated[
    str | None,
    typer.Option(help="Instruction set: scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx. Default: COSPARSE_ISA, else the best."),
]
TransformOption = Annotated[
    str,
    typer.Option(
        help="Transform in which weights are made sparse: identity, dct, walsh:B, dct-channels:B, walsh-filters:B, dct-filters:B, "
        "two-sided-walsh:B, two-sided-dct:B, klt[:B], random:SEED[:B]; one an axis, joined by +; ! at the end: however dear."
    ),
]


LatencyTableOption = Annotated[
    Path | None,
    typer.Option(help="Measured times, as python -m cosparse.bench.latency_table (masks) and .width_table (filters) write them."),
]
SeedOption = Annotated[int, typer.Option(min=0, max=LARGEST, help="Seed of everything random.")]
SecondsOption = Annotated[float, typer.Option(min=0.05, max=86400, help="Timed seconds for each candidate.")]
GroupOption = Annotated[bool, typer.Option("--group", help="First put filters that keep the same columns side by side.")]
GroupRowsOption = Annotated[
    int | None, typer.Option(min=1, help="Filters, a multiple of --block, whose blocks are chosen with regard to each other; 64 for GPUs.")
]
SlackOption = Annotated[
    float | None, typer.Option(help="With --group-rows: what columns that any block keeps may cost, over the budget's share. Default: 1.5.")
]


def given(context: typer.Context) -> list[str]:
    """The names of the options that stand on the command line."""
    return [name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]


def integers(option: str, text: str, count: int | None = None, least: int = 1) -> list[int]:
    """Whole numbers from "1,8"; Error unless there are `count` of them, each at least `least` and at most LARGEST."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least or (count is not None and len(numbers) != count):
        how_many = f"{count} whole numbers" if count else "whole numbers"
        raise Error(option, f"{how_many} of at least {least}, with commas between", repr(text))
    if max(numbers) > LARGEST:
        raise Error(option, f"whole numbers of at most {LARGEST}", repr(text))
    return numbers


def words(text: str) -> tuple[str, ...]:
    """Names from "torch,onnxruntime", once each; empty for "" and "none"."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip() not in ("", "none")))


def share(option: str, value: float | None) -> float | None:
    """A share in [0, 1) or None; else Error."""
    if value is not None and not 0 <= value < 1:
        raise Error(option, "a share in [0, 1)", str(value), "0.6 removes 60 %")
    return value


def latency(table: Path | None, removed: float | None, ms: float | None = None, option: str = "--latency") -> Latency | None:
    """The bound on time that the options ask for: a share to remove, or milliseconds, of what the table measured; None without them."""
    asked = removed is not None or ms is not None
    if asked and table is None:
        next_step = "python -m cosparse.bench.latency_table makes a table for masks, width_table one for filters"
        raise Error("--latency-table", f"measured times for {option}", "none", next_step)
    if table is None:
        return None
    require_regular("--latency-table", table)
    if not asked:
        raise Error(option, "a bound on the time in --latency-table", "none", "0.5 halves it")
    from cosparse.compress import Latency

    return Latency(table, ms=ms, share=removed)


def read_calibration(dtype: str, files: list[Path] | None) -> tuple[numpy.ndarray, ...] | None:
    """The arrays in the files of --calibration; None where none are given, which int8 does not allow."""
    if dtype == "int8" and not files:
        raise Error("--calibration", "images to take int8's steps from, once for each input", "none", "give some real inputs as .npy")
    if files and dtype != "int8":
        raise Error("--calibration", "--dtype int8", f"--dtype {dtype}", "leave it out: only int8 is calibrated")
    return tuple(map(read_array, files)) if files else None


def require_regular(about: str, path: Path) -> None:
    """Raises Error for a folder, device or pipe, of which some would be read for ever; what is not there, its reader names."""
    if path.exists() and not path.is_file():
        raise Error(about, "a file", f"{path}, a folder" if path.is_dir() else f"{path}, a device or pipe")


def read_array(path: Path) -> numpy.ndarray:
    """The array of numbers in an .npy file, as float32; Error for anything else."""
    import numpy as np

    require_regular(str(path), path)
    try:
        array = np.load(path, allow_pickle=False)
    except OSError:
        raise  # no such file, no right to read it
    except Exception as error:  # whatever bytes make of NumPy's reader, from BadZipFile to tokenize's own errors
        raise Error(str(path), "an array file (.npy) of numbers", str(error) or type(error).__name__) from error
    if not isinstance(array, np.ndarray):
        raise Error(str(path), "one array (.npy)", "an archive of several")
    if array.dtype.kind not in "fiu":
        raise Error(str(path), "an array of numbers", str(array.dtype))
    return np.ascontiguousarray(array, dtype=np.float32)
