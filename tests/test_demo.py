"""The demo in a small version: everything it promises is there, and it says only what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cosparse
from cosparse.bench import demo
from cosparse.bench.demo import peers
from cosparse.cli import demo as face
from cosparse.cli import run
from cosparse.cli.output import emit

SMALL = demo.Plan(epochs=(2, 0, 1), widths=(16, 16, 32), flops=0.5, params=0.5, threads=1, seconds=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "not" / "there" / "yet"


@pytest.fixture(scope="module")
def heard() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def result(folder: Path, heard: list[tuple[str, float]]) -> dict[str, Any]:
    return demo.run(folder, SMALL, lambda phase, share: heard.append((phase, share)))


def test_both_budgets_are_met(result) -> None:
    dense, compressed = result["dense"], result["compressed"]
    assert compressed["params"] <= 0.5 * dense["params"]
    assert compressed["flops"] <= 0.5 * dense["flops"]
    assert compressed["bytes"] < 0.7 * dense["bytes"]


def test_both_networks_were_trained_and_measured(result) -> None:
    for name in ("dense", "compressed"):
        assert result[name]["top1"] > 50  # one class in ten is chance
        assert result[name]["check"]["passed"]
        assert set(result[name]["latency_ms"]) == {"engine", *peers()}
        assert all(ms > 0 for ms in result[name]["latency_ms"].values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_files_are_what_the_result_says(result, folder) -> None:
    assert {path.name for path in folder.iterdir()} == {"dense.cosparse", "compressed.cosparse", "masks.png"} == set(result["files"])
    for name in ("dense", "compressed"):
        path = Path(result["files"][f"{name}.cosparse"])
        assert path.stat().st_size == result[name]["bytes"]
        assert cosparse.load(path).metadata["preprocessing"]["size"] == [8, 8]
    assert Path(result["files"]["masks.png"]).read_bytes().startswith(b"\x89PNG\r\n")


def test_progress_is_told(result, heard) -> None:
    assert {"training the dense network", "compressing it", "timing the dense network"} <= {phase for phase, _ in heard}
    assert all(0 <= share <= 1 for _, share in heard)


def test_the_table_has_every_row(result, capsys) -> None:
    emit(result, None, face._comparison(result), *face._notes(result))
    out = capsys.readouterr().out
    for row in ("parameters", "MFLOP", "file, bytes", "top-1 of 359", "cosparse engine", *(f"{peer} (always dense)" for peer in peers())):
        assert row in out
    assert "the fastest peer" in out
    assert result["files"]["masks.png"] in out


def test_a_failed_check_gives_no_latency(result, capsys) -> None:
    broken = result | {"compressed": result["compressed"] | {"latency_ms": dict.fromkeys(result["compressed"]["latency_ms"])}}
    emit(broken, None, face._comparison(broken), *face._notes(broken))
    out = capsys.readouterr().out
    assert "not timed: outputs differ" in out
    assert "as fast as" not in out


def test_the_seed_decides_the_networks(result, folder, tmp_path, monkeypatch) -> None:
    timed = {"engine": {"median_ms": 1.0}, "peers": {}, "check": {}, "verdict": {"stable": True, "neighbours": None}}
    monkeypatch.setattr(demo, "_bench", lambda path, plan: timed)
    demo.run(tmp_path, SMALL)
    for name in ("dense.cosparse", "compressed.cosparse"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(demo, "run", lambda folder, plan, progress: seen.append((folder, plan)) or {"made": "up"})
    monkeypatch.setattr(face, "_comparison", lambda result: "table")
    monkeypatch.setattr(face, "_notes", lambda result: [])
    assert run(["demo", "--out", str(tmp_path), "--epochs", "3,1,2", "--seed", "7", "--threads", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"made": "up"}
    folder, plan = seen[0]
    assert folder == tmp_path
    assert (plan.epochs, plan.seed, plan.threads) == ((3, 1, 2), 7, 1)
    assert run(["demo", "--epochs", "3,1"]) == 2
    assert "--epochs: expected 3 whole numbers" in capsys.readouterr().err
