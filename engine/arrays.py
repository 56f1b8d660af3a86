"""Arrays in and out: numpy, torch or anything with DLPack, and the answer in the kind that was asked with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy

from cosparse.errors import Error, ShapeError


def to_numpy(value: Any, name: str) -> numpy.ndarray:
    """`value` as a C-contiguous float32 array; no copy where it already is one. Raises Error for other kinds and dtypes."""
    array = as_array(value, name)
    if array.dtype != numpy.float32:
        raise Error(f"input '{name}'", "dtype float32", str(array.dtype), "convert it: x.astype(numpy.float32)")
    return numpy.ascontiguousarray(array)


def as_array(value: Any, name: str) -> numpy.ndarray:
    """`value` as an array of its own dtype, over the same memory. Raises Error for other kinds."""
    if isinstance(value, numpy.ndarray):
        array = value
    elif hasattr(value, "__dlpack__"):
        device = getattr(value, "__dlpack_device__", lambda: (1, 0))()
        if device[0] != 1:
            raise Error(
                f"input '{name}'", "an array in main memory", f"one on DLPack device type {int(device[0])}", "copy it to the CPU first"
            )
        if getattr(value, "requires_grad", False):
            value = value.detach()
        array = numpy.from_dlpack(value)
    else:
        raise Error(f"input '{name}'", "numpy, torch or an array with DLPack", type(value).__name__, "numpy.asarray(x, numpy.float32)")
    return array


def to_output(buffer: Any, name: str) -> numpy.ndarray:
    """The caller's memory as an array that the engine writes. Raises ShapeError where it cannot be written without a copy."""
    array = buffer if isinstance(buffer, numpy.ndarray) else numpy.from_dlpack(buffer)
    if array.dtype != numpy.float32 or not array.flags.c_contiguous:
        raise ShapeError(
            f"out for output '{name}'",
            "a contiguous float32 array",
            f"{array.dtype}, strides {array.strides}",
            "numpy.empty(shape, numpy.float32)",
        )
    if not array.flags.writeable:
        if isinstance(buffer, numpy.ndarray):
            raise ShapeError(f"out for output '{name}'", "a writable array", "a read-only one", "pass a copy")
        array = numpy.asarray(buffer)  # DLPack hands out read-only views of some libraries' writable arrays
    return array


def back_to(kind: Any) -> Callable[[numpy.ndarray], Any]:
    """How to turn a numpy result into the kind of array that `kind` is."""
    if isinstance(kind, numpy.ndarray):
        return lambda array: array
    root = type(kind).__module__.split(".")[0]
    if root == "torch":
        return sys.modules["torch"].from_numpy
    namespace = getattr(kind, "__array_namespace__", lambda: None)()
    if namespace is not None and hasattr(namespace, "from_dlpack"):
        return namespace.from_dlpack
    return lambda array: array
