"""A machine that lacks an instruction set never executes code that was compiled for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import c_library
import pytest
from sample_graphs import every_transform

from cosparse.engine import artifact

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")


@pytest.fixture(scope="module")
def archives(repository: Path) -> list[Path]:
    found = [repository / "build" / "archives" / f"libcosparse_{isa}.a" for isa in ISAS]
    found = [path for path in found if path.exists()]
    if not found or shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("no archives in build/archives, which make setup leaves there, or no binutils")
    return found


def output(*command: str | Path) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def test_an_instruction_set_gives_the_linker_one_table_of_constants(archives: list[Path]) -> None:
    """A function that others could link, an inline one above all, would be called on every machine, and a constructor run."""
    for archive in archives:
        isa = archive.stem.removeprefix("libcosparse_")
        given = [line.split() for line in output("nm", "--defined-only", "--extern-only", archive).splitlines() if len(line.split()) == 3]
        given = [(kind, name) for _, kind, name in given if not name.startswith("DW.ref.")]
        assert [name for _, name in given] == [f"_ZN8cosparse{len(isa)}{isa}7kernelsE"], given
        assert given[0][0] in "DR"
        assert not re.search(r"\.init_array|\.ctors", output("readelf", "-SW", archive))


def test_the_runtime_on_a_machine_without_avx512(repository: Path, tmp_path: Path) -> None:
    """Valgrind's processor has AVX2 and no more; it also sees reads of memory that nobody wrote or owns, and leaks."""
    valgrind, compiler = shutil.which("valgrind"), shutil.which("cc")
    if valgrind is None or compiler is None:
        pytest.skip("no valgrind, or no cc")
    prefix = c_library.installed(repository)
    lib = next(prefix.glob("lib*/libcosparse.so")).parent
    artifact.write(tmp_path / "net.cosparse", every_transform())
    source = repository / "examples" / "c" / "classify.c"
    subprocess.run([compiler, source, f"-I{prefix}/include", f"-L{lib}", "-lcosparse", "-o", tmp_path / "classify"], check=True)
    check = [valgrind, "-q", "--leak-check=full", "--error-exitcode=9", tmp_path / "classify", tmp_path / "net.cosparse"]
    done = subprocess.run(check, capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(lib), "COSPARSE_CACHE": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert ": avx2," in done.stdout or ": scalar," in done.stdout
