"""Time on the engine as a budget, by a table of what a network's layers cost there; and the table by masks.

    us(layer) = fixed_us + basis_us * (share of its input channels in use) + coefficient_us * (kept coefficients)

`python -m cosparse.bench.latency_table` measures that one. The table by widths (`width_latency`) is for filters that go as a whole. Tables
are JSON and the only thing that compression knows of the engine. They are read strictly (`latency_file`), and a table of another network,
block size or transform is none for this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosparse.compress.latency_file import MASKS, WIDTHS, Kind, Measured, load
from cosparse.compress.width_latency import WidthTable, read_widths, require_layers
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.count import Report

AGAIN = MASKS.again


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
class LatencyTable(Measured):
    """Times by mask, layer by layer."""

    layers: Mapping[str, LayerTime]

    @property
    def dense_us(self) -> float:
        """Time of the whole network, all layers dense."""
        return self.other_us + sum(layer.dense_us for layer in self.layers.values())

    def to_json(self) -> str:
        return MASKS.to_json(self, self.layers)


@dataclass(frozen=True)
class Latency:
    """A bound on the time of one image on the engine, by the table in the file `table`: `ms`, or `share` of the dense time to remove.

    The file is read at once, whichever kind of table it is: by masks for NNCS and `impose`, by widths for filters that are removed. Raises
    Error where there is no sound table in it, or not exactly one of `ms` and `share`.
    """

    table: str | Path
    ms: float | None = None
    share: float | None = None
    times: LatencyTable | WidthTable = field(init=False, repr=False)

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


def read_table(path: str | Path) -> LatencyTable | WidthTable:
    """The table in a file that `to_json` of either kind wrote; Error names the entry that is wrong."""
    document, kind = load(path)
    return _read_masks(document, str(path)) if kind is MASKS else read_widths(document, str(path))


def mask_times(latency: Latency) -> LatencyTable:
    """The table by masks behind a bound; Error where it is one by widths."""
    if not isinstance(latency.times, LatencyTable):
        raise _other(latency, MASKS, WIDTHS)
    return latency.times


def width_times(latency: Latency, report: Report) -> WidthTable:
    """The table by widths behind a bound; Error where it is one by masks, or not of the network that `report` counted."""
    table = by_widths(latency)
    require_layers(table, report.layers, str(latency.table))
    return table


def by_widths(latency: Latency) -> WidthTable:
    """The table by widths behind a bound, of whatever network; Error where it is one by masks."""
    if not isinstance(latency.times, WidthTable):
        raise _other(latency, WIDTHS, MASKS)
    return latency.times


def _other(latency: Latency, wanted: Kind, found: Kind) -> Error:
    return Error(str(latency.table), f"times by {wanted.by} ({wanted.format})", f"times by {found.by} ({found.format})", wanted.again)


def _read_masks(document: Any, about: str) -> LatencyTable:
    head, layers = MASKS.open(document, about)
    return LatencyTable(**head, layers={name: _layer(entry, f"{about}: layers: {name}") for name, entry in layers.items()})


def _layer(entry: Any, about: str) -> LayerTime:
    found = MASKS.entries(entry, about, {f.name for f in fields(LayerTime)})
    times = {name: MASKS.number(found[name], f"{about}: {name}") for name in ("dense_us", "fixed_us", "basis_us", "misfit")}
    for name in ("coefficient_us", "pixels"):  # a coefficient that costs nothing could not be taken away to save time
        times[name] = MASKS.number(found[name], f"{about}: {name}", positive=True)
    transform, shape = MASKS.word(found["transform"], f"{about}: transform"), MASKS.sizes(found["shape"], f"{about}: shape")
    return LayerTime(shape=shape, transform=transform, block=MASKS.whole(found["block"], f"{about}: block"), **times)
