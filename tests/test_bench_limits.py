"""What results are held against: the bound of short dtypes, bytes moved and held, the roof."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_net import small_net

from cosparse.bench import roofline
from cosparse.bench.check import Check, Closeness, closeness, compare_short, short_tolerance
from cosparse.bench.dense import densify
from cosparse.bench.roofline import Roofline
from cosparse.bench.rounding import STEP, allowed, depth
from cosparse.bench.traffic import live_bytes, step_bytes
from cosparse.kernels import reference

IMAGE = 4 * 16 * 64  # bytes of a value of 16 channels of 8x8 pixels, float32


def shapes() -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in reference.trace(small_net(), np.zeros((1, 3, 8, 8))).items()}


@pytest.mark.parametrize(("dtype", "round_to"), [("bfloat16", 8), ("int8", None)])
def test_the_step_of_a_dtype_is_the_error_of_storing_normal_numbers(dtype, round_to) -> None:
    x = np.random.default_rng(0).standard_normal(1 << 20)
    if round_to:
        mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1): 8 bits of significand are steps of 2^-8
        stored = np.ldexp(np.round(mantissa * 2**round_to) / 2**round_to, exponent)
    else:
        scale = np.abs(x).max() / 127
        stored = np.round(x / scale) * scale
    error = math.sqrt(np.mean((stored - x) ** 2) / np.mean(x**2))
    # The step takes the largest relative error as evenly spread, which is at most twice what a mantissa anywhere in its binade gives.
    assert STEP[dtype] / 2 < error < 1.05 * STEP[dtype]


def test_what_is_allowed_grows_with_the_depth() -> None:
    graph = densify(small_net())
    assert depth(graph) == 4
    assert allowed(graph, "int8") == pytest.approx(2 * math.sqrt(3 * 4) * STEP["int8"])


def test_short_outputs_are_held_to_the_better_of_roundings_and_peers() -> None:
    close = [Check(Closeness(0, 1, error, 1.0), 0.1, "rms_rel_err") for error in (0.08, 0.2, float("nan"))]
    assert short_tolerance(0.1, close) == pytest.approx(0.16)
    assert short_tolerance(0.3, close) == 0.3
    assert short_tolerance(0.3, []) == 0.3


def test_closeness_is_the_textbook() -> None:
    expected = np.array([[3.0, 4.0], [1.0, 0.0]])
    got = np.array([[3.0, 4.0], [1.0, 2.0]])
    found = closeness(got, expected)
    assert found == Closeness(2.0, 4.0, pytest.approx(2 / math.sqrt(26)), 0.5)
    assert not compare_short([got], [expected], 0.39).passed
    assert compare_short([got], [expected], 0.40).passed
    assert not compare_short([got * np.nan], [expected], 1e9).passed
    assert compare_short([got * np.nan], [expected], 1.0).to_json()["rms_rel_err"] is None
    assert not compare_short([got[:1]], [expected], 1e9).passed


def test_a_step_moves_its_weights_and_what_enters_and_leaves_it() -> None:
    weights = {"stem": 100, "conv1": 200, "conv2": 300, "pool": 0, "linear": 400}  # relu and add are folded
    moved = step_bytes(small_net(), shapes(), weights, 4)
    assert moved["stem"] == 100 + 4 * 3 * 64 + IMAGE
    assert moved["conv1"] == 200 + IMAGE + IMAGE  # the residual is the input itself
    assert moved["pool"] == IMAGE + 4 * 16
    assert moved["linear"] == 400 + 4 * (16 + 10)
    alone = {node.name: 0 for node in small_net().nodes}
    assert step_bytes(small_net(), shapes(), alone, 2)["add1"] == 3 * IMAGE // 2


def test_live_values_share_memory_where_an_op_can_work_in_place() -> None:
    # conv1 and the value that is added to it are needed at once; nothing beside them.
    assert live_bytes(small_net(), shapes(), 4) == 2 * IMAGE
    assert live_bytes(small_net(), shapes(), 1) == 2 * IMAGE // 4


def test_the_roof_is_the_lower_of_two() -> None:
    roof = Roofline(peak_gflops=100.0, bandwidth_gbs=10.0)
    assert roof.roof(2.0) == 20.0
    assert roof.roof(50.0) == 100.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_machine_has_a_roof(dtype, monkeypatch) -> None:
    monkeypatch.setattr(roofline, "SECONDS", 0.0)
    monkeypatch.setattr(roofline, "SIZES", (64,))
    monkeypatch.setattr(roofline, "TRIAD", 1 << 12)
    limits = roofline.measure.__wrapped__(1, dtype)
    assert limits.peak_gflops > 0
    assert limits.bandwidth_gbs > 0
    assert set(limits.to_json()) == set(roofline.NOWHERE)
