"""The claim about `expand`: its bound, its bars, and what it looks at, on a network that takes no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_net import small_net

from cosparse.bench.claims import expand_bound
from cosparse.bench.dense import density
from cosparse.engine import artifact
from cosparse.engine.graph import Graph
from cosparse.kernels.conv import unpack

NAMES = {"conv1": "layer4.0.conv1", "conv2": "layer4.1.conv1", "linear": "fc"}


def network() -> Graph:
    """small_net with two convolutions of one kind in a last stage, and a classifier."""
    graph = small_net()
    nodes = [
        replace(node, name=NAMES.get(node.name, node.name), inputs=tuple(NAMES.get(i, i) for i in node.inputs)) for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes), outputs=("fc",))


def test_a_thinned_classifier_keeps_some_blocks_as_they_were() -> None:
    node = network().node("fc")
    thinned = expand_bound.thin(node, 0.5)
    before, after = unpack(node).reshape(10, -1), unpack(thinned).reshape(10, -1)
    kept = after != 0
    assert np.array_equal(after[kept], before[kept])
    assert 0.2 < kept.mean() < 0.8
    assert density(thinned) < 1


def test_each_kind_of_the_last_stage_is_measured_once(tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", network())
    found = expand_bound.measure(tmp_path / "net.cosparse", threads=1, repeat=3)
    rows = {row["name"]: row for row in found["layers"]}
    assert set(rows) == {"layer4.0.conv1", "fc"}
    conv = rows["layer4.0.conv1"]
    assert conv["dense_flops"] == 16 * 16 * 9 * 8 * 8
    assert conv["dense_bytes"] == 16 * 16 * 9 * 4
    for row in rows.values():
        assert row["best_us"] == max(row["bytes_us"], min(row["hot_us"], row["peak_us"]))
        assert row["peak_us"] == pytest.approx(2e-3 * row["dense_flops"] / found["peak_gflops"])
        assert 0 < row["peak_us"] <= 1.001 * row["hot_us"]
    assert len(expand_bound.bars(found, 0.3)) == 2


def test_time_is_compared_where_the_product_rules_and_bytes_where_they_do() -> None:
    row = {"name": "a", "us": 90.0, "dense_us": 300.0, "hot_us": 120.0, "peak_us": 100.0, "bytes_us": 20.0, "best_us": 100.0}
    row |= {"bytes": 36, "stored_bytes": 34}
    byte_bound = row | {"name": "b", "bytes_us": 110.0, "best_us": 110.0}
    found = {"layers": [row, byte_bound, row | {"us": 101.0}, byte_bound | {"bytes": 68}]}
    made = expand_bound.bars(found, 0.2)
    assert [bar.measured for bar in made] == pytest.approx([0.9, 36 / 34, 1.01, 2.0])
    assert [bar.passed for bar in made] == [True, True, False, False]
    assert "90 us to 100 (product at peak 100, hot 120, bytes 20); dense in the network 300" in made[0].note
