"""What is asked of the tensors of a request, whichever protocol brought them.

Every input of the network once, by name; FP32; the example's sizes but for the batch, unless the server allows others (`--max-scale`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy

from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve.models import Model
from cosparse.engine.serve.refusal import Kind, Refused

DATATYPE = "FP32"
MOST_AXES = 8  # of a shape whose sizes are looked at
AT_ONCE = 1 << 16  # numbers that are converted without a pause in which another thread may run
NUMBERS = {int, float}


def invalid(about: str, expected: str, got: str, next_step: str = "") -> Refused:
    return Refused(Kind.INVALID, about, expected, got[:200], next_step)


def shown(value: object) -> str:
    """A value from a request, for the text of an error: short and at once, however large it is."""
    if isinstance(value, str):
        return repr(value[:64])
    if isinstance(value, list | dict) and (len(value) > 8 or any(isinstance(item, list | dict | str) for item in value)):
        return f"{type(value).__name__} of {len(value)}"
    return str(value)


def public_shape(spec: ValueSpec, max_scale: float | None) -> list[int]:
    """The shape in the words of the protocol: -1 for what varies."""
    free = () if max_scale is None else spec.free
    return [-1 if size is None or axis in free else size for axis, size in enumerate(spec.shape)]


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
    if len(names) != len(wanted) or not all(isinstance(name, str) for name in names) or sorted(names) != sorted(wanted):
        got = ", ".join(name[:64] if isinstance(name, str) else f"a name that is {type(name).__name__}" for name in names[:8])
        raise invalid(f"model '{model.name}'", f"the inputs {', '.join(wanted)}, each once", got or "none")


def check(spec: ValueSpec, datatype: Any, shape: Any, max_scale: float | None) -> tuple[int, ...]:
    """The shape as a tuple; raises Refused where datatype or shape do not fit the input."""
    about = f"input '{spec.name}'"
    if datatype != DATATYPE:
        raise invalid(about, f"datatype {DATATYPE}", shown(datatype), "convert it to float32")
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(type(size) is int and 0 < size < 1 << 31 for size in shape):
        raise invalid(about, "a shape of whole numbers above 0", shown(shape))
    fits = len(shape) == len(spec.shape) and all(w is None or w == s for w, s in zip(spec.shape[:2], shape[:2], strict=True))
    if fits and len(shape) == 4:
        example = math.prod(size or 1 for size in spec.shape[2:])
        same = tuple(shape[2:]) == tuple(spec.shape[2:])
        fits = same or (max_scale is not None and shape[2] * shape[3] <= max_scale * example)
    if not fits:
        most = "" if max_scale is None else f", or other heights and widths of at most {max_scale:g} times its pixels"
        raise invalid(about, f"shape {public_shape(spec, None)}{most}", shown(shape), "-1 stands for the batch")
    return tuple(shape)


def check_bytes(spec: ValueSpec, size: int, shape: tuple[int, ...]) -> None:
    wanted = 4 * math.prod(shape)
    if size != wanted:
        raise invalid(f"input '{spec.name}'", f"{wanted} bytes for shape {list(shape)}", f"{size} bytes")


def from_bytes(spec: ValueSpec, data: memoryview | bytes, shape: tuple[int, ...]) -> numpy.ndarray:
    """The array over the same memory, read-only."""
    check_bytes(spec, len(data), shape)
    return numpy.frombuffer(data, numpy.dtype("<f4")).reshape(shape)


def from_numbers(spec: ValueSpec, data: Any, shape: tuple[int, ...]) -> numpy.ndarray:
    """From a list, flat or nested as the shape. Counts and types come first, so that the cost is that of the numbers that were sent."""
    about = f"input '{spec.name}'"
    wanted = math.prod(shape)
    if not isinstance(data, list):
        raise invalid(about, "data, a list of numbers", type(data).__name__)
    given = _unnested(about, data, shape) if data and isinstance(data[0], list) else data
    if len(given) != wanted:
        raise invalid(about, f"{wanted} numbers for shape {list(shape)}", f"numbers of shape [{len(given)}]")
    array = numpy.empty(wanted, numpy.float32)
    for start in range(0, wanted, AT_ONCE):
        array[start : start + AT_ONCE] = numbers(about, given[start : start + AT_ONCE])
    return array.reshape(shape)


def numbers(about: str, values: list[Any]) -> numpy.ndarray:
    """Values from JSON, at least one, in double precision. Raises Refused where one is no number, or none of float32."""
    if not NUMBERS.issuperset(map(type, values)):
        got = next(type(value).__name__ for value in values if type(value) not in NUMBERS)
        raise invalid(about, "data, a list of numbers, flat or nested evenly", f"{got} values")
    found = numpy.array(values, numpy.float64)
    if not bool(numpy.abs(found).max() <= 3.4028235e38):
        raise invalid(about, "numbers that float32 can hold", "larger ones")
    return found


def _unnested(about: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """What is in the innermost lists, in order. The lists of one level are counted before the next is looked at."""
    level = [data]
    for size in shape:
        for part in level:
            if not isinstance(part, list) or len(part) != size:
                got = f"{len(part)} of {size} in a list" if isinstance(part, list) else type(part).__name__
                raise invalid(about, f"data, a list of numbers, flat or nested evenly as {list(shape)}", got)
        level = list(chain.from_iterable(level))
    return level


def wanted_outputs(model: Model, names: Sequence[Any]) -> list[int]:
    """Positions of the outputs that are asked for; all where none is named."""
    known = [spec.name for spec in model.outputs]
    if len(names) > len(known):
        raise invalid("outputs", f"at most {len(known)}, each once", str(len(names)))
    for name in names:
        if name not in known:
            raise invalid(f"output {shown(name)}", f"one of {', '.join(known)}", "another name")
    return [known.index(name) for name in dict.fromkeys(names)] or list(range(len(known)))
