"""The example programs, built as their readers would build them, and run; what the shared library shows; runs that do not allocate."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import c_library
import numpy as np
import pytest
from sample_graphs import every_transform

import cosparse
from cosparse.engine import artifact

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
C, CXX = ["-std=c99", *STRICT], ["-std=c++17", *STRICT]


@pytest.fixture(scope="module")
def prefix(repository: Path) -> Path:
    return c_library.installed(repository)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.cosparse"
    artifact.write(path, every_transform())
    return path


def run(*command: str | Path, ok: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env={**os.environ, **variables})
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def compiler(name: str) -> str:
    found = shutil.which(os.environ.get(name, {"CC": "cc", "CXX": "c++"}[name]))
    if found is None:
        pytest.skip(f"no {name}: a compiler for it is needed")
    return found


def shared(prefix: Path) -> list[str]:
    lib = next(prefix.glob("lib*/libcosparse.so")).parent
    return [f"-I{prefix / 'include'}", f"-L{lib}", "-lcosparse", f"-Wl,-rpath,{lib}"]


def static(prefix: Path) -> list[str]:
    return ["-DCOSPARSE_STATIC", f"-I{prefix / 'include'}", str(next(prefix.glob("lib*/libcosparse.a"))), "-lstdc++", "-lm", "-lpthread"]


@pytest.mark.parametrize("link", [shared, static])
def test_a_c_program(prefix: Path, repository: Path, model: Path, tmp_path: Path, link) -> None:
    run(compiler("CC"), *C, repository / "examples" / "c" / "classify.c", *link(prefix), "-o", tmp_path / "classify")
    x = np.random.default_rng(0).standard_normal((1, 6, 5, 4)).astype(np.float32)
    x.tofile(tmp_path / "image.f32")
    done = run(tmp_path / "classify", model, tmp_path / "image.f32")
    assert f"class {int(cosparse.load(model, tune=False)(x).argmax())}:" in done.stdout.splitlines()[1]
    assert "median of 50 runs" in done.stdout
    assert "expected a file of 120 floats" in run(tmp_path / "classify", model, model, ok=False).stderr
    assert "nowhere" in run(tmp_path / "classify", "nowhere", ok=False).stderr


@pytest.mark.parametrize("link", [shared, static])
def test_a_cpp_program(prefix: Path, repository: Path, model: Path, tmp_path: Path, link) -> None:
    source = repository / "examples" / "c" / "serve_threads.cpp"
    run(compiler("CXX"), *CXX, source, *link(prefix), "-lpthread", "-o", tmp_path / "serve_threads")
    assert "3 threads: the same answers" in run(tmp_path / "serve_threads", model, "3", "10").stdout
    assert "nowhere" in run(tmp_path / "serve_threads", "nowhere", ok=False).stderr


def test_the_shared_library_shows_its_functions_alone(prefix: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm: binutils has it")
    lines = run(nm, "-D", "--defined-only", next(prefix.glob("lib*/libcosparse.so"))).stdout.splitlines()
    names = {line.split()[-1] for line in lines}
    assert len(names) == 24
    assert all(name.startswith("cosparse_") for name in names)


def test_pkg_config(prefix: Path, repository: Path, model: Path, tmp_path: Path) -> None:
    tool = shutil.which("pkg-config")
    if tool is None:
        pytest.skip("no pkg-config")
    moved = tmp_path / "elsewhere"
    shutil.copytree(prefix, moved, symlinks=True)
    folder = str(next(moved.glob("lib*/**/pkgconfig")))
    flags = run(tool, "--cflags", "--libs", "cosparse", PKG_CONFIG_PATH=folder).stdout.split()
    assert run(tool, "--modversion", "cosparse", PKG_CONFIG_PATH=folder).stdout.strip() == cosparse.__version__
    run(compiler("CC"), *C, repository / "examples" / "c" / "classify.c", *flags, "-o", tmp_path / "classify")
    run(tmp_path / "classify", model, LD_LIBRARY_PATH=str(next(moved.glob("lib*/libcosparse.so")).parent))


def test_find_package(prefix: Path, repository: Path, model: Path, tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    sources = repository / "examples" / "c"
    run(cmake, "-S", sources, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug")
    run(cmake, "--build", tmp_path)
    run(tmp_path / "classify", model)
    run(tmp_path / "serve_threads", model, "2", "3")


COUNTING = """
#define _GNU_SOURCE
#include <cosparse.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static volatile long counted, counting;
extern void* __libc_malloc(size_t);
extern void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { counted += counting; return __libc_malloc(n); }
void* aligned_alloc(size_t a, size_t n) { counted += counting; return __libc_memalign(a, n); }

int main(int count, char** arguments) {
  cosparse_options options = COSPARSE_OPTIONS;
  cosparse_engine* engine;
  cosparse_context* context;
  const cosparse_shape shape = {4, {3, 6, 9, 7}};
  static float x[3 * 6 * 9 * 7], y[9];
  const float* const in[] = {x};
  float* const out[] = {y};
  options.tune = 0, options.threads = 2;
  if (count != 2 || cosparse_load_file(arguments[1], &options, &engine) || cosparse_context_create(engine, &shape, 1, &context)) return 2;
  for (int i = 0; i < 20; ++i) {
    counting = 1;
    if (cosparse_context_run(context, in, out)) return 2;
    counting = 0;
  }
  printf("%ld ", counted);
  counting = 1;
  if (cosparse_context_create(engine, &shape, 1, &context)) return 2;
  counting = 0;
  printf("%ld\\n", counted);
  return 0;
}
"""


def test_a_run_in_a_context_allocates_nothing(prefix: Path, model: Path, tmp_path: Path) -> None:
    """Twenty runs; then one more context, which does allocate: the counting works."""
    (tmp_path / "count.c").write_text(COUNTING)
    run(compiler("CC"), "-O1", tmp_path / "count.c", *shared(prefix), "-o", tmp_path / "count")
    runs, context = map(int, run(tmp_path / "count", model).stdout.split())
    assert runs == 0
    assert context > 0
