"""What a bench result is made of: the dense twin, the check, the clock, the neighbours, the environment."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from closeness import assert_close
from sample_graphs import every_op
from small_net import small_net

from cosparse.bench import environment, neighbours, timing
from cosparse.bench.check import RELATIVE, compare
from cosparse.bench.dense import densify, parameters
from cosparse.bench.neighbours import Usage
from cosparse.engine import artifact
from cosparse.kernels import reference


@pytest.mark.parametrize("graph", [small_net(), every_op()], ids=["small", "every_op"])
def test_the_dense_twin_computes_the_same(graph) -> None:
    rng = np.random.default_rng(0)
    inputs = tuple(rng.standard_normal((2, *value.shape[1:])) for value in graph.inputs)
    expected = reference.trace(graph, *inputs)
    twin = densify(graph)
    assert all(n.attrs["format"] == "dense" and n.attrs["transform"] == "identity" for n in twin.nodes if "format" in n.attrs)
    largest = max(float(np.abs(value).max()) for value in expected.values())
    for got, name in zip(reference.run(twin, *inputs), graph.outputs, strict=True):
        # The twin's weights are rounded to float32 once; at most 9 x 16 terms a sum, 4 layers deep.
        assert_close(got, expected[name], terms=4 * 144, scale=largest, eps=float(np.finfo(np.float32).eps))


def test_the_twin_is_a_valid_artifact(tmp_path) -> None:
    artifact.write(tmp_path / "twin.cosparse", densify(every_op()))
    assert artifact.read(tmp_path / "twin.cosparse") == densify(every_op())


def test_parameters_are_counted_without_indices() -> None:
    graph = small_net(channels=16, classes=10)
    kept = sum(node.tensors["values"].size for node in graph.nodes if node.attrs.get("format") == "block")
    counted = parameters(graph)
    assert counted.dense == (16 * 27 + 16) + 2 * (16 * 16 * 9 + 16) + (160 + 10)
    assert counted.stored == (16 * 27 + 16) + kept + 2 * (16 + 16) + (160 + 10)
    assert counted.reduction == pytest.approx(1 - counted.stored / counted.dense)


def test_compare_takes_the_output_closest_to_its_bound() -> None:
    small, large = np.array([1.0, -2.0]), np.array([1000.0])
    check = compare([small + 1e-3, large + 5e-3], [small, large])
    assert not check.passed
    assert check.tolerance == pytest.approx(RELATIVE * 2.0)
    assert check.max_abs_err == pytest.approx(1e-3)
    assert compare([large + 0.09], [large]).passed


@pytest.mark.parametrize("wrong", [np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.ones(3)], ids=["nan", "inf", "shape"])
def test_compare_never_passes_what_is_not_a_number_or_not_that_shape(wrong) -> None:
    check = compare([wrong], [np.ones(2)])
    assert not check.passed
    assert check.to_json()["max_abs_err"] is None


def test_agreement_on_zeros_is_said_to_prove_little() -> None:
    with pytest.warns(RuntimeWarning, match="zero everywhere"):
        assert compare([np.zeros((1, 3))], [np.zeros((1, 3))]).passed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare([np.ones((1, 3)), np.zeros((0, 3))], [np.ones((1, 3)), np.zeros((0, 3))]).passed


def test_candidates_run_in_turn() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "AB"}
    times = timing.interleave(calls, timing.Effort(seconds=0.01, turns=3))
    turns = "".join(order).replace("A", "a").split("B")
    assert len([part for part in turns if part]) >= 3  # A ran again after B had, at least three times
    assert {name: len(taken) for name, taken in times.items()}.keys() == {"A", "B"}
    assert all((taken > 0).all() for taken in times.values())


def test_slow_candidates_are_timed_in_every_turn_and_progress_ends_at_one() -> None:
    heard: list[float] = []
    times = timing.interleave({"slow": lambda: time.sleep(0.06)}, timing.Effort(0.1, turns=4), heard.append)
    assert len(times["slow"]) == 4
    assert times["slow"].min() >= 0.06
    assert heard[-1] == 1.0
    assert heard == sorted(heard)


class Clock:
    """Stands in for the module `time`: a process that burns `busy` of the time until `until` and none afterwards."""

    def __init__(self, busy: float, until: float) -> None:
        self.now, self.busy, self.until = 0.0, busy, until

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.busy * min(self.now, self.until)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("busy", "until", "least", "most"), [(2, 0.1, 0.1, 0.115), (0.1, 9, 0, 0.01), (1, 9, 0.5, 0.51)])
def test_settle_waits_for_a_spinning_thread_but_not_for_ever(
    busy: float, until: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(busy, until)
    monkeypatch.setattr(timing, "time", clock)
    timing.settle(limit=0.5)
    assert least <= clock.now <= most


def test_summary_is_the_textbook() -> None:
    row = timing.summary(np.arange(1, 102) / 1e3)  # 1 .. 101 ms
    assert row == {"median_ms": 51.0, "min_ms": 1.0, "p50_ms": 51.0, "p90_ms": 91.0, "p99_ms": 100.0, "spread": round(50 / 51, 5)}
    assert tuple(row) == timing.SUMMARY


def test_neighbours_are_what_is_busy_beyond_ourselves() -> None:
    before = Usage(wall=10.0, total=100.0, own=5.0)
    assert neighbours.others(before, Usage(12.0, 104.0, 6.0)) == 1.5
    assert neighbours.others(before, Usage(12.0, 101.0, 6.2)) == 0.0
    assert neighbours.others(before, Usage(10.01, 101.0, 5.0)) is None
    assert neighbours.others(None, before) is None
    assert neighbours.quiet(None)
    assert neighbours.quiet(0.0)
    assert not neighbours.quiet(1.0 * len(environment.processors()))


def test_own_work_is_no_neighbour() -> None:
    before = neighbours.usage()
    if before is None:
        pytest.skip("this system does not count processor time in /proc/stat")
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        sum(range(1000))
    after = neighbours.usage()
    assert after is not None
    assert after.own - before.own > 0.1
    assert after.total >= before.total


def test_the_machine_is_described() -> None:
    machine = environment.machine("avx2")
    assert set(machine) == {"cpu", "cores", "isa", "versions", "commit"}
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert {"cosparse", "python", "numpy", "torch", "onnxruntime", "openvino", "nncf"} == set(machine["versions"])
    assert environment.version("surely-not-installed") is None


def test_a_foreign_repository_is_not_taken_for_ours(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(environment, "_SOURCE", tmp_path)
    assert environment.commit() is None
