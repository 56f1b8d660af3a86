"""Sweeps: what the curve says, what one run of variants holds, and the files that come of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from bench_results import bench_result, sweep_result
from torch import nn

from cosparse.bench import csv_out, sweep
from cosparse.bench.break_even import GAIN, break_even, rises
from cosparse.bench.settings import Settings
from cosparse.bench.sweep_report import failure, sentences, tables
from cosparse.bench.timing import SAMPLES, Effort, samples_ms
from cosparse.cli import run
from cosparse.errors import Error

EXAMPLE = torch.zeros(1, 8, 12, 12)
QUICK = Settings(threads=1, against=("onnxruntime",), effort=Effort(seconds=0.05, turns=2))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(32, 10)).eval()


@pytest.mark.parametrize(
    ("curve", "even"),
    [
        ([(1.0, 12.0), (0.5, 8.0), (0.2, 4.0)], 0.5 + 0.5 * (10 * (1 - GAIN) - 8) / 4),
        ([(0.2, 4.0), (1.0, 9.0)], 1.0),
        ([(0.2, 11.0), (1.0, 12.0)], None),
        ([(0.1, 3.0), (0.2, 11.0), (0.3, 9.0)], 0.1 + 0.1 * (9.8 - 3) / 8),
        ([], None),
    ],
    ids=["between", "always", "never", "first loss counts", "no data"],
)
def test_break_even(curve: list[tuple[float, float]], even: float | None) -> None:
    assert break_even(curve, 10.0) == (None if even is None else pytest.approx(even, abs=1e-4))


def test_rises_are_those_that_noise_does_not_explain() -> None:
    assert rises([(1.0, 10.0), (0.5, 10.2), (0.2, 10.6), (0.1, 5.0)]) == [(0.5, 0.2)]
    assert rises([(0.2, 4.0), (1.0, 9.0)]) == []


def test_few_samples_are_kept_and_from_the_whole_run() -> None:
    kept = samples_ms(torch.arange(10 * SAMPLES, dtype=torch.float64).numpy())
    assert len(kept) == SAMPLES
    assert (kept[0], kept[-1]) == (0.0, (10 * SAMPLES - 1) * 1e3)
    assert samples_ms(torch.tensor([0.5]).numpy()) == [500.0]


@pytest.fixture(scope="module")
def swept() -> dict:
    return sweep.density_sweep(network(), EXAMPLE, [0.2, 1.0, 0.5], QUICK, name="small")


def test_a_density_sweep_holds_together(swept: dict) -> None:
    assert json.loads(json.dumps(swept, allow_nan=False)) == swept
    assert [point["density"] for point in swept["points"]] == [1.0, 0.5, 0.2]
    assert all(point["check"]["passed"] for point in swept["points"])
    full, half, fifth = swept["points"]
    assert full["flops_reduction"] == 0
    assert 0 < half["flops_reduction"] < fifth["flops_reduction"] < 0.8
    for point in swept["points"]:
        ours = point["engine"]["median_ms"]
        assert ours > 0
        assert point["dense_speedup"] == pytest.approx(swept["dense"]["median_ms"] / ours, abs=1e-3)
        assert point["speedup"] == pytest.approx(swept["peers"]["onnxruntime"]["median_ms"] / ours, abs=1e-3)
        assert 0 < len(point["engine"]["samples_ms"]) <= SAMPLES
    assert swept["fastest_peer"] == "onnxruntime"
    assert isinstance(swept["monotone"], bool)


def test_people_see_the_sweep(swept: dict) -> None:
    assert next(str(line) for line in tables(swept)).startswith("small: batch 1, 1 threads, float32")
    assert sentences(sweep_result()) == ["Faster than dense below density 0.84.", "Latency falls with density throughout."]
    rising = sweep_result(monotone=False, rises=[[0.5, 0.2]], break_even=None)
    assert sentences(rising) == ["Sparsity never pays here.", "Latency RISES from 0.5 to 0.2."]
    assert failure(sweep_result()) is None
    assert failure(rising) == "batch 1, 2 threads: latency rises from density 0.5 to 0.2"


def test_a_variant_that_answers_wrongly_stops_the_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = sweep.compare
    monkeypatch.setattr(sweep, "compare", lambda got, expected: wrong([y + 1 for y in got], expected))
    result = sweep.density_sweep(network(), EXAMPLE, [0.5], QUICK)
    assert result["points"][0]["engine"]["median_ms"] is None
    assert (result["break_even"], result["monotone"], result["fastest_peer"]) == (None, None, None)
    assert failure(result) == "batch 1, 1 threads: outputs differ at 0.5"
    tables(result)


def test_no_density_is_refused() -> None:
    with pytest.raises(Error, match="densities: expected at least one"):
        sweep.density_sweep(network(), EXAMPLE, [], QUICK)


def test_csv_has_a_row_for_each_candidate_and_setting() -> None:
    results = [bench_result(model="=1+1"), sweep_result()]
    rows = list(csv.DictReader(io.StringIO(csv_out.candidates(results))))
    names = [(row["candidate"], row["variant"]) for row in rows]
    peers = [("torch", "dense"), ("onnxruntime", "dense")]
    assert names == [("engine", ""), *peers, *(("engine", name) for name in ("dense", "1", "0.5", "0.2")), *peers]
    assert rows[0]["model"] == "'=1+1"
    assert (rows[0]["median_ms"], rows[0]["speedup"], rows[1]["speedup"]) == ("1.0", "2.0", "")
    assert float(rows[5]["flops_reduction"]) == 0.5
    assert list(rows[0]) == list(csv_out.CANDIDATES)
    layers = list(csv.DictReader(io.StringIO(csv_out.layers(results))))
    assert len(layers) == 4
    assert (layers[0]["batch"], layers[0]["us"], layers[3]["dense_us"]) == ("1", "10.0", "")


def test_the_command_writes_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "net.py"
    module.write_text(
        "import torch\nfrom torch import nn\n"
        "def small():\n    net = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 1))\n"
        "    return net, torch.zeros(1, 8, 12, 12)\n",
        encoding="utf-8",
    )
    files = {option: tmp_path / name for option, name in (("--report", "r.html"), ("--csv", "c.csv"), ("--json", "j.json"))}
    options = [str(word) for pair in files.items() for word in pair]
    common = ["--threads", "1", "--seconds", "0.05", "--against", "none"]
    assert run(["bench", f"{module}:small", "--density", "1,0.3", *common, *options]) == 0
    out, _ = capsys.readouterr()
    assert "density 0.3" in out
    assert json.loads(files["--json"].read_text())["points"][1]["density"] == 0.3
    assert files["--report"].read_text().startswith("<!doctype html>")
    assert len(files["--csv"].read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.cosparse", "--density", "0.5"], "--density: expected zoo:NAME or path/file.py:factory, got 'm.cosparse'"),
        (["zoo:resnet20", "--density", "0.5,2"], "--density: expected shares in (0, 1] with commas between, got '0.5,2'"),
        (["zoo:resnet20", "--density", "half"], "--density: expected shares"),
        (["m.cosparse", "--report", "no/such/r.html"], "--report: expected an existing folder no/such, got none"),
        (["m.cosparse", "--csv-layers", "no/such/r.csv"], "--csv-layers: expected an existing folder no/such, got none"),
    ],
)
def test_bad_options_are_said_before_the_work(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
