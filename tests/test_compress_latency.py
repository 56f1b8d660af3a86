"""Time as a budget: the optimum against every subset, tables read strictly, layers that do not pay left dense."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cosparse.compress import Budget, Latency, count, impose
from cosparse.compress.account import account, candidates
from cosparse.compress.impose import thresholds
from cosparse.compress.latency import LatencyTable, LayerTime, read_table
from cosparse.compress.layers import choose
from cosparse.compress.select import Candidates, select
from tests.compress_nets import Residual, seeded

EXAMPLE = torch.zeros(1, 1, 8, 8)


def table_of(model: nn.Module, slope: dict[str, float] | None = None, other_us: float = 10.0, block: int = 8) -> LatencyTable:
    """A synthetic table: a dense coefficient takes 1 ns a pixel, a kept one 1.5 ns or what `slope` says, a channel's basis step 10."""
    layers = {}
    for choice in choose(model, count(model, EXAMPLE), block=block):
        if choice.transform is None:
            continue
        pixels, size = choice.count.pixels, choice.module.weight.numel()
        dense, one = size * pixels * 1e-3, (slope or {}).get(choice.name, 1.5) * pixels * 1e-3
        basis = 0.01 * pixels * choice.module.weight.shape[1]
        layers[choice.name] = LayerTime(choice.count.shape, pixels, str(choice.transform), choice.block, dense, 2.0, basis, one, 0.01)
    return LatencyTable("toy", ((1, 1, 8, 8),), 1, "avx2", "float32", "some cpu", "0.1.0", other_us, layers)


def written(table: LatencyTable, folder: Path) -> Path:
    path = folder / "T.json"
    path.write_text(table.to_json())
    return path


