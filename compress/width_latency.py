"""Time on the engine as a function of widths: the table that `python -m cosparse.bench.width_table` measured.

    us(layer) = its grid at (input width, filters), bilinear between the grid's lines;  us(network) = other_us + sum of all layers

Widths are channels (or features) as the layer's module has them. The table is for filters that go as a whole; what masks cost is in the
other kind (`latency`). Grids never fall along either axis: a narrower layer is never charged more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cosparse.compress.latency_file import WIDTHS, Measured
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.compress.count import LayerCount


@dataclass(frozen=True)
class LayerWidths:
    """One layer of the table. `us[i][j]`: microseconds with `inputs[i]` input channels and `filters[j]` filters.

    `inputs`, `filters`: ascending; the last is the full width, and an axis along which the layer never varies has that alone, as the inputs
    of a depthwise one. `shape` of the full weight, `pixels`: multiply-adds per weight and image, as `count` has them. `misfit`:
    largest relative error of the grid on what was measured; it is for readers and decides nothing.
    """

    shape: tuple[int, ...]
    pixels: float
    inputs: tuple[int, ...]
    filters: tuple[int, ...]
    us: tuple[tuple[float, ...], ...]
    misfit: float

    def at(self, inputs: float, filters: float) -> float:
        """Microseconds at these widths: bilinear inside the grid, the border's beyond it; monotone in both."""
        (low, high, down), (left, right, along) = _place(self.inputs, inputs), _place(self.filters, filters)
        above = self.us[low][left] + along * (self.us[low][right] - self.us[low][left])
        below = self.us[high][left] + along * (self.us[high][right] - self.us[high][left])
        return above + down * (below - above)

    @property
    def dense_us(self) -> float:
        """Time of the full layer."""
        return self.us[-1][-1]


def _place(lines: tuple[int, ...], width: float) -> tuple[int, int, float]:
    """(line before, line behind, share of the way from one to the other); both are the border's beyond it."""
    behind = bisect_right(lines, width)
    if behind == 0:
        return 0, 0, 0.0
    if behind == len(lines):
        return behind - 1, behind - 1, 0.0
    return behind - 1, behind, (width - lines[behind - 1]) / (lines[behind] - lines[behind - 1])


@dataclass(frozen=True)
class WidthTable(Measured):
    """Times by width, layer by layer; a layer's include the pools and other steps before it. `other_us`: what comes behind them all."""

    layers: Mapping[str, LayerWidths]

    @property
    def dense_us(self) -> float:
        """Time of the whole network at full width."""
        return self.other_us + sum(layer.dense_us for layer in self.layers.values())

    def to_json(self) -> str:
        return WIDTHS.to_json(self, self.layers)


def read_widths(document: Any, about: str) -> WidthTable:
    """The table in a document that `WidthTable.to_json` wrote; Error, with `about` for the file, names the entry that is wrong."""
    head, layers = WIDTHS.open(document, about)
    return WidthTable(**head, layers={name: _layer(entry, f"{about}: layers: {name}") for name, entry in layers.items()})


def require_layers(table: WidthTable, layers: Iterable[LayerCount], about: str) -> None:
    """Error unless the table, in the file `about`, has just the layers that run of a network, at their shapes and sizes."""
    wanted = {layer.name: (tuple(layer.shape), layer.pixels) for layer in layers if layer.calls}
    found = {name: (layer.shape, layer.pixels) for name, layer in table.layers.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise Error(
                f"{about}: layer {name!r}", _words(wanted.get(name)), _words(found.get(name)), f"{WIDTHS.again} for this network and size"
            )


def _words(layer: tuple[tuple[int, ...], float] | None) -> str:
    return "no such layer" if layer is None else f"{'x'.join(map(str, layer[0]))}, {layer[1]:g} pixels"


def _layer(entry: Any, about: str) -> LayerWidths:
    found = WIDTHS.entries(entry, about, {f.name for f in fields(LayerWidths)})
    inputs, filters = (_lines(found[axis], f"{about}: {axis}") for axis in ("inputs", "filters"))
    return LayerWidths(
        shape=WIDTHS.sizes(found["shape"], f"{about}: shape"),
        pixels=WIDTHS.number(found["pixels"], f"{about}: pixels", positive=True),
        inputs=inputs,
        filters=filters,
        us=_grid(found["us"], f"{about}: us", len(inputs), len(filters)),
        misfit=WIDTHS.number(found["misfit"], f"{about}: misfit"),
    )


def _lines(value: Any, about: str) -> tuple[int, ...]:
    lines = WIDTHS.sizes(value, about, "a list of widths")
    if any(a >= b for a, b in pairwise(lines)):
        raise Error(about, "ascending widths", repr(value), WIDTHS.again)
    return lines


def _grid(value: Any, about: str, rows: int, columns: int) -> tuple[tuple[float, ...], ...]:
    if not isinstance(value, list) or len(value) != rows or any(not isinstance(row, list) or len(row) != columns for row in value):
        raise Error(about, f"{rows} rows of {columns} times, as its inputs and filters have it", repr(value), WIDTHS.again)
    us = tuple(tuple(WIDTHS.number(time, about) for time in row) for row in value)
    falling = [(i, j) for i in range(rows) for j in range(columns) if (i and us[i][j] < us[i - 1][j]) or (j and us[i][j] < us[i][j - 1])]
    if falling:
        i, j = falling[0]
        raise Error(f"{about}[{i}][{j}]", "no less than at smaller widths", repr(us[i][j]), WIDTHS.again)
    return us
