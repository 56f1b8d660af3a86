"""What the kinds of latency table share: on what they were measured, and the strict reading of their JSON.

    {"format", "version", "network", "inputs", "threads", "isa", "dtype", "cpu", "cosparse", "other_us", "layers": {name: {...}}}

Whatever is missing, unknown or of the wrong kind is refused with an Error that names the entry and the tool that measures such a table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cosparse.errors import Error


@dataclass(frozen=True)
class Measured:
    """What was measured, of which network (name and input shapes) and on what; `other_us`: all steps that are none of the layers'."""

    network: str
    inputs: tuple[tuple[int, ...], ...]
    threads: int
    isa: str
    dtype: str
    cpu: str
    cosparse: str
    other_us: float


@dataclass(frozen=True)
class Kind:
    """A kind of table: of what its times are functions, its format, and the module of cosparse.bench that measures it."""

    by: str
    format: str
    version: int
    tool: str

    @property
    def again(self) -> str:
        """The next step of every error: how to measure such a table."""
        return f"measure it with python -m cosparse.bench.{self.tool}"

    def to_json(self, head: Measured, layers: Mapping[str, Any]) -> str:
        """The document of a table; `layers` holds dataclasses, of whose fields all are written."""
        top = {f.name: getattr(head, f.name) for f in fields(Measured)}
        inner = {name: {f.name: getattr(layer, f.name) for f in fields(layer)} for name, layer in layers.items()}
        return json.dumps({"format": self.format, "version": self.version, **top, "layers": inner}, indent=1)

    def open(self, document: Any, about: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the fields of `Measured`, checked; layer name -> its entry, yet to be read) of a document."""
        head = self.entries(document, about, {"format", "version", "layers", *(f.name for f in fields(Measured))})
        if (head["format"], head["version"]) != (self.format, self.version):
            raise Error(about, f"{self.format} version {self.version}", f"{head['format']} version {head['version']}", self.again)
        if not isinstance(head["layers"], dict) or not head["layers"]:
            raise Error(f"{about}: layers", "at least one", repr(head["layers"]), self.again)
        inputs = head["inputs"]
        if not isinstance(inputs, list) or not inputs:
            raise Error(f"{about}: inputs", "a list of shapes", repr(inputs), self.again)
        words = {name: self.word(head[name], f"{about}: {name}") for name in ("network", "isa", "dtype", "cpu", "cosparse")}
        numbers = {
            "inputs": tuple(self.sizes(shape, f"{about}: inputs") for shape in inputs),
            "threads": self.whole(head["threads"], f"{about}: threads"),
            "other_us": self.number(head["other_us"], f"{about}: other_us"),
        }
        return words | numbers, head["layers"]

    def entries(self, value: Any, about: str, names: set[str]) -> dict[str, Any]:
        """An object with exactly these entries."""
        if not isinstance(value, dict) or set(value) != names:
            got = (
                type(value).__name__
                if not isinstance(value, dict)
                else ", ".join(map(repr, sorted(set(value) ^ names))) + " missing or unknown"
            )
            raise Error(about, f"an object with {', '.join(sorted(names))}", got, self.again)
        return value

    def number(self, value: Any, about: str, positive: bool = False) -> float:
        """A finite number from 0 or, if `positive`, above it."""
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or not 0 <= value < math.inf or (positive and value == 0) or _too_large(value):
            raise Error(about, "a positive number" if positive else "a number from 0", repr(value), self.again)
        return float(value)

    def whole(self, value: Any, about: str) -> int:
        """A whole number from 1."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Error(about, "a whole number from 1", repr(value), self.again)
        return value

    def word(self, value: Any, about: str) -> str:
        """Text that is not empty."""
        if not isinstance(value, str) or not value:
            raise Error(about, "a word", repr(value), self.again)
        return value

    def sizes(self, value: Any, about: str, what: str = "a shape: a list of sizes") -> tuple[int, ...]:
        """Whole numbers from 1, one at least."""
        if not isinstance(value, list) or not value:
            raise Error(about, what, repr(value), self.again)
        return tuple(self.whole(size, about) for size in value)


MASKS = Kind("mask", "cosparse-latency", 1, "latency_table")
WIDTHS = Kind("width", "cosparse-width-latency", 1, "width_table")


def load(path: str | Path) -> tuple[Any, Kind]:
    """The document in the file, not yet read, and the kind of table that it says it is."""
    either = "measure one with " + " or ".join(f"python -m cosparse.bench.{kind.tool} (by {kind.by})" for kind in (MASKS, WIDTHS))
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Error(str(path), "a latency table", error.strerror or str(error), either) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise Error(str(path), "a latency table (JSON)", str(error), either) from error
    found = document.get("format") if isinstance(document, dict) else None
    for kind in (MASKS, WIDTHS):
        if found == kind.format:
            return document, kind
    got = f"format {found!r}" if isinstance(document, dict) else type(document).__name__
    raise Error(str(path), f"a latency table: format {MASKS.format} or {WIDTHS.format}", got, either)


def _too_large(value: int | float) -> bool:
    """Whether a whole number is beyond what a float holds."""
    try:
        float(value)
    except OverflowError:
        return True
    return False
