"""Time on the engine as a budget: what one layer costs there, read from a table that `python -m cosparse.bench.latency_table` measured.

    us(layer) = fixed_us + basis_us * (share of its input channels in use) + coefficient_us * (kept coefficients)

The table is JSON and the only thing that compression knows of the engine. It is read strictly: whatever is missing, unknown or of the wrong
kind is refused, and a table of another network, block size or transform is none for this one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cosparse.errors import Error

FORMAT, VERSION = "cosparse-latency", 1
AGAIN = "measure it with python -m cosparse.bench.latency_table"


@dataclass(frozen=True)
class LayerTime:
    """One layer of the table. Times in microseconds: `dense_us` as a dense layer, the others as in this file's formula.

    `shape` of the weight, `pixels`: multiply-adds per weight and image, as `count` has them. `misfit`: largest relative error of the
    formula on what was measured; it is for readers and decides nothing.
    """

    shape: tuple[int, ...]
    pixels: float
    transform: str
    block: int
    dense_us: float
    fixed_us: float
    basis_us: float
    coefficient_us: float
    misfit: float


@dataclass(frozen=True)
class LatencyTable:
    """What was measured, of which network (name and input shapes) and on what; `other_us`: all steps that are none of `layers`."""

    network: str
    inputs: tuple[tuple[int, ...], ...]
    threads: int
    isa: str
    dtype: str
    cpu: str
    cosparse: str
    other_us: float
    layers: Mapping[str, LayerTime]

    @property
    def dense_us(self) -> float:
        """Time of the whole network, all layers dense."""
        return self.other_us + sum(layer.dense_us for layer in self.layers.values())

    def to_json(self) -> str:
        layers = {name: {f.name: getattr(layer, f.name) for f in fields(LayerTime)} for name, layer in self.layers.items()}
        head = {f.name: getattr(self, f.name) for f in fields(LatencyTable) if f.name != "layers"}
        return json.dumps({"format": FORMAT, "version": VERSION, **head, "layers": layers}, indent=1)


@dataclass(frozen=True)
class Latency:
    """A bound on the time of one image on the engine, by the table in the file `table`: `ms`, or `share` of the dense time to remove.

    The file is read at once. Raises Error where there is no sound table in it, or not exactly one of `ms` and `share`.
    """

    table: str | Path
    ms: float | None = None
    share: float | None = None
    times: LatencyTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.ms is None) == (self.share is None):
            raise Error(
                "Latency", "one of ms and share", "none" if self.ms is None else "both", "Latency(table, share=0.5) halves the time"
            )
        if self.ms is not None and not 0 < self.ms < math.inf:
            raise Error("Latency.ms", "a positive number of milliseconds", repr(self.ms))
        if self.share is not None and not 0 <= self.share < 1:
            raise Error("Latency.share", "a share in [0, 1)", repr(self.share), "0.5 halves the time")
        object.__setattr__(self, "times", read_table(self.table))

    @property
    def bound_us(self) -> float:
        """The most that the whole network may take, in microseconds."""
        return self.ms * 1e3 if self.ms is not None else (1 - (self.share or 0.0)) * self.times.dense_us

    def settings(self) -> dict[str, Any]:
        asked = {"ms": self.ms} if self.ms is not None else {"share": self.share}
        return {**asked, "table": Path(self.table).name, "dense_ms": self.times.dense_us / 1e3}


def read_table(path: str | Path) -> LatencyTable:
    """The table in a file that `LatencyTable.to_json` wrote; Error names the entry that is wrong."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Error(str(path), "a latency table", error.strerror or str(error), AGAIN) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise Error(str(path), "a latency table (JSON)", str(error), AGAIN) from error
    head = _entries(document, str(path), {"format", "version", *(f.name for f in fields(LatencyTable))})
    if (head["format"], head["version"]) != (FORMAT, VERSION):
        raise Error(str(path), f"{FORMAT} version {VERSION}", f"{head['format']} version {head['version']}", AGAIN)
    if not isinstance(head["layers"], dict) or not head["layers"]:
        raise Error(f"{path}: layers", "at least one", repr(head["layers"]), AGAIN)
    inputs = head["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise Error(f"{path}: inputs", "a list of shapes", repr(inputs), AGAIN)
    words = {name: _word(head[name], f"{path}: {name}") for name in ("network", "isa", "dtype", "cpu", "cosparse")}
    return LatencyTable(
        inputs=tuple(_shape(shape, f"{path}: inputs") for shape in inputs),
        threads=_whole(head["threads"], f"{path}: threads"),
        other_us=_number(head["other_us"], f"{path}: other_us"),
        layers={name: _layer(entry, f"{path}: layers: {name}") for name, entry in head["layers"].items()},
        **words,
    )


def _layer(entry: Any, about: str) -> LayerTime:
    found = _entries(entry, about, {f.name for f in fields(LayerTime)})
    times = {name: _number(found[name], f"{about}: {name}") for name in ("dense_us", "fixed_us", "basis_us", "misfit")}
    for name in ("coefficient_us", "pixels"):  # a coefficient that costs nothing could not be taken away to save time
        times[name] = _number(found[name], f"{about}: {name}", positive=True)
    transform, shape = _word(found["transform"], f"{about}: transform"), _shape(found["shape"], f"{about}: shape")
    return LayerTime(shape=shape, transform=transform, block=_whole(found["block"], f"{about}: block"), **times)


def _entries(value: Any, about: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        got = (
            type(value).__name__
            if not isinstance(value, dict)
            else ", ".join(map(repr, sorted(set(value) ^ names))) + " missing or unknown"
        )
        raise Error(about, f"an object with {', '.join(sorted(names))}", got, AGAIN)
    return value


def _number(value: Any, about: str, positive: bool = False) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not plain or value < 0 or (positive and value == 0):
        raise Error(about, "a positive number" if positive else "a number from 0", repr(value), AGAIN)
    return float(value)


def _whole(value: Any, about: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Error(about, "a whole number from 1", repr(value), AGAIN)
    return value


def _word(value: Any, about: str) -> str:
    if not isinstance(value, str) or not value:
        raise Error(about, "a word", repr(value), AGAIN)
    return value


def _shape(value: Any, about: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise Error(about, "a shape: a list of sizes", repr(value), AGAIN)
    return tuple(_whole(size, about) for size in value)
