"""cosparse/_C.pyi says of the compiled runtime what is there: the same functions, classes and members."""

from __future__ import annotations

import ast

from conftest import REPOSITORY

import cosparse._C as runtime


def test_the_stub_names_what_the_runtime_has() -> None:
    stub = ast.parse((REPOSITORY / "cosparse" / "_C.pyi").read_text(encoding="utf-8"))
    described = [d for d in stub.body if isinstance(d, ast.FunctionDef | ast.ClassDef)]
    assert {d.name for d in described} == {name for name in vars(runtime) if not name.startswith("_")}
    for described_class in (d for d in described if isinstance(d, ast.ClassDef)):
        members = {d.name for d in described_class.body if isinstance(d, ast.FunctionDef) and d.name != "__init__"}
        assert members == {name for name in vars(getattr(runtime, described_class.name)) if not name.startswith("_")}
