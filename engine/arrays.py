"""Arrays in and out: numpy, torch or anything with DLPack, and the answer in the kind that was asked with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy

from cosparse.errors import Error, ShapeError

NEW = "numpy.empty(shape, numpy.float32)"


def to_numpy(value: Any, name: str) -> numpy.ndarray:
    """`value` as a C-contiguous, aligned float32 array; no copy where it already is one. Raises Error for other kinds and dtypes."""
    array = as_array(value, name)
    if array.dtype != numpy.float32:
        raise Error(f"input '{name}'", "dtype float32", str(array.dtype), f"convert it: {_as_float32(value)}")
    array = numpy.ascontiguousarray(array)
    return array if array.flags.aligned else array.copy()


def as_array(value: Any, name: str) -> numpy.ndarray:
    """`value` as an array of its own dtype, over the same memory. Raises Error for other kinds."""
    if isinstance(value, numpy.ndarray):
        return value
    if not hasattr(value, "__dlpack__"):
        raise Error(f"input '{name}'", "numpy, torch or an array with DLPack", type(value).__name__, "numpy.asarray(x, numpy.float32)")
    plain = value.detach() if getattr(value, "requires_grad", False) else value
    return _exchanged(plain, f"input '{name}'", f"convert it: {_as_float32(value)}")


def to_output(buffer: Any, name: str) -> numpy.ndarray:
    """The caller's memory as an array that the engine writes. Raises Error for what is no array, ShapeError where it needs a copy."""
    about = f"out for output '{name}'"
    if isinstance(buffer, numpy.ndarray):
        array = buffer
    elif not hasattr(buffer, "__dlpack__"):
        raise Error(about, "numpy, torch or an array with DLPack", type(buffer).__name__, NEW)
    elif getattr(buffer, "requires_grad", False):
        raise Error(about, "a tensor without gradients", "one that requires them", "pass out.detach()")
    else:
        array = _exchanged(buffer, about, NEW)
    if array.dtype != numpy.float32 or not array.flags.c_contiguous:
        raise ShapeError(about, "a contiguous float32 array", f"{array.dtype}, strides {array.strides}", NEW)
    if not array.flags.writeable:
        if isinstance(buffer, numpy.ndarray):
            raise ShapeError(about, "a writable array", "a read-only one", "pass a copy")
        array = numpy.asarray(buffer)  # DLPack hands out read-only views of some libraries' writable arrays
    return array


def _exchanged(value: Any, about: str, next_step: str) -> numpy.ndarray:
    """The memory of an array of another library; Error where it has none that numpy can see: another device, sparse, bfloat16."""
    try:
        device = int(getattr(value, "__dlpack_device__", lambda: (1, 0))()[0])
        if device == 1:
            return numpy.from_dlpack(value)
    except Exception as error:  # each library raises its own
        facts = [str(getattr(value, name)) for name in ("dtype", "layout", "device") if hasattr(value, name)]
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        got = f"{' '.join(facts) or type(value).__name__} ({reason})"
        raise Error(about, "a dense array in main memory, float32", got, next_step) from error
    raise Error(about, "an array in main memory", f"one on DLPack device type {device}", "copy it to the CPU first")


def _as_float32(value: Any) -> str:
    """The call that makes a dense float32 array of it."""
    if _library(value) != "torch":
        return "x.astype(numpy.float32)"
    if getattr(value, "is_meta", False):
        return "x has no values; give a tensor that has"
    return "x.to_dense().float()" if getattr(value, "is_sparse", False) else "x.float()"


def _library(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def back_to(kind: Any) -> Callable[[numpy.ndarray], Any]:
    """How to turn a numpy result into the kind of array that `kind` is."""
    if isinstance(kind, numpy.ndarray):
        return lambda array: array
    if _library(kind) == "torch":
        return sys.modules["torch"].from_numpy
    namespace = getattr(kind, "__array_namespace__", lambda: None)()
    if namespace is not None and hasattr(namespace, "from_dlpack"):
        return namespace.from_dlpack
    return lambda array: array
