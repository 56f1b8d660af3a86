"""The bench object, key by key, and what it says when candidates disagree or fail."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_net import small_net

from cosparse.bench import cold, harness
from cosparse.bench.harness import Settings, bench
from cosparse.bench.report import failure, tables, verdict
from cosparse.bench.timing import Effort
from cosparse.engine import artifact
from cosparse.errors import ArtifactError, Error

TIMES = {"median_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "spread", "load_ms", "first_run_ms", "peak_rss_mb"}
TOP = ["model", "device", "dtype", "batch", "threads", "machine", "flops_reduction", "params_reduction", "check", "engine", "peers"]
TOP += ["fastest_peer", "speedup", "flop_speedup", "realised", "layers", "verdict"]
LAYER = {"name", "kernel", "density", "flops", "bytes", "us", "gflops", "dense_us", "realised", "why"}
QUICK = Effort(seconds=0.05, turns=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("bench") / "small.cosparse"
    artifact.write(path, small_net())
    return path


@pytest.fixture(scope="module")
def result(path):
    return bench(path, Settings(batch=2, threads=1, effort=QUICK))


def test_the_keys_are_those_of_the_interface(result) -> None:
    assert list(result) == TOP
    assert set(result["machine"]) == {"cpu", "cores", "isa", "versions", "commit"}
    assert set(result["check"]) == {"max_abs_err", "tolerance", "passed"}
    assert set(result["engine"]) == TIMES
    assert set(result["peers"]) == {"torch", "onnxruntime"}
    assert all(set(row) == TIMES | {"dtype", "version"} for row in result["peers"].values())
    assert all(set(row) == LAYER for row in result["layers"])
    assert set(result["verdict"]) == {"stable", "neighbours"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_figures_fit_together(result) -> None:
    assert result["check"]["passed"]
    assert (result["model"], result["batch"], result["threads"], result["dtype"]) == ("small", 2, 1, "float32")
    for row in [result["engine"], *result["peers"].values()]:
        assert 0 < row["min_ms"] <= row["median_ms"] == row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["load_ms"] > 0
        assert row["first_run_ms"] > 0
        assert row["peak_rss_mb"] > 10
    fastest = min(row["median_ms"] for row in result["peers"].values())
    assert result["peers"][result["fastest_peer"]]["median_ms"] == fastest
    assert result["speedup"] == pytest.approx(fastest / result["engine"]["median_ms"], rel=1e-2)
    assert result["realised"] == pytest.approx(result["speedup"] / result["flop_speedup"], rel=1e-2, abs=1e-4)
    assert result["flops_reduction"] == pytest.approx(1 - 1 / result["flop_speedup"], abs=1e-4)


def test_the_engine_carries_no_torch(result) -> None:
    assert result["engine"]["peak_rss_mb"] < result["peers"]["torch"]["peak_rss_mb"] - 50


def test_layers_follow_the_plan(result, path) -> None:
    by_name = {row["name"]: row for row in result["layers"]}
    assert {"stem", "conv1", "conv2", "linear"} <= set(by_name)
    assert by_name["stem"]["density"] == 1
    assert by_name["conv1"]["density"] < 0.7
    assert by_name["conv1"]["realised"] > 0
    # Multiply-adds are those of the run's batch: stem 3 -> 16 channels, 3x3, 8x8 pixels, 2 images.
    assert by_name["stem"]["flops"] == 16 * 27 * 64 * 2
    assert all(row["us"] > 0 for row in result["layers"])


def test_people_see_the_same(result) -> None:
    shown = [str(item) for item in tables(result) if isinstance(item, str)]
    assert any("Outputs agree" in line and f"{result['speedup']:.2f} x as fast as {result['fastest_peer']}" in line for line in shown)
    assert "NOT stable" in verdict({"stable": False, "neighbours": 1.2})
    assert "1.20 processors" in verdict({"stable": False, "neighbours": 1.2})
    assert "cannot be seen" in verdict({"stable": True, "neighbours": None})


def test_a_wrong_answer_gets_no_speedup(path, monkeypatch) -> None:
    def broken(graph):
        first = graph.nodes[0]
        wrong = replace(first, tensors={**first.tensors, "values": first.tensors["values"] * np.float32(1.01)})
        return replace(graph, nodes=(wrong, *graph.nodes[1:]))

    densify = harness.densify
    monkeypatch.setattr(harness, "densify", lambda graph: broken(densify(graph)))
    result = bench(path, Settings(threads=1, effort=QUICK, cold_start=False))
    assert list(result) == TOP
    assert not result["check"]["passed"]
    assert result["check"]["max_abs_err"] > result["check"]["tolerance"]
    assert result["speedup"] is None
    assert result["realised"] is None
    assert result["engine"]["median_ms"] is None
    assert result["layers"] == []
    assert not result["verdict"]["stable"]
    assert "outputs differ" in (failure(result) or "")
    assert not any("as fast" in str(item) for item in tables(result))


def test_without_peers_the_reference_checks(path) -> None:
    result = bench(path, Settings(threads=1, against=(), effort=QUICK, cold_start=False, layers=False))
    assert result["check"]["passed"]
    assert result["peers"] == {}
    assert result["speedup"] is None
    assert result["engine"]["median_ms"] > 0
    assert result["engine"]["load_ms"] is None
    assert failure(result) is None


def test_strict_objects_to_a_slower_engine(result) -> None:
    slower = result | {"speedup": 0.5}
    assert failure(slower) == f"batch 2, 1 threads: 2.00 times slower than {result['fastest_peer']}"
    assert failure(result | {"speedup": 1.5}) is None


def test_an_isa_can_be_forced(path) -> None:
    result = bench(path, Settings(threads=1, against=(), isa="scalar", effort=QUICK, cold_start=False))
    assert result["machine"]["isa"] == "scalar"
    assert any(row["kernel"].endswith("scalar") for row in result["layers"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(batch=0), "batch: expected at least 1, got 0"),
        (Settings(threads=0), "threads: expected 1 to"),
        (Settings(threads=100_000), "threads: expected 1 to"),
        (Settings(against=("nobody",)), "peer: expected one of torch, onnxruntime, got 'nobody'"),
        (Settings(isa="mmx", threads=1), "mmx"),
    ],
    ids=["batch", "no threads", "too many threads", "peer", "isa"],
)
def test_settings_out_of_range(path, settings, message) -> None:
    with pytest.raises(Error, match=message):
        bench(path, settings)


def test_a_bad_artifact_is_refused(tmp_path) -> None:
    (tmp_path / "bad.cosparse").write_bytes(b"not an artifact at all")
    with pytest.raises(ArtifactError, match=r"bad\.cosparse"):
        bench(tmp_path / "bad.cosparse", Settings(threads=1))


def test_a_cold_start_that_fails_says_why(tmp_path) -> None:
    with pytest.raises(Error, match=r"cold start of engine: expected exit status 0, got 1: .*missing\.cosparse"):
        cold.measure(cold.ENGINE, tmp_path / "missing.cosparse", {"x": (1, 3, 8, 8)}, ["x"], 1, None)