def predicted_us(model: nn.Module, table: LatencyTable) -> float:
    """The table's time of a masked model, counted the long way."""
    total = table.other_us
    for layer in count(model, EXAMPLE).layers:
        time = table.layers.get(layer.name)
        if time is None:
            continue
        mask = dict(model.named_modules())[layer.name].cosparse
        if isinstance(mask, str):
            total += time.dense_us
        else:
            share = mask.channels_used() / layer.shape[1]
            total += time.fixed_us + time.basis_us * share + time.coefficient_us * mask.kept()
    return total


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bounds", [(np.inf, np.inf, 0.4), (0.5, np.inf, 0.4), (np.inf, 0.45, 0.4), (0.6, 0.5, 0.45)])
def test_no_subset_of_that_cost_holds_more_energy(seed: int, bounds: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    sizes = (np.array([2.0, 2.0]), np.array([2.0, 1.0]), np.array([2.0]))
    layers = [
        Candidates(f"{i}", rng.exponential(size=(len(size), 2)), size, pixels, 0.0, 1, us)
        for i, (size, pixels, us) in enumerate(zip(sizes, (16.0, 4.0, 1.0), (0.3, 0.9, 0.2), strict=True))
    ]
    prices = [np.array([1.0, one.pixels, one.us]) for one in layers]
    total = sum(p * one.size.sum() * 2 for p, one in zip(prices, layers, strict=True))
    limit = [share * whole if np.isfinite(share) else np.inf for share, whole in zip(bounds, total, strict=True)]
    chosen = select(layers, *limit, floor=0.0, fill=False)
    got = np.array([chosen.params, chosen.flops, chosen.us])
    assert (got <= np.array(limit) * (1 + 1e-12)).all()

    energy = np.concatenate([one.energy.ravel() for one in layers])
    costs = np.concatenate([np.outer(np.repeat(one.size, 2), p) for one, p in zip(layers, prices, strict=True)])
    sets = np.array(list(product([0.0, 1.0], repeat=energy.size)))
    bound = sets @ costs <= np.where(np.isfinite(limit), got * (1 + 1e-12), np.inf)
    best = float((sets @ energy)[bound.all(1)].max())
    kept = sum(float((one.energy * keep).sum()) for one, keep in zip(layers, chosen.keep, strict=True))
    assert kept == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(
    "others", [{}, {"flops": 0.5}, {"params": 0.6}, {"flops": 0.5, "params": 0.6}, {"flops": 0.1, "params": 0.1}], ids=str
)
@pytest.mark.parametrize("asked", [{"share": 0.5}, {"ms": 0.11}], ids=str)
def test_all_bounds_are_met_and_one_is_used_up(others: dict[str, float], asked: dict[str, float], tmp_path: Path) -> None:
    model = seeded(Residual)
    table = table_of(model)
    budget = Budget(latency=Latency(written(table, tmp_path), **asked), **others)
    imposed = impose(model, budget, EXAMPLE)
    report, us = count(imposed, EXAMPLE), predicted_us(imposed, table)
    limit = asked["ms"] * 1e3 if "ms" in asked else 0.5 * table.dense_us
    assert us <= limit * (1 + 1e-12)
    left = [1 - us / limit] + [
        got - others[n] for n, got in (("flops", report.flops_reduction), ("params", report.params_reduction)) if n in others
    ]
    assert min(left) >= -1e-12
    assert min(left) < 0.02


def test_time_decides_where_blocks_go(tmp_path: Path) -> None:
    """A layer whose coefficients take twice as long loses more of them."""
    model = seeded(Residual)
    with torch.no_grad():
        model.conv2.weight *= 2  # as much energy a multiply-add as in conv3
    ratios = []
    for slope in (1.5, 3.0):
        slow = Latency(written(table_of(model, {"conv2": slope, "conv3": 1.5}), tmp_path), share=0.4)
        density = {layer.name: layer.density for layer in count(impose(model, Budget(latency=slow), EXAMPLE), EXAMPLE).layers}
        ratios.append(density["conv2"] / density["conv3"])
    assert ratios[1] < 0.6 * ratios[0]


def test_layer_that_is_no_faster_sparse_is_left_dense(tmp_path: Path) -> None:
    model = seeded(Residual)
    table = table_of(model)
    table = replace(table, layers={**table.layers, "conv2": replace(table.layers["conv2"], fixed_us=table.layers["conv2"].dense_us)})
    budget = Budget(latency=Latency(written(table, tmp_path), share=0.1))
    imposed = impose(model, budget, EXAMPLE)
    form = {layer.name: layer.form for layer in count(imposed, EXAMPLE).layers}
    assert form["conv2"].startswith("dense: sparse it would take at least ")
    cuts = thresholds(choose(model, count(model, EXAMPLE)), count(model, EXAMPLE), budget)
    assert not cuts["conv2"].any()
    assert cuts["conv3"].all()
    assert form["conv3"] == "dct 8x1"
    assert predicted_us(imposed, table) <= 0.9 * table.dense_us


def test_layer_that_density_makes_slower_is_left_dense(tmp_path: Path) -> None:
    """Each coefficient takes three times its dense time, and conv2 holds nearly all the energy: it would be kept, and slow."""
    model = seeded(Residual)
    with torch.no_grad():
        model.conv2.weight *= 100
    table = table_of(model, {"conv2": 3.0, "conv3": 0.5})
    imposed = impose(model, Budget(latency=Latency(written(table, tmp_path), share=0.05)), EXAMPLE)
    form = {layer.name: layer.form for layer in count(imposed, EXAMPLE).layers}
    assert re.fullmatch(r"dense: sparse it would take \d+\.\d us, dense \d+\.\d", form["conv2"])
    assert predicted_us(imposed, table) <= 0.95 * table.dense_us


def test_layers_without_masks_are_charged(tmp_path: Path) -> None:
    """conv2 dense by choice: its dense time stays in the account, and the rest of the bound is what conv3 gets."""
    model = seeded(Residual)
    table = table_of(model)
    budget = Budget(latency=Latency(written(table, tmp_path), share=0.1))
    report = count(model, EXAMPLE)
    layers, _ = candidates(choose(model, report, overrides={"conv2": "dense"}), budget)
    books = account(report, layers, budget)
    assert [layer.name for layer in layers] == ["conv3"]
    assert books.fixed[2] == pytest.approx(table.other_us + table.layers["conv2"].dense_us + 2.0)
    assert books.fixed[2] + books.bounds[2] == pytest.approx(0.9 * table.dense_us)


def test_unreachable_time_says_what_is_reachable(tmp_path: Path) -> None:
    model = seeded(Residual)
    latency = Latency(written(table_of(model), tmp_path), ms=0.001)
    with pytest.raises(
        ValueError, match=r"budget: expected at most flops .*, latency 0\.\d+ ms \(with 2 layers masked, 2% of each kept\), got"
    ):
        impose(model, Budget(latency=latency), EXAMPLE)


def test_table_of_another_network_is_refused(tmp_path: Path) -> None:
    model = seeded(Residual)
    table = table_of(model)
    path = written(table, tmp_path)
    with pytest.raises(
        ValueError, match=r"T\.json: layer 'conv2': expected 16x16x3x3, 64 pixels, dct 4x1, got 16x16x3x3, 64 pixels, dct 8x1"
    ):
        impose(model, Budget(latency=Latency(path, share=0.5)), EXAMPLE, block=4)
    path = written(replace(table, layers={"conv2": table.layers["conv2"]}), tmp_path)
    with pytest.raises(ValueError, match=r"layer 'conv3': expected .*, got no such layer; measure it with python -m"):
        impose(model, Budget(latency=Latency(path, share=0.5)), EXAMPLE)


def test_table_survives_its_file(tmp_path: Path) -> None:
    table = table_of(seeded(Residual))
    assert read_table(written(table, tmp_path)) == table


CHANGES: list[tuple[list[str], Any, str]] = [
    (
        ["format"],
        "other",
        "expected a latency table: format cosparse-latency or cosparse-width-latency, got format 'other'; measure one with",
    ),
    (["version"], 2, "expected cosparse-latency version 1, got cosparse-latency version 2"),
    (["surplus"], 1, r"expected an object with .*, got 'surplus' missing or unknown"),
    (["threads"], True, r"threads: expected a whole number from 1, got True"),
    (["isa"], "", "isa: expected a word, got ''"),
    (["other_us"], float("nan"), "other_us: expected a number from 0, got nan"),
    (["other_us"], 10**400, "other_us: expected a number from 0, got 1000"),
    (["inputs"], [], r"inputs: expected a list of shapes, got \[\]"),
    (["inputs"], [3], r"inputs: expected a shape: a list of sizes, got 3"),
    (["layers"], {}, r"layers: expected at least one, got \{\}"),
    (["layers", "conv2"], [], r"layers: conv2: expected an object with .*, got list"),
    (["layers", "conv2", "shape"], [16, -1], r"layers: conv2: shape: expected a whole number from 1, got -1"),
    (["layers", "conv2", "coefficient_us"], 0, r"layers: conv2: coefficient_us: expected a positive number, got 0"),
    (["layers", "conv2", "fixed_us"], "1", r"layers: conv2: fixed_us: expected a number from 0, got '1'"),
    (["layers", "conv2", "basis_us"], -1.0, r"layers: conv2: basis_us: expected a number from 0, got -1\.0"),
]


@pytest.mark.parametrize(("where", "value", "message"), CHANGES, ids=[f"{'.'.join(w)}={v!r}"[:40] for w, v, _ in CHANGES])
def test_tables_are_read_strictly(where: list[str], value: Any, message: str, tmp_path: Path) -> None:
    path = written(table_of(seeded(Residual)), tmp_path)
    document = copy.deepcopy(json.loads(path.read_text()))
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        Latency(path, share=0.5)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: expected a latency table, got No such file"):
        Latency(tmp_path / "none.json", share=0.5)
    for content in (b"\xff{", b"{", b"[" * 100_000):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.json: expected a latency table \(JSON\)"):
            Latency(tmp_path / "x.json", share=0.5)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"format cosparse-latency or cosparse-width-latency, got list; measure one with .*latency_table"):
        Latency(tmp_path / "x.json", share=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Latency: expected one of ms and share, got none"),
        ({"ms": 1.0, "share": 0.5}, "Latency: expected one of ms and share, got both"),
        ({"ms": float("inf")}, r"Latency\.ms: expected a positive number of milliseconds, got inf"),
        ({"share": 1.0}, r"Latency\.share: expected a share in \[0, 1\), got 1\.0"),
    ],
)
def test_bounds_are_checked(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Latency(written(table_of(seeded(Residual)), tmp_path), **options)


def test_settings_say_what_was_asked(tmp_path: Path) -> None:
    table = table_of(seeded(Residual))
    settings = Budget(latency=Latency(written(table, tmp_path), share=0.5)).settings()
    assert settings == {"latency": {"share": 0.5, "table": "T.json", "dense_ms": table.dense_us / 1e3}}
