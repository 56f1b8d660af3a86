"""The fuzzing in tests/native with the compiler that is there: known inputs again, then half a minute of new ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import fuzz_seeds
import pytest

NATIVE, ARCHIVES = Path("tests/native"), Path("build/archives")
CXX = shutil.which(os.environ.get("CXX", "g++"))
pytestmark = pytest.mark.skipif(CXX is None or shutil.which("make") is None, reason="no C++ compiler, or no make")


@pytest.fixture(scope="module")
def programs(repository: Path) -> Path:
    """Kernels would take minutes to compile: these are set-up's, which no sanitizer looks into; `make fuzz` compiles its own."""
    if not (repository / ARCHIVES / "libcosparse_scalar.a").exists():
        pytest.skip(f"no archives in {ARCHIVES}: make setup leaves them there")
    jobs, native = f"-j{len(os.sched_getaffinity(0))}", str(NATIVE / "native.mk")
    build = ["make", jobs, "-f", native, "KIND=fuzz", "OPTIMISE=-O0", f"ARCHIVES={ARCHIVES}", f"CXX={CXX}"]
    done = subprocess.run(
        [*build, "PROGRAMS=fuzz_loader fuzz_plan fuzz_net", "all"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return repository / "build" / "native" / f"fuzz-{Path(str(CXX)).name}-quick"


def run(program: Path, *arguments: str | Path) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "kept"), [("loader", "loader"), ("plan", "loader"), ("net", "net")])
def test_what_was_found_once_stays_fixed(name: str, kept: str, programs: Path, repository: Path) -> None:
    inputs = sorted((repository / NATIVE / "corpus" / kept).iterdir())
    assert inputs
    run(programs / f"fuzz_{name}", *inputs)


@pytest.mark.parametrize("name", ["loader", "plan"])
def test_the_reader_and_plans_of_what_it_reads_on_new_inputs(name: str, programs: Path, tmp_path: Path) -> None:
    fuzz_seeds.write(tmp_path / "seeds")
    (tmp_path / "corpus").mkdir()
    said = run(programs / f"fuzz_{name}", "-max_total_time=10", f"-artifact_prefix={tmp_path}/", tmp_path / "corpus", tmp_path / "seeds")
    assert os.listdir(tmp_path / "corpus"), said  # feedback works: something new was reached


def test_plans_and_kernels_on_new_inputs(programs: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    seeds = repository / NATIVE / "corpus" / "net"
    said = run(programs / "fuzz_net", "-max_total_time=10", "-max_len=300", f"-artifact_prefix={tmp_path}/", tmp_path / "corpus", seeds)
    assert os.listdir(tmp_path / "corpus"), said


def test_the_programs_are_compiled_for_the_instruction_sets_of_the_extension(repository: Path) -> None:
    made = (repository / NATIVE / "native.mk").read_text(encoding="utf-8")
    built = (repository / "setup.py").read_text(encoding="utf-8") + "".join(p.read_text() for p in (repository / "csrc").glob("flags.json"))
    assert set(re.findall(r"-m(?:avx|amx|fma)[a-z0-9-]*", made)) == set(re.findall(r"-m(?:avx|amx|fma)[a-z0-9-]*", built))
