"""The body of an inference request and of its answer over HTTP: JSON, and the protocol's binary tensors behind it.

A binary request is the JSON of `Inference-Header-Content-Length` bytes, then the bytes of the inputs that state `binary_data_size`, in the
order of the JSON. The answer has the same form where binary outputs were asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy
import orjson

from cosparse.engine.serve import large_json, tensors
from cosparse.engine.serve.models import Model

HEADER = "inference-header-content-length"
LARGE = 256 << 10  # bytes of JSON above which reading it takes milliseconds
AT_ONCE = 8 << 10  # numbers of an answer that are made into text at once
BINARY_AT_ONCE = 1 << 20  # numbers of an answer that are copied at once


@dataclass(frozen=True)
class Request:
    """Inputs in the network's order; the outputs that are wanted, each with whether it is binary; `timeout` in seconds or None."""

    id: str
    arrays: tuple[numpy.ndarray, ...]
    outputs: tuple[tuple[int, bool], ...]
    timeout: float | None

    @property
    def binary(self) -> bool:
        """Whether all of the answer is."""
        return all(as_bytes for _, as_bytes in self.outputs)


def parse(body: bytes | memoryview, header_length: str | None, model: Model, max_scale: float | None) -> Request:
    """Raises Refused for anything that is not a sound request for this model."""
    length = _length(header_length, len(body))
    view = memoryview(body)
    try:
        message = orjson.loads(view[:length]) if length <= LARGE else large_json.loads(bytes(body), length)
    except orjson.JSONDecodeError as error:
        raise tensors.invalid("body", "JSON", str(error)) from None
    if not isinstance(message, dict):
        raise tensors.invalid("body", "a JSON object", type(message).__name__)
    entries = _objects(message, "inputs")
    tensors.check_names(model, [entry.get("name") for entry in entries])
    specs = {spec.name: spec for spec in model.inputs}
    found: dict[str, numpy.ndarray] = {}
    at = length
    for entry in entries:
        spec = specs[entry["name"]]
        shape = tensors.check(spec, entry.get("datatype"), entry.get("shape"), max_scale)
        size = _parameters(entry, f"input '{spec.name}'").get("binary_data_size")
        if size is None:
            data = entry.get("data")
            if isinstance(data, large_json.LongList):
                found[spec.name] = data.array(f"input '{spec.name}'", shape)
            else:
                found[spec.name] = tensors.from_numbers(spec, data, shape)
            continue
        if type(size) is not int or size < 0 or "data" in entry:
            raise tensors.invalid(f"input '{spec.name}'", "either data or a binary_data_size of 0 or more", tensors.shown(size))
        if at + size > len(body):
            raise tensors.invalid(
                f"input '{spec.name}'", f"{size} bytes of binary data", f"{len(body) - at} bytes", "the body is cut short"
            )
        found[spec.name] = tensors.from_bytes(spec, view[at : at + size], shape)
        at += size
    if at != len(body):
        raise tensors.invalid("body", f"{at} bytes", f"{len(body)} bytes", "state binary_data_size and Inference-Header-Content-Length")
    return Request(_id(message), tuple(found[spec.name] for spec in model.inputs), _outputs(message, model), _timeout(message))


def answer(model: Model, request: Request, outputs: tuple[numpy.ndarray, ...]) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow."""
    entries: list[dict[str, Any]] = []
    binary: list[memoryview] = []
    for place, as_bytes in request.outputs:
        array = outputs[place]
        entry: dict[str, Any] = {"name": model.outputs[place].name, "datatype": tensors.DATATYPE, "shape": array.shape}
        if as_bytes:
            data = numpy.ascontiguousarray(array, "<f4").reshape(-1).data.cast("B")
            entry["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            entry["data"] = _numbers(numpy.ascontiguousarray(array).ravel())
        entries.append(entry)
    message: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
        "parameters": {"checksum": model.digest},
        "outputs": entries,
    }
    if request.id:
        message["id"] = request.id
    text = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((text, *binary)), len(text)) if binary else (text, None)


def long(request: Request, outputs: tuple[numpy.ndarray, ...]) -> bool:
    """Whether `answer` takes longer than the event loop should be held."""
    sizes = {True: 0, False: 0}
    for place, as_bytes in request.outputs:
        sizes[as_bytes] += outputs[place].size
    return sizes[False] > AT_ONCE or sizes[True] > BINARY_AT_ONCE


def _numbers(array: numpy.ndarray) -> Any:
    """For orjson: a long array is made into text in pieces, between which other threads run."""
    if array.size <= AT_ONCE:
        return array
    texts = []
    for start in range(0, array.size, AT_ONCE):
        texts.append(orjson.dumps(array[start : start + AT_ONCE], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        time.sleep(large_json.PAUSE)
    return orjson.Fragment(b"[%b]" % b",".join(texts))


def large(body: bytes | memoryview, header_length: str | None) -> bool:
    """Whether `parse` takes longer than the event loop should be held: large JSON, whatever binary tensors follow."""
    if len(body) <= LARGE:
        return False
    return header_length is None or not _number(header_length) or int(header_length) > LARGE


def _length(stated: str | None, size: int) -> int:
    if stated is None:
        return size
    if not _number(stated) or int(stated) > size:
        raise tensors.invalid("header Inference-Header-Content-Length", f"a number of at most {size}, the bytes of the body", stated[:32])
    return int(stated)


def _number(stated: str) -> bool:
    """Whether it is one that `int` reads, and at once: of other alphabets' digits it does not read all."""
    return stated.isascii() and stated.isdigit() and len(stated) <= 12


def _objects(message: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = message.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise tensors.invalid(key, "a list of objects", type(entries).__name__)
    return entries


def _parameters(entry: dict[str, Any], about: str) -> dict[str, Any]:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise tensors.invalid(f"{about}: parameters", "an object", type(found).__name__)
    if "shared_memory_region" in found:
        raise tensors.invalid(about, "data in the request", "shared memory", "send the tensor's bytes")
    return found


def _outputs(message: dict[str, Any], model: Model) -> tuple[tuple[int, bool], ...]:
    usual = _parameters(message, "request").get("binary_data_output") is True
    entries = _objects(message, "outputs")
    if not entries:
        return tuple((place, usual) for place in range(len(model.outputs)))
    binary: dict[int, bool] = {}
    names = [entry.get("name") for entry in entries]
    places = tensors.wanted_outputs(model, names)
    for place in places:
        binary[place] = usual
    for entry in entries:
        stated = _parameters(entry, f"output '{entry['name']}'")
        if "classification" in stated:
            raise tensors.invalid(f"output '{entry['name']}'", "the whole tensor", "classification", "take the largest values yourself")
        binary[tensors.wanted_outputs(model, [entry["name"]])[0]] = bool(stated.get("binary_data", usual))
    return tuple((place, binary[place]) for place in places)


def _id(message: dict[str, Any]) -> str:
    found = message.get("id") or ""
    if not isinstance(found, str) or len(found) > 256:
        raise tensors.invalid("id", "a text of at most 256 characters", type(found).__name__)
    return found


def _timeout(message: dict[str, Any]) -> float | None:
    """Stated in microseconds, as Triton has it."""
    stated = _parameters(message, "request").get("timeout")
    if stated is None or stated == 0:
        return None
    if type(stated) is not int or stated < 0:
        raise tensors.invalid("parameter timeout", "microseconds, a whole number", tensors.shown(stated))
    return stated / 1e6
