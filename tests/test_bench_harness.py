"""The bench object, key by key, and what it says when candidates disagree or fail."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_net import small_net

import cosparse
from cosparse.bench import cold, harness
from cosparse.bench.harness import bench
from cosparse.bench.layers import losing_layers
from cosparse.bench.peers.openvino_peer import IN_FLOAT32
from cosparse.bench.report import failure, tables, verdict
from cosparse.bench.settings import Settings
from cosparse.bench.timing import Effort
from cosparse.engine import artifact
from cosparse.errors import ArtifactError, Error

TIMES = {"median_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "spread", "samples_ms", "load_ms", "first_run_ms", "peak_rss_mb", "grown_mb"}
CLOSE = {"max_abs_err", "rms_rel_err", "top1_agreement"}
TOP = ["model", "device", "dtype", "batch", "threads", "machine", "flops_reduction", "params_reduction", "check", "engine", "peers"]
TOP += ["fastest_peer", "speedup", "flop_speedup", "realised", "layers", "losing_layers", "verdict"]
LAYER = {"name", "kernel", "density", "flops", "bytes", "us", "gflops", "dense_gflops", "dense_us", "realised"}
LAYER |= {"intensity", "roof_gflops", "roof_share", "why"}
AGAINST = ("torch", "onnxruntime")
QUICK = Effort(seconds=0.05, turns=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("bench") / "small.cosparse"
    artifact.write(path, small_net())
    return path


@pytest.fixture(scope="module")
def result(path):
    return bench(path, Settings(batch=2, threads=1, against=AGAINST, effort=QUICK))


def test_the_keys_are_those_of_the_interface(result) -> None:
    assert list(result) == TOP
    assert set(result["machine"]) == {"cpu", "cores", "isa", "versions", "commit", "peak_gflops", "bandwidth_gbs", "roofline_by"}
    assert set(result["check"]) == CLOSE | {"bound", "tolerance", "passed"}
    assert set(result["engine"]) == TIMES | {"dense_ms", "memory_ratio"}
    assert set(result["peers"]) == {"torch", "onnxruntime"}
    assert all(set(row) == TIMES | CLOSE | {"dtype", "version", "label"} for row in result["peers"].values())
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
        assert 0 < row["grown_mb"] < row["peak_rss_mb"]
        assert row["min_ms"] == pytest.approx(min(row["samples_ms"]))
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


def test_layers_are_held_against_the_roof(result) -> None:
    peak, bandwidth = result["machine"]["peak_gflops"], result["machine"]["bandwidth_gbs"]
    stem = next(row for row in result["layers"] if row["name"] == "stem")
    # Weights as the kernel reads them; 3 channels in and 16 out of 8x8 pixels of 2 images, float32.
    moved = stem["bytes"] + 4 * (3 + 16) * 64 * 2
    assert stem["intensity"] == pytest.approx(2 * stem["flops"] / moved, rel=1e-3)
    assert stem["roof_gflops"] == pytest.approx(min(peak, stem["intensity"] * bandwidth), rel=1e-2)
    assert stem["roof_share"] == pytest.approx(stem["gflops"] / stem["roof_gflops"], rel=1e-2)
    assert stem["dense_gflops"] == stem["gflops"]
    pool = next(row for row in result["layers"] if row["name"] == "pool")
    assert pool["intensity"] is pool["roof_gflops"] is pool["roof_share"] is None


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
    result = bench(path, Settings(threads=1, against=AGAINST, effort=QUICK, cold_start=False))
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


def test_without_peers_the_reference_checks(path, monkeypatch) -> None:
    monkeypatch.setattr(harness, "interleave", lambda calls, *_: dict.fromkeys(calls, np.full(5, 1e-3)))  # as fast as its dense twin
    result = bench(path, Settings(threads=1, against=(), effort=QUICK, cold_start=False, layers=False))
    assert result["check"]["passed"]
    assert result["peers"] == {}
    assert result["speedup"] is None
    assert result["engine"]["median_ms"] > 0
    assert result["engine"]["load_ms"] is None
    assert failure(result) is None


def test_strict_objects_to_whatever_is_faster(result) -> None:
    won = result | {"speedup": 1.5, "losing_layers": [], "engine": result["engine"] | {"median_ms": 1.0, "dense_ms": 2.0}}
    assert failure(won) is None
    assert failure(won | {"speedup": 0.5}) == f"batch 2, 1 thread: 2.00 times slower than {result['fastest_peer']}"
    slow = won | {"engine": won["engine"] | {"median_ms": 3.0}}
    assert failure(slow) == "batch 2, 1 thread: 1.50 times slower than our own dense kernels"
    assert failure(won | {"losing_layers": ["conv1", "conv2"]}) == "batch 2, 1 thread: 2 layers slower than dense: conv1, conv2"


def test_a_layer_loses_beyond_noise_only() -> None:
    rows = [
        {"name": "noise", "us": 114.0, "dense_us": 100.0, "realised": 0.9},
        {"name": "loser", "us": 116.0, "dense_us": 100.0, "realised": 0.9},
    ]
    rows += [
        {"name": "tick", "us": 6.0, "dense_us": 2.0, "realised": 0.3},
        {"name": "pool", "us": 900.0, "dense_us": 1.0, "realised": None},
    ]
    assert losing_layers(rows) == ["loser"]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_short_dtype_is_checked_against_float32(path, monkeypatch, dtype) -> None:
    heard = []

    def load(path, *, dtype, calibration=None, **options):
        heard.append((dtype, calibration and [array.shape for array in calibration]))
        return cosparse.load(path, **options)

    monkeypatch.setattr(harness, "cosparse", SimpleNamespace(load=load))
    result = bench(path, Settings(threads=1, against=("openvino",), effort=QUICK, cold_start=False, layers=False, dtype=dtype))
    assert heard == [(dtype, [(16, 3, 8, 8)] if dtype == "int8" else None)] * 2
    assert result["dtype"] == result["peers"]["openvino"]["dtype"] == dtype
    assert result["check"]["bound"] == "rms_rel_err"
    assert result["check"]["passed"]
    # The engine of this test computes in float32, so that its error is far below that of a peer which rounds.
    peer = result["peers"]["openvino"]
    assert result["check"]["rms_rel_err"] < 1e-5
    assert peer["rms_rel_err"] < result["check"]["tolerance"] < 0.2
    assert peer["rms_rel_err"] > 1e-5 or (dtype == "bfloat16" and peer["label"].endswith(IN_FLOAT32))
    assert any("against float32: error" in str(item) for item in tables(result))


def test_a_short_dtype_that_is_wrong_gets_no_speedup(path, monkeypatch) -> None:
    class Halved:
        """No rounding explains its outputs."""

        def __init__(self, path, *, dtype, **options) -> None:
            self._engine = cosparse.load(path, **options)
            self.plan, self.isa = self._engine.plan, self._engine.isa

        def __call__(self, *inputs):
            return self._engine(*inputs) / 2

        def warmup_for(self, *shapes):
            return self

    monkeypatch.setattr(harness, "cosparse", SimpleNamespace(load=Halved))
    result = bench(path, Settings(threads=1, against=(), effort=QUICK, cold_start=False, dtype="bfloat16"))
    assert not result["check"]["passed"]
    assert result["check"]["rms_rel_err"] == pytest.approx(0.5, rel=1e-3)
    assert result["speedup"] is None


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
        (Settings(against=("nobody",)), "peer: expected one of torch, torch.compile, onnxruntime, openvino, got 'nobody'"),
        (Settings(isa="mmx", threads=1), "mmx"),
        (Settings(dtype="float8"), "dtype: expected one of float32, bfloat16, int8, got 'float8'"),
        (Settings(dtype="int8", against=("torch",)), "peer torch: expected a dtype of float32, bfloat16, got int8; leave it out"),
        (Settings(calibration=()), "calibration: expected 1 arrays, one for each input, got 0"),
        (Settings(calibration=(np.zeros((4, 3, 9, 9)),)), r"calibration: expected images of shape \(3, 8, 8\) for input 'x'"),
        (Settings(batch=5, calibration=(np.zeros((4, 3, 8, 8)),)), "calibration: expected at least 5 images"),
    ],
    ids=["batch", "no threads", "too many threads", "peer", "isa", "dtype", "peer's dtype", "too few arrays", "shape", "too few images"],
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
