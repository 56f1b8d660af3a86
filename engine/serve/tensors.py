"""What is asked of the tensors of a request, whichever protocol brought them.

Every input of the network once, by name; FP32; the example's sizes but for the batch, unless the server allows others (`--max-scale`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve.models import Model
from cosparse.engine.serve.refusal import Kind, Refused

DATATYPE = "FP32"


def invalid(about: str, expected: str, got: object, next_step: str = "") -> Refused:
    return Refused(Kind.INVALID, about, expected, str(got)[:200], next_step)


def public_shape(spec: ValueSpec, max_scale: float | None) -> list[int]:
    """The shape in the words of the protocol: -1 for what varies."""
    free = 2 if max_scale is not None and len(spec.shape) == 4 else len(spec.shape)
    return [-1 if size is None or axis >= free else size for axis, size in enumerate(spec.shape)]


def metadata(model: Model, versions: list[str], max_scale: float | None) -> dict[str, Any]:
    def tensors(specs: Sequence[ValueSpec]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": DATATYPE, "shape": public_shape(spec, max_scale)} for spec in specs]

    return {
        "name": model.name,
        "versions": versions,
        "platform": "cosparse",
        "inputs": tensors(model.inputs),
        "outputs": tensors(model.outputs),
        "properties": {"checksum": model.digest},
    }


def check_names(model: Model, names: Sequence[Any]) -> None:
    wanted = [spec.name for spec in model.inputs]
    if sorted(map(str, names)) != sorted(wanted):
        raise invalid(
            f"model '{model.name}'", f"the inputs {', '.join(wanted)}, each once", ", ".join(str(n)[:64] for n in names[:8]) or "none"
        )


def check(spec: ValueSpec, datatype: Any, shape: Any, max_scale: float | None) -> tuple[int, ...]:
    """The shape as a tuple; raises Refused where datatype or shape do not fit the input."""
    about = f"input '{spec.name}'"
    if datatype != DATATYPE:
        raise invalid(about, f"datatype {DATATYPE}", repr(datatype), "convert it to float32")
    if not isinstance(shape, list | tuple) or not all(type(size) is int and 0 < size < 1 << 31 for size in shape):
        raise invalid(about, "a shape of whole numbers above 0", shape)
    fits = len(shape) == len(spec.shape) and all(w is None or w == s for w, s in zip(spec.shape[:2], shape[:2], strict=True))
    if fits and len(shape) == 4:
        example = math.prod(size or 1 for size in spec.shape[2:])
        same = tuple(shape[2:]) == tuple(spec.shape[2:])
        fits = same or (max_scale is not None and shape[2] * shape[3] <= max_scale * example)
    if not fits:
        most = "" if max_scale is None else f", or other heights and widths of at most {max_scale:g} times its pixels"
        raise invalid(about, f"shape {public_shape(spec, None)}{most}", list(shape), "-1 stands for the batch")
    return tuple(shape)


def from_bytes(spec: ValueSpec, data: memoryview | bytes, shape: tuple[int, ...]) -> numpy.ndarray:
    """The array over the same memory, read-only."""
    wanted = 4 * math.prod(shape)
    if len(data) != wanted:
        raise invalid(f"input '{spec.name}'", f"{wanted} bytes for shape {list(shape)}", f"{len(data)} bytes")
    return numpy.frombuffer(data, numpy.dtype("<f4")).reshape(shape)


def from_numbers(spec: ValueSpec, data: Any, shape: tuple[int, ...]) -> numpy.ndarray:
    """From a flat or nested list."""
    about = f"input '{spec.name}'"
    wanted = math.prod(shape)
    if not isinstance(data, list):
        raise invalid(about, "data, a list of numbers", type(data).__name__)
    try:
        array = numpy.asarray(data)
    except (ValueError, RecursionError) as error:
        raise invalid(about, "data, a list of numbers, flat or nested evenly", error) from None
    if array.dtype.kind not in "fiu":
        raise invalid(about, "data, a list of numbers, flat or nested evenly", f"{array.dtype} values")
    if array.size != wanted or (array.ndim > 1 and array.shape != shape):
        raise invalid(about, f"{wanted} numbers for shape {list(shape)}", f"numbers of shape {list(array.shape)}")
    if array.dtype.kind == "f" and array.size and not bool(numpy.abs(array).max() <= 3.4028235e38):
        raise invalid(about, "numbers that float32 can hold", "larger ones")
    return array.astype(numpy.float32).reshape(shape)


def wanted_outputs(model: Model, names: Sequence[Any]) -> list[int]:
    """Positions of the outputs that are asked for; all where none is named."""
    known = [spec.name for spec in model.outputs]
    for name in names:
        if name not in known:
            raise invalid(f"output '{str(name)[:64]}'", f"one of {', '.join(known)}", "another name")
    return [known.index(name) for name in dict.fromkeys(names)] or list(range(len(known)))
