"""What loading leaves behind: an engine that took an artifact over has its weights once, and nobody can read the freed ones."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import engine_of, graph_of
from nodes import FakeNode, conv, normal
from small_net import small_net

import cosparse
from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.engine.graph import Graph, Input, Node


def parsed(graph: Graph) -> _C.Artifact:
    return _C.parse_artifact(artifact.to_bytes(graph))


def image(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_loaded_engine_answers_as_one_that_shares_its_artifact(tmp_path: Path, threads: int, dtype: str) -> None:
    path = tmp_path / "net.cosparse"
    artifact.write(path, small_net())
    samples = image(2) if dtype == "int8" else None
    shared = Engine(_C.read_artifact(path), threads=threads, dtype=dtype, calibration=[] if samples is None else [[samples]])
    loaded = cosparse.load(path, threads=threads, dtype=dtype, calibration=samples, tune=False)
    for batch in (1, 3, 2):  # each makes a plan, after the weights were given up
        assert np.array_equal(loaded(image(batch)), shared(image(batch)))
    assert loaded.weight_bytes == shared.weight_bytes


def test_an_artifact_that_was_taken_over_is_a_description() -> None:
    content = parsed(small_net())
    Engine(content, threads=1, take_over=True)
    refusal = r"artifact 'small': expected one that still has its tensors, got one that an engine has taken over"
    with pytest.raises(cosparse.Error, match=refusal):
        content.tensor("stem.values")
    for take_over in (True, False):
        with pytest.raises(cosparse.Error, match=refusal):
            Engine(content, threads=1, take_over=take_over)
    assert content.name == "small"
    assert "stem.values" in content.tensors
    assert _C.infer_shapes(content, [(2, 3, 8, 8)])["linear"] == (2, 10)


def test_an_engine_that_was_not_made_takes_nothing() -> None:
    content = parsed(small_net())
    with pytest.raises(cosparse.Error, match="threads: expected 1 to 1024, got 0"):
        Engine(content, threads=0, take_over=True)
    Engine(content, threads=1, take_over=True)(image())


def test_what_an_engine_shares_cannot_be_taken_over() -> None:
    content = parsed(small_net())
    engine = Engine(content, threads=1)
    with pytest.raises(cosparse.Error, match="one that no other engine reads, got one that is shared"):
        Engine(content, threads=1, take_over=True)
    assert content.tensor("stem.values").size  # a refusal takes nothing
    want = engine(image())
    del engine
    gc.collect()
    assert np.array_equal(Engine(content, threads=1, take_over=True)(image()), want)


def test_arrays_made_before_keep_their_values() -> None:
    graph = small_net()
    content = parsed(graph)
    arrays = {name: content.tensor(name) for name in content.tensors}
    Engine(content, threads=2, take_over=True)
    del content
    gc.collect()
    for node in graph.nodes:
        for role, values in node.tensors.items():
            assert np.array_equal(arrays[f"{node.name}.{role}"], values)


def test_tensors_that_other_nodes_read_stay() -> None:
    """One array is two layers' values, another one a layer's bias and an affine's shift, which every new plan reads."""
    rng = np.random.default_rng(0)
    attrs = {"filters": 8, "channels": 8, "transform": "identity", "format": "dense", "block": 1}
    values, shift = normal(rng, 8, 8), normal(rng, 8)
    nodes = (
        Node("first", "linear", ("x",), attrs, {"values": values, "bias": shift}),
        Node("affine", "affine", ("first",), {}, {"scale": normal(rng, 8), "shift": shift}),
        Node("second", "linear", ("affine",), attrs, {"values": values}),
    )
    graph = Graph("shared", (Input("x", (None, 8)),), ("second",), nodes)
    own, sharing = Engine(parsed(graph), threads=2, take_over=True), Engine(parsed(graph), threads=1)
    for batch in (1, 5):
        x = normal(rng, batch, 8)
        assert np.array_equal(own(x), sharing(x))


def test_arena_bytes_are_those_of_the_largest_call() -> None:
    engine = Engine(parsed(small_net()), threads=1)
    assert engine.arena_bytes == 0
    engine(image())
    one = engine.arena_bytes
    assert one >= 2 * 16 * 8 * 8 * 4  # the input of a convolution and its output
    engine(image(4))
    four = engine.arena_bytes
    assert four > one
    engine(image())
    assert engine.arena_bytes == four


@pytest.mark.parametrize(("late", "alive"), [(False, 2), (True, 3)])
def test_a_sum_lies_where_its_residual_lay(late: bool, alive: int) -> None:
    """x -> a -> b -> c + a -> e, and in the end a once more: then a is alive beside the sum."""
    part, side = conv(np.random.default_rng(0), 64, 64, (1, 1)), 32
    layers = [FakeNode(name, "conv", (source,), part.attrs, part.tensors) for name, source in ("ax", "ba", "cb", "ed")]
    nodes = [*layers[:3], FakeNode("d", "add", ("c", "a")), layers[3]]
    if late:
        nodes.append(FakeNode("f", "add", ("e", "a")))
    engine = engine_of(graph_of(nodes, {"x": (64, side, side)}), threads=1)
    engine(np.zeros((1, 64, side, side), np.float32))
    value = 64 * side * side * 4
    assert alive * value <= engine.arena_bytes < (alive + 1) * value


def status(field: str) -> int:
    """Bytes, from the process's own accounts."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_weights_lie_in_memory_once(tmp_path: Path) -> None:
    """16 layers of 2 MiB. Packed they take 9/8 of it (an index to 8 values); two threads hold a layer each twice for a while."""
    path, width = tmp_path / "wide.cosparse", 16
    attrs = {"filters": 1024, "channels": 512, "transform": "identity", "format": "dense", "block": 1}
    values = [np.full((1024, 512), 1 + i, np.float32) for i in range(width)]
    nodes = [Node(f"linear{i}", "linear", ("x",), attrs, {"values": v}) for i, v in enumerate(values)]
    artifact.write(path, Graph("wide", (Input("x", (None, 512)),), (nodes[-1].name,), tuple(nodes)))
    cosparse.load(path, threads=2)(np.ones((1, 512), np.float32))  # measures the layers; the next load finds them in the cache
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = status("VmRSS")
    engine = cosparse.load(path, threads=2)
    after, peak = status("VmRSS") - before, status("VmHWM") - before
    stored = path.stat().st_size
    assert engine.weight_bytes > stored
    assert after < 1.35 * stored
    assert peak < 1.5 * stored


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_measuring_holds_a_few_layers_in_another_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """14 kinds of layer, dense 28 MB (and as much again in the spatial form), stored 3 MB: what is timed at once takes 8 MiB."""
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "cold"))
    rng, options = np.random.default_rng(0), {"pad": (1, 1, 1, 1), "transform": "dct", "block": 8, "density": 0.1}
    made = [conv(rng, 264 - 8 * i, 256, (3, 3), **options) for i in range(14)]  # type: ignore[arg-type]
    nodes = [FakeNode(f"c{i}", "conv", ("x",), node.attrs, node.tensors) for i, node in enumerate(made)]
    path = tmp_path / "kinds.cosparse"
    artifact.write(path, graph_of(nodes, {"x": (256, 4, 4)}))
    del made, nodes
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    engine = cosparse.load(path, threads=1)
    assert engine._native.measured == 14
    assert all("dense" in row.why for row in engine.plan if row.op == "conv")
    assert status("VmHWM") - before < 28e6
