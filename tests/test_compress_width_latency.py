"""The latency table by widths: interpolation against a plain one, never falling, read strictly, and a bound on either kind."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosparse.compress import Budget, Latency, count, impose
from cosparse.compress.latency import LatencyTable, mask_times, read_table, width_times
from cosparse.compress.width_latency import LayerWidths, WidthTable
from tests.compress_nets import Residual, seeded
from tests.test_compress_latency import table_of

EXAMPLE = torch.zeros(1, 1, 8, 8)

LAYER = LayerWidths((16, 16, 3, 3), 64.0, (4, 8, 16), (8, 16), ((1.0, 2.5), (2.0, 2.5), (4.0, 8.0)), 0.05)


def widths_of(model: torch.nn.Module) -> WidthTable:
    """A synthetic table of convolutions and linear layers: 1 ns a multiply-add and 1 us a layer, at halves and full widths."""
    layers = {}
    for layer in count(model, EXAMPLE).layers:
        filters, inputs = layer.shape[0], layer.shape[1]
        lines = tuple(sorted({max(1, inputs // 2), inputs})), tuple(sorted({filters // 2, filters}))
        one = 1e-3 * layer.flops_dense / (inputs * filters)
        us = tuple(tuple(1 + one * i * f for f in lines[1]) for i in lines[0])
        layers[layer.name] = LayerWidths(layer.shape, layer.pixels, *lines, us, 0.0)
    return WidthTable("toy", ((1, 1, 8, 8),), 1, "avx2", "float32", "some cpu", "0.1.0", 10.0, layers)


def written(table: WidthTable | LatencyTable, folder: Path) -> Path:
    path = folder / "W.json"
    path.write_text(table.to_json())
    return path


def plainly(layer: LayerWidths, inputs: float, filters: float) -> float:
    """Interpolated along the filters in every row, then along the inputs; numpy clamps at the ends."""
    rows = [np.interp(filters, layer.filters, row) for row in layer.us]
    return float(np.interp(inputs, layer.inputs, rows))


def test_interpolation_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        inputs, filters = rng.uniform(0, 20, 2)
        assert LAYER.at(inputs, filters) == pytest.approx(plainly(LAYER, inputs, filters), rel=1e-12)
    for i, inputs in enumerate(LAYER.inputs):
        for j, filters in enumerate(LAYER.filters):
            assert LAYER.at(inputs, filters) == LAYER.us[i][j]
    assert LAYER.at(1, 1) == 1.0
    assert LAYER.at(17, 99) == LAYER.dense_us == 8.0


def test_axis_with_one_entry_does_not_matter() -> None:
    layer = LayerWidths((8, 16, 1, 1), 1.0, (16,), (4, 8), ((1.0, 3.0),), 0.0)
    assert [layer.at(inputs, 6) for inputs in (1, 16, 17)] == [2.0, 2.0, 2.0]
    layer = LayerWidths((10, 64), 1.0, (64,), (10,), ((0.5,),), 0.0)
    assert layer.at(3, 7) == 0.5


@given(data=st.data())
def test_narrower_is_never_slower(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    steps = data.draw(st.lists(st.floats(0, 1e3), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    us = np.array(steps).reshape(shape).cumsum(0).cumsum(1)
    lines = [tuple(np.cumsum(data.draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))).tolist()) for n in shape]
    layer = LayerWidths((1, 1), 1.0, lines[0], lines[1], tuple(map(tuple, us.tolist())), 0.0)
    width = st.floats(0, 250)
    a, b, c, d = (data.draw(width) for _ in range(4))
    tolerance = 1e-12 * layer.dense_us
    assert layer.at(min(a, b), min(c, d)) <= layer.at(max(a, b), max(c, d)) + tolerance
    assert us[0, 0] - tolerance <= layer.at(a, c) <= us[-1, -1] + tolerance


def test_table_survives_its_file(tmp_path: Path) -> None:
    table = widths_of(seeded(Residual))
    assert read_table(written(table, tmp_path)) == table


def test_full_time_is_the_sum() -> None:
    report = count(seeded(Residual), EXAMPLE)
    assert widths_of(seeded(Residual)).dense_us == pytest.approx(10 + len(report.layers) + 1e-3 * report.flops_dense)


CHANGES: list[tuple[list[Any], Any, str]] = [
    (["version"], 2, "expected cosparse-width-latency version 1, got cosparse-width-latency version 2"),
    (
        ["surplus"],
        1,
        r"expected an object with .*, got 'surplus' missing or unknown; measure it with python -m cosparse\.bench\.width_table",
    ),
    (["threads"], 0, r"threads: expected a whole number from 1, got 0"),
    (["other_us"], -1, "other_us: expected a number from 0, got -1"),
    (["layers"], [], r"layers: expected at least one, got \[\]"),
    (["layers", "conv2"], 3, r"layers: conv2: expected an object with .*, got int"),
    (["layers", "conv2", "block"], 8, r"layers: conv2: expected an object with .*, got 'block' missing or unknown"),
    (["layers", "conv2", "shape"], [], r"layers: conv2: shape: expected a shape: a list of sizes, got \[\]"),
    (["layers", "conv2", "pixels"], 0, r"layers: conv2: pixels: expected a positive number, got 0"),
    (["layers", "conv2", "misfit"], None, r"layers: conv2: misfit: expected a number from 0, got None"),
    (["layers", "conv2", "inputs"], [], r"layers: conv2: inputs: expected a list of widths, got \[\]"),
    (["layers", "conv2", "inputs"], [8, 8], r"layers: conv2: inputs: expected ascending widths, got \[8, 8\]"),
    (["layers", "conv2", "filters"], [0, 8], r"layers: conv2: filters: expected a whole number from 1, got 0"),
    (["layers", "conv2", "filters"], [8.5, 16], r"layers: conv2: filters: expected a whole number from 1, got 8\.5"),
    (["layers", "conv2", "filters"], [16], r"layers: conv2: us: expected 2 rows of 1 times, as its inputs and filters have it, got \[\["),
    (["layers", "conv2", "us"], [[1.0, 2.0]], r"layers: conv2: us: expected 2 rows of 2 times, .*, got \[\[1\.0, 2\.0\]\]"),
    (["layers", "conv2", "us"], [1.0, 2.0], r"layers: conv2: us: expected 2 rows of 2 times, .*, got \[1\.0, 2\.0\]"),
    (["layers", "conv2", "us", 0, 0], float("inf"), r"layers: conv2: us: expected a number from 0, got inf"),
    (["layers", "conv2", "us", 0, 0], 1e6, r"layers: conv2: us\[0\]\[1\]: expected no less than at smaller widths, got "),
    (
        ["layers", "conv2", "us", 1, 0],
        0.0,
        r"layers: conv2: us\[1\]\[0\]: expected no less than at smaller widths, got 0\.0; measure it with",
    ),
]


@pytest.mark.parametrize(("where", "value", "message"), CHANGES, ids=[f"{'.'.join(map(str, w))}={v!r}"[:40] for w, v, _ in CHANGES])
def test_tables_are_read_strictly(where: list[Any], value: Any, message: str, tmp_path: Path) -> None:
    path = written(widths_of(seeded(Residual)), tmp_path)
    document = copy.deepcopy(json.loads(path.read_text()))
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        Latency(path, share=0.5)


def test_a_bound_takes_either_kind(tmp_path: Path) -> None:
    model = seeded(Residual)
    for table in (widths_of(model), table_of(model)):
        path = written(table, tmp_path)
        latency = Latency(path, share=0.25)
        assert latency.times == table
        assert latency.bound_us == pytest.approx(0.75 * table.dense_us)
        assert Latency(path, ms=0.5).bound_us == 500
        assert latency.settings() == {"share": 0.25, "table": "W.json", "dense_ms": table.dense_us / 1e3}


def test_masks_want_times_by_mask(tmp_path: Path) -> None:
    model = seeded(Residual)
    latency = Latency(written(widths_of(model), tmp_path), share=0.2)
    message = (
        r"W\.json: expected times by mask \(cosparse-latency\), got times by width \(cosparse-width-latency\); "
        r"measure it with python -m cosparse\.bench\.latency_table"
    )
    with pytest.raises(ValueError, match=message):
        impose(model, Budget(latency=latency), EXAMPLE)
    with pytest.raises(ValueError, match=message):
        mask_times(latency)


def test_widths_want_times_by_width(tmp_path: Path) -> None:
    model = seeded(Residual)
    latency = Latency(written(table_of(model), tmp_path), share=0.2)
    with pytest.raises(
        ValueError, match=r"expected times by width .*, got times by mask .*; measure it with python -m cosparse\.bench\.width"
    ):
        width_times(latency, count(model, EXAMPLE))


def test_table_of_another_network_is_refused(tmp_path: Path) -> None:
    model = seeded(Residual)
    table, report = widths_of(model), count(model, EXAMPLE)
    assert width_times(Latency(written(table, tmp_path), share=0.2), report) == table

    def refused(layers: dict[str, LayerWidths]) -> Any:
        latency = Latency(written(replace(table, layers=layers), tmp_path), share=0.2)
        return lambda: width_times(latency, report)

    layers = dict(table.layers)
    cases = [
        ({**layers, "more": layers["conv2"]}, "layer 'more': expected no such layer, got 16x16x3x3, 64 pixels"),
        ({n: x for n, x in layers.items() if n != "conv3"}, "layer 'conv3': expected 32x16x3x3, 16 pixels, got no such layer"),
        (
            {**layers, "conv2": replace(layers["conv2"], pixels=4.0)},
            "layer 'conv2': expected 16x16x3x3, 64 pixels, got 16x16x3x3, 4 pixels",
        ),
        ({**layers, "conv2": replace(layers["conv2"], shape=(8, 16, 3, 3))}, "expected 16x16x3x3, 64 pixels, got 8x16x3x3, 64 pixels"),
    ]
    model.unused = torch.nn.Linear(3, 3)
    assert width_times(Latency(written(table, tmp_path), share=0.2), count(model, EXAMPLE)) == table
    for changed, message in cases:
        with pytest.raises(ValueError, match=message):
            refused(changed)()
