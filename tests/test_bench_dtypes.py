"""The claim about short dtypes: what it compares, its bars, and a run on a few images."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from few_rows import few_rows
from small_net import small_net

from cosparse.bench.claims import dtype_accuracy as claim
from cosparse.bench.timing import Effort
from cosparse.compress.data import Images
from cosparse.engine import artifact


def test_differences_are_shares_of_the_size() -> None:
    exact = np.array([[2.0, -2.0], [-2.0, 2.0]])
    found = claim.compare(exact + np.array([[0.0, 0.4], [0.0, 0.0]]), exact)
    assert found == pytest.approx({"same_top1": 1.0, "largest": 0.2, "rms": 0.1})
    assert claim.compare(exact[:, ::-1], exact)["same_top1"] == 0


def test_bars_are_points_lost_against_float32_of_the_same_network() -> None:
    same = {"same_top1": 1.0, "largest": 0.0, "rms": 0.0}
    rows = [
        {"model": model, "dtype": dtype, "top1": top1, **same}
        for model, dtype, top1 in (("a", "float32", 90.0), ("a", "bfloat16", 89.7), ("b", "float32", 80.0), ("b", "int8", 79.5))
    ]
    made = claim.bars(rows)
    assert [(bar.what, bar.measured, bar.passed) for bar in made] == [
        ("a, bfloat16: points of top-1 lost", 0.3, False),
        ("b, int8: points of top-1 lost", 0.5, True),
    ]
    assert made[1].note.startswith("80.00 -> 79.50 %; equal top-1 100.00%")
    assert " ms" not in made[0].note


@pytest.mark.parametrize("effort", [None, Effort(0.05, 2)], ids=["no latency", "latency"])
def test_a_network_is_measured_in_every_dtype(effort: Effort | None, tmp_path: Path) -> None:
    artifact.write(tmp_path / "small.cosparse", small_net())
    pixels = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = np.random.default_rng(0).standard_normal((8, 3, 8, 8), np.float32)
    images = Images(pixels, torch.arange(60) % 10, 10)
    rows = {row["dtype"]: row for row in claim.measure(tmp_path / "small.cosparse", images, samples, 1, effort)}
    assert list(rows) == ["float32", "bfloat16", "int8"]
    assert (rows["float32"]["rms"], rows["float32"]["same_top1"]) == (0, 1)
    assert 0 < rows["bfloat16"]["rms"] < rows["int8"]["rms"] < 0.2
    assert all(("latency" in row) == (effort is not None) for row in rows.values())
    assert len(claim.bars(list(rows.values()))) == 2


def test_trained_networks_on_a_few_images(shared_data: Path, tmp_path: Path) -> None:
    """50 images: each of them is two points, more than the bars allow, so the exit status says nothing here."""
    few = few_rows(shared_data, tmp_path / "data", {"train": 600, "test": 200})
    with suppress(typer.Exit):
        claim.main(few, tmp_path / "nets", limit=50, latency=False, threads=1, out=tmp_path)
    rows = json.loads((tmp_path / "dtype_accuracy.json").read_text(encoding="utf-8"))["data"]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16", "int8"] * 2
    assert all(row["top1"] > 60 for row in rows)
