"""libcosparse for tests: built from the archives that set-up left behind, installed into build/c, and called through ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest

OK, ARTIFACT, UNSUPPORTED, SHAPE, USAGE, MEMORY, INTERNAL = range(7)
WARNING = ctypes.CFUNCTYPE(None, c_char_p, c_void_p)
Floats = POINTER(c_float)


class Shape(ctypes.Structure):
    _fields_ = (("rank", c_int32), ("sizes", c_int64 * 4))


class View(ctypes.Structure):
    _fields_ = (("rank", c_int32), ("sizes", c_int64 * 8))


class LastError(ctypes.Structure):
    _fields_ = (("status", c_int32), *((name, c_char_p) for name in ("message", "about", "expected", "got", "next_step")))


class Options(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("abi", c_int32),
        ("threads", c_int32),
        ("contexts", c_int32),
        ("dtype", c_int32),
        ("tune", c_int32),
        ("isa", c_char_p),
        ("cores", POINTER(c_int32)),
        ("core_count", c_size_t),
        ("calibration", POINTER(Floats)),
        ("calibration_batch", c_size_t),
        ("warning", WARNING),
        ("user", c_void_p),
        ("max_memory", c_int64),
        ("winograd", c_int32),
        ("reserved", c_int32),
    )


class Value(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("shape", Shape))


class Info(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("name", c_char_p),
        ("isa", c_char_p),
        ("dtype", c_int32),
        ("threads", c_int32),
        ("contexts", c_int32),
        ("weight_bytes", c_int64),
        ("workspace_bytes", c_int64),
        ("json", c_char_p),
    )


class Step(ctypes.Structure):
    _fields_ = (
        *((name, c_char_p) for name in ("name", "op", "kernel", "why")),
        *((name, c_double) for name in ("median_us", "min_us", "density", "multiply_adds", "dense_multiply_adds")),
        ("weight_bytes", c_int64),
    )


def installed(repository: Path) -> Path:
    """The folder with include/ and lib/. Skips where set-up left no archives (an installed wheel)."""
    archives, build = repository / "build" / "archives", repository / "build" / "c"
    if not (archives / "libcosparse_capi.a").exists():
        pytest.skip("no archives in build/archives: make setup leaves them there")
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake: pip install cmake")
    configure = [cmake, "-S", str(repository), "-B", str(build), f"-DCOSPARSE_PREBUILT={archives}", "-DCMAKE_BUILD_TYPE=Release"]
    steps = [configure, [cmake, "--build", str(build)], [cmake, "--install", str(build), "--prefix", str(build / "prefix")]]
    build.mkdir(parents=True, exist_ok=True)
    with open(build / "lock", "w") as lock:  # of the processes that share out the tests, one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return build / "prefix"


class Library:
    """The functions of cosparse.h. Those that fail raise Failure."""

    def __init__(self, prefix: Path) -> None:
        self.native = ctypes.CDLL(str(next(prefix.glob("lib*/libcosparse.so"))))
        for name in ("input_count", "output_count", "element_count", "context_step_count"):
            getattr(self.native, f"cosparse_{name}").restype = c_size_t
        self.native.cosparse_last_error.restype = POINTER(LastError)
        self.native.cosparse_version.restype = c_char_p
        self.native.cosparse_options_default.restype = Options
        self.native.cosparse_context_output.restype = Shape
        self.native.cosparse_context_output_view.restype = View

    def __call__(self, name: str, *arguments: object) -> int:
        wide = (c_size_t(value) if isinstance(value, int) else value for value in arguments)  # ctypes would pass 32 bits
        return getattr(self.native, f"cosparse_{name}")(*wide)

    def error(self) -> LastError:
        return self.native.cosparse_last_error().contents

    def refuses(self, status: int, text: str, name: str, *arguments: object) -> None:
        """The call fails with this status, and its message has the text."""
        got = self(name, *arguments)
        message = self.error().message.decode()
        assert got == status, f"{name}: status {got}, {message}"
        assert self.error().status == status
        assert text in message, message

    def works(self, name: str, *arguments: object) -> None:
        assert self(name, *arguments) == OK, self.error().message.decode()

    def options(self, **values: object) -> Options:
        options = self.native.cosparse_options_default()
        for name, value in values.items():
            setattr(options, name, value)
        return options

    def load(self, path: Path, **values: object) -> c_void_p:
        engine = c_void_p()
        self.works("load_file", str(path).encode(), byref(self.options(**values)), byref(engine))
        return engine

    def context(self, engine: c_void_p, *shapes: tuple[int, ...]) -> c_void_p:
        context = c_void_p()
        self.works("context_create", engine, shapes_of(*shapes), len(shapes), byref(context))
        return context

    def run(self, engine: c_void_p, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = shapes_of(*(array.shape for array in arrays))
        count = self("output_count", engine)
        sizes = (Shape * count)()
        self.works("output_shapes", engine, shapes, len(arrays), sizes, count)
        outputs = [np.full(s.sizes[: s.rank], np.nan, np.float32) for s in sizes]
        room = (c_size_t * count)(*(output.size for output in outputs))
        self.works("run", engine, shapes, pointers(arrays), len(arrays), pointers(outputs), room, count)
        return outputs

    def run_in(self, context: c_void_p, arrays: Sequence[np.ndarray], count: int = 1) -> list[np.ndarray]:
        sizes = [self.native.cosparse_context_output(context, i) for i in range(count)]
        outputs = [np.full(s.sizes[: s.rank], np.nan, np.float32) for s in sizes]
        self.works("context_run", context, pointers(arrays), pointers(outputs))
        return outputs


def shapes_of(*shapes: tuple[int, ...]) -> ctypes.Array[Shape]:
    return (Shape * len(shapes))(*(Shape(len(s), (c_int64 * 4)(*s)) for s in shapes))


def pointers(arrays: Sequence[np.ndarray | None]) -> ctypes.Array:
    return (Floats * len(arrays))(*(None if array is None else array.ctypes.data_as(Floats) for array in arrays))
