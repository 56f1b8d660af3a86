"""The CUDA sources compile for the GPUs that they are meant for, keep their sums in registers and use the tensor cores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosparse.errors import Error
from cosparse.kernels.gpu import build

KERNEL = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The library, and what the assembler said."""
    try:
        build.compiler()
    except Error as error:
        pytest.skip(str(error))
    library = tmp_path_factory.mktemp("cuda") / "_cuda.so"
    return library, build.build(library, flags=("-Xptxas", "-v", "--threads", "2"))


def test_nothing_is_spilled(built: tuple[Path, str]) -> None:
    kernels = KERNEL.findall(built[1])
    assert {arch for _, arch, _, _ in kernels} == {f"sm_{arch}" for arch in build.ARCHITECTURES}
    assert [(kernel, arch) for kernel, arch, *spilled in kernels if spilled != ["0", "0"]] == []


def test_products_run_on_tensor_cores(built: tuple[Path, str]) -> None:
    pytest.importorskip("triton")
    from cosparse.bench.gpu.machine_code import library, tool

    if not tool("cuobjdump").exists():
        pytest.skip("no cuobjdump in triton")
    code = library(built[0])
    assert sorted(code) == sorted((kernel, arch) for kernel, arch, _, _ in KERNEL.findall(built[1]))
    products = re.compile(r"\bHG?MMA\.[0-9x]+\.F32")
    assert [kernel for kernel, lines in code.items() if not any(map(products.search, lines))] == []


def test_a_failing_compiler_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_NVCC", "false")
    with pytest.raises(Error, match="exit status 1"):
        build.build(tmp_path / "_cuda.so")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("COSPARSE_NVCC", "no-such-compiler")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(Error, match="nvcc"):
        build.compiler()
