"""The kernel table with and without the compiled runtime."""

from __future__ import annotations

import sys
import types

import pytest

from cosparse.kernels import available
from cosparse.kernels.reference import REFERENCES
from cosparse.kernels.table import compiled_rows


def fake_runtime() -> types.ModuleType:
    module = types.ModuleType("cosparse._C")
    module.kernels = lambda: [  # type: ignore[attr-defined]
        {"name": "conv_int8_8x2__avx512_vnni", "op": "conv", "isa": "avx512_vnni", "dtype": "int8", "r": 8, "t": 2, "available": False},
        {"name": "conv_f32_1x2__avx2", "op": "conv", "isa": "avx2", "dtype": "float32", "r": 1, "t": 2, "available": True},
        {"name": "conv_f32_8x0__avx2", "op": "conv", "isa": "avx2", "dtype": "float32", "r": 8, "t": 0, "available": True},
        {"name": "pool_f32__avx2", "op": "pool", "isa": "avx2", "dtype": "float32", "r": 1, "t": 1, "available": True},
    ]
    return module


def test_every_op_has_its_reference_row() -> None:
    rows = [row for row in available() if row.target == "reference"]
    assert sorted(row.op for row in rows) == sorted(REFERENCES)
    assert all(row.available and row.dtype == "float64" for row in rows)


def test_rows_of_the_runtime_come_first_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosparse._C", fake_runtime())
    first, second, third, pool = available()[:4]
    assert (first.name, first.target, first.dtype) == ("conv_int8_8x2__avx512_vnni", "avx512_vnni", "int8")
    assert (first.tile, first.available, first.why) == ("8x32", False, "this CPU lacks avx512_vnni")
    assert (second.tile, third.tile, third.available) == ("1x32", "8x1", True)
    assert (pool.tile, pool.dtype) == ("", "float32")


def test_a_name_is_an_address() -> None:
    """op_dtype_tile__target, so that a line of a profile leads to the kernel."""
    short = {"float32": ("f32", "observe"), "bfloat16": ("bf16",), "int8": ("int8",)}
    for row in compiled_rows():
        stem, target = row.name.split("__")
        op, number, *tile = stem.split("_")
        assert (op, target) == (row.op, row.target)
        assert number in short[row.dtype]
        assert bool(tile) == bool(row.tile)


def test_every_number_has_a_kernel_for_every_block_on_every_machine() -> None:
    scalar = [row for row in compiled_rows() if row.op == "conv" and row.target == "scalar"]
    for dtype in ("float32", "bfloat16", "int8"):
        assert {row.tile.split("x")[0] for row in scalar if row.dtype == dtype} == {"1", "2", "4", "8"}


def test_a_missing_runtime_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosparse._C", None)
    first = available()[0]
    assert (first.name, first.available) == ("cosparse._C", False)
    assert "does not import" in first.why


def test_names_are_unique() -> None:
    names = [row.name for row in available()]
    assert len(names) == len(set(names))


def test_the_table_has_the_gpu_s_kernels_too() -> None:
    rows = available(gpu=True)
    assert len({row.name for row in rows}) == len(rows)
    targets: dict[str, set[str]] = {}
    for row in rows:
        targets.setdefault(row.op, set()).add(row.target)
    gpu = {"triton", "cuda", "torch"}
    assert all(found & gpu for op, found in targets.items() if op in REFERENCES), "an op that no kernel runs on a GPU"
    assert {"triton", "cuda", "torch"} <= targets["conv"]
    assert all(row.available or row.why for row in rows)
