"""The kernel table with and without the compiled runtime."""

from __future__ import annotations

import sys
import types

import pytest

from cosparse.kernels import available
from cosparse.kernels.reference import REFERENCES


def fake_runtime() -> types.ModuleType:
    module = types.ModuleType("cosparse._C")
    module.kernels = lambda: [  # type: ignore[attr-defined]
        {"name": "conv_f32_8x2__avx512", "op": "conv", "isa": "avx512", "r": 8, "t": 2, "lanes": 16, "available": False},
        {"name": "conv_f32_1x4__avx2", "op": "conv", "isa": "avx2", "r": 1, "t": 4, "lanes": 8, "available": True},
        {"name": "conv_f32_8x0__avx2", "op": "conv", "isa": "avx2", "r": 8, "t": 0, "lanes": 8, "available": True},
    ]
    return module


def test_every_op_has_its_reference_row() -> None:
    rows = [row for row in available() if row.target == "reference"]
    assert sorted(row.op for row in rows) == sorted(REFERENCES)
    assert all(row.available and row.dtype == "float64" for row in rows)


def test_rows_of_the_runtime_come_first_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosparse._C", fake_runtime())
    first, second, third = available()[:3]
    assert (first.name, first.target, first.tile, first.available) == ("conv_f32_8x2__avx512", "avx512", "8x32", False)
    assert first.why == "this CPU lacks avx512"
    assert (second.tile, third.tile, third.available) == ("1x32", "8x1", True)


def test_a_missing_runtime_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosparse._C", None)
    first = available()[0]
    assert (first.name, first.available) == ("cosparse._C", False)
    assert "does not import" in first.why


def test_names_are_unique() -> None:
    names = [row.name for row in available()]
    assert len(names) == len(set(names))
