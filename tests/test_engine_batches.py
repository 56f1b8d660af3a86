"""Batches that run apart, each thread with images of its own, and together, all threads on each layer: how it is decided, and that both
compute the same."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close
from engines import EPS, engine_of
from processes import run
from small_net import small_net

import cosparse
from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.kernels import reference

APART = "each on a thread of its own"
TERMS = 9 * 16 * 4  # roundings behind a score of small_net: three convolutions of 16 channels, a mean, a linear layer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "net.cosparse", small_net())
    return tmp_path / "net.cosparse"


def images(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, size, size)).astype(np.float32)


def poisoned(threads: int, **options: object) -> Engine:
    """An engine that measures, in memory that is NaN before each run."""
    return Engine(_C.parse_artifact(artifact.to_bytes(small_net())), threads=threads, tune=True, poison=True, **options)


def decide(network: Path, cache: Path, *, apart: float, together: float, batch: int = 4) -> Engine:
    """With a cache that says so."""
    cosparse.load(network, threads=2).warmup((batch,))
    (path,) = cache.glob("*")
    stored = json.loads(path.read_text(encoding="utf-8"))
    for times in stored["batches"].values():
        times.update(apart=apart, together=together)
    path.write_text(json.dumps(stored), encoding="utf-8")
    return cosparse.load(network, threads=2).warmup((batch,))


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 7, 11])
def test_every_image_is_computed_once(threads: int, batch: int) -> None:
    """A small network that nothing was measured of runs apart where there are images for all threads and not many are left over, which run
    together."""
    engine, x = poisoned(threads), images(batch)
    plan = engine.plan_for(x.shape)
    assert (APART in plan.batch) == (batch in (threads, 2 * threads) or batch > 2 * threads)
    assert plan.batch in str(plan)
    (want,) = reference.run(small_net(), x)
    assert_close(engine(x).astype(np.float64), want, terms=TERMS, scale=max(1.0, float(np.abs(want).max())), eps=EPS)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_short_numbers_run_apart(dtype: str) -> None:
    """Each image as it is alone: its activations are rounded by steps that do not depend on the batch."""
    options = {"calibration": [[images(16)]]} if dtype == "int8" else {}
    apart, x = poisoned(2, dtype=dtype, **options), images(6)
    assert APART in apart.plan_for(x.shape).batch
    alone = engine_of(small_net(), threads=1, dtype=dtype, calibration=[images(16)] if dtype == "int8" else ())
    want = np.concatenate([alone(x[i : i + 1]) for i in range(6)])
    assert np.abs(apart(x) - want).max() <= 0.02 * np.abs(want).max()


def test_parts_of_several_images() -> None:
    """21 images on two threads: 2 x 10 apart, and one."""
    engine = poisoned(2)
    assert engine.plan_for((21, 3, 8, 8)).batch == f"2 x 10 images, {APART}; 1 image"
    assert engine.plan_for((21, 3, 8, 8)).flops == 21 * engine.plan.flops


def test_several_inputs_and_outputs() -> None:
    net = small_net()
    add = replace(net.nodes[1], name="sum", op="add", inputs=("relu2", "x2"), attrs={}, tensors={})
    graph = replace(net, inputs=(*net.inputs, replace(net.inputs[0], name="x2", shape=(None, 16, 8, 8))), outputs=("linear", "sum"))
    graph = replace(graph, nodes=(*graph.nodes, add), preprocessing={})
    engine = Engine(_C.parse_artifact(artifact.to_bytes(graph)), threads=2, tune=True, poison=True)
    x, other = images(5), np.random.default_rng(9).normal(size=(5, 16, 8, 8)).astype(np.float32)
    assert APART in engine.plan_for(x.shape, other.shape).batch
    for got, want in zip(engine(x, other), reference.run(graph, x, other), strict=True):
        assert_close(got.astype(np.float64), want, terms=TERMS, scale=max(1.0, float(np.abs(want).max())), eps=EPS)


@pytest.mark.parametrize(("apart", "together", "wins"), [(10.0, 20.0, True), (20.0, 10.0, False), (19.9, 20.0, False)])
def test_what_was_measured_decides(network: Path, cache: Path, apart: float, together: float, wins: bool) -> None:
    """Together unless the other is faster by more than chance."""
    engine = decide(network, cache, apart=apart, together=together)
    batch = engine.plan_for((4, 3, 8, 8)).batch
    assert (APART in batch) == wins
    assert f"(measured: apart {round(apart)} us, together {round(together)})" in batch
    x = images(4)
    (want,) = reference.run(small_net(), x)
    assert_close(engine(x).astype(np.float64), want, terms=TERMS, scale=max(1.0, float(np.abs(want).max())), eps=EPS)


def test_a_batch_that_was_called_stays_as_it_is(network: Path, cache: Path) -> None:
    """To the last bit, which the other way would change."""
    decide(network, cache, apart=20.0, together=10.0)
    engine, x = cosparse.load(network, threads=2), images(4)
    want = engine(x)
    assert APART in engine.plan_for(x.shape).batch
    engine.warmup((4,))
    assert APART in engine.plan_for(x.shape).batch
    assert np.array_equal(engine(x), want)
    assert APART not in cosparse.load(network, threads=2).warmup((4,)).plan_for(x.shape).batch


def test_batches_are_measured_once(network: Path, cache: Path) -> None:
    cosparse.load(network, threads=2).warmup((4,))
    (path,) = cache.glob("*")
    before = path.read_bytes()
    ((name, times),) = json.loads(before)["batches"].items()
    assert name.startswith("small ")
    assert name.endswith("[4, 3, 8, 8]")
    assert all(us > 0 for us in times.values())
    cosparse.load(network, threads=2).warmup((4,))
    assert path.read_bytes() == before


def test_a_batch_beyond_the_caches_is_measured_in_part(cache: Path, tmp_path: Path) -> None:
    """Of 1 Mi floats an image: one a thread tells of any number."""
    path = tmp_path / "large.cosparse"
    artifact.write(path, small_net(size=160))
    engine = cosparse.load(path, threads=2).warmup((5,))
    (stored,) = cache.glob("*")
    (name,) = json.loads(stored.read_text(encoding="utf-8"))["batches"]
    assert name.endswith("[2, 3, 160, 160]")
    assert all("measured: apart" in engine.plan_for((n, 3, 160, 160)).batch for n in (2, 5, 8))


def test_networks_of_one_name_have_times_of_their_own(network: Path, cache: Path, tmp_path: Path) -> None:
    cosparse.load(network, threads=2).warmup((4,))
    artifact.write(tmp_path / "other.cosparse", small_net(channels=24))
    cosparse.load(tmp_path / "other.cosparse", threads=2).warmup((4,))
    (path,) = cache.glob("*")
    assert len(json.loads(path.read_text(encoding="utf-8"))["batches"]) == 2


def test_a_cache_from_before_is_taken(network: Path, cache: Path) -> None:
    cosparse.load(network, threads=2)
    (path,) = cache.glob("*")
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["batches"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert cosparse.load(network, threads=2)._native.measured == 0


@pytest.mark.parametrize("times", [{"apart": 1.0}, {"apart": 0.0, "together": 1.0}, {"apart": "1", "together": 1.0}, 3])
def test_a_cache_with_damaged_times_is_ignored(network: Path, cache: Path, times: object) -> None:
    cosparse.load(network, threads=2).warmup((4,))
    (path,) = cache.glob("*")
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["batches"] = dict.fromkeys(stored["batches"], times)
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="is ignored"):
        cosparse.load(network, threads=2)


def test_dense_twins_have_times_of_their_own(network: Path, cache: Path) -> None:
    """What sparsity is measured against may run apart too, and as its own times say."""
    decide(network, cache, apart=1.0, together=2.0)
    assert APART in cosparse.load(network, threads=2, dense=True).plan_for((4, 3, 8, 8)).batch
    cosparse.load(network, threads=2, dense=True).warmup((4,))
    (path,) = cache.glob("*")
    names = list(json.loads(path.read_text(encoding="utf-8"))["batches"])
    assert sorted(name.endswith(" dense") for name in names) == [False, True]


@pytest.mark.parametrize("options", [{"tune": False}, {"threads": 1}])
def test_engines_that_do_not_measure_run_together(network: Path, options: dict) -> None:
    engine = cosparse.load(network, **{"threads": 2, **options}).warmup((4,))
    assert engine.plan_for((4, 3, 8, 8)).batch == "4 images"


def test_memory_that_is_enough_for_one_way_is_enough(tmp_path: Path) -> None:
    """Threads that run apart hold their activations at the same time."""
    path = tmp_path / "large.cosparse"
    artifact.write(path, small_net(size=256))
    together = cosparse.load(path, threads=2, tune=False)
    x = images(2, 256)
    want = together(x)
    bytes_together = together._native.arena_bytes
    apart = decide(path, tmp_path / "cache", apart=1.0, together=2.0, batch=2)
    assert APART in apart.plan_for(x.shape).batch
    assert np.allclose(apart(x), want, atol=1e-4)
    bytes_apart = apart._native.arena_bytes
    assert bytes_apart > bytes_together
    limited = cosparse.load(path, threads=2, max_memory=(bytes_together + bytes_apart) // 2)
    assert APART not in limited.plan_for(x.shape).batch
    assert np.allclose(limited(x), want, atol=1e-4)


def test_many_callers_of_batches_get_bitwise_the_same_answers() -> None:
    """Who finds the threads busy runs all parts by itself, in the first thread's memory."""
    shared = poisoned(3)
    inputs = [images(batch) for batch in (1, 3, 7, 8)]
    alone = [shared(x) for x in inputs]
    with ThreadPoolExecutor(8) as callers:
        for got, i in [(callers.submit(shared, inputs[i % 4]), i) for i in range(200)]:
            assert np.array_equal(got.result(), alone[i % 4])


def test_profiles_have_every_step() -> None:
    engine = poisoned(2)
    rows = engine.profile(images(5), repeat=3)
    assert [row.name for row in rows] == [row.name for row in engine.plan]
    assert all(row.min_us > 0 for row in rows)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_runs_apart(network: Path) -> None:
    program = """
import os, signal, sys
import numpy, cosparse
engine = cosparse.load(sys.argv[1], threads=3)
x = numpy.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(numpy.float32)
assert "thread of its own" in engine.plan_for(x.shape).batch
want = engine(x)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if all(numpy.array_equal(engine(x), want) for _ in range(20)) else 1)
print(os.waitpid(child, 0)[1])
"""
    done = run(program, network)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stdout + done.stderr
