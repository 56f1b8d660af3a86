"""The engine's face: kinds of arrays, callers' memory, many callers at once, the GIL, options, and every refusal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import ISAS, engine_of, graph_of
from nodes import FakeNode, conv

import cosparse
from cosparse.compress.transforms import basis_cost
from cosparse.engine import Engine, artifact
from cosparse.engine.graph import Graph, Input, Node


def network(width: int = 16, layers: int = 3) -> Graph:
    rng = np.random.default_rng(0)
    parts = [conv(rng, width, 3 if i == 0 else width, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8) for i in range(layers)]
    nodes = [FakeNode(f"c{i}", "conv", ("x" if i == 0 else f"c{i - 1}",), part.attrs, part.tensors) for i, part in enumerate(parts)]
    return graph_of(nodes, {"x": (3, 12, 12)})


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of(network())


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_the_answer_is_of_the_kind_that_was_asked_with(engine: Engine) -> None:
    x = image(2, 3, 12, 12)
    y = engine(x)
    assert isinstance(y, np.ndarray)
    from_torch = engine(torch.from_numpy(x))
    assert isinstance(from_torch, torch.Tensor)
    assert np.array_equal(from_torch.numpy(), y)
    assert np.array_equal(engine(torch.from_numpy(x).requires_grad_()).numpy(), y)
    assert np.array_equal(engine(OnlyDlpack(x)), y)


class OnlyDlpack:
    """An array of a library that cosparse does not know."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_strided_inputs_are_read_as_they_are(engine: Engine) -> None:
    x = image(2, 12, 12, 3).transpose(0, 3, 1, 2)
    assert np.array_equal(engine(x), engine(np.ascontiguousarray(x)))


def test_results_do_not_share_memory(engine: Engine) -> None:
    first = engine(image(1, 3, 12, 12))
    kept = first.copy()
    engine(-image(1, 3, 12, 12))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("make", [np.empty, torch.empty])
def test_the_callers_memory_is_written_and_returned(engine: Engine, make: Callable) -> None:
    x = image(2, 3, 12, 12)
    buffer = make((2, 16, 12, 12), dtype=np.float32 if make is np.empty else torch.float32)
    assert engine(x, out=buffer) is buffer
    assert np.array_equal(np.asarray(buffer), engine(x))


def test_memory_that_cannot_be_written_is_refused(engine: Engine) -> None:
    x = image(1, 3, 12, 12)
    with pytest.raises(cosparse.ShapeError, match=r"out for output 'c2'.*expected .*16.*got .*15"):
        engine(x, out=np.empty((1, 15, 12, 12), np.float32))
    with pytest.raises(cosparse.ShapeError, match="contiguous float32"):
        engine(x, out=np.empty((1, 16, 12, 12), np.float64))
    with pytest.raises(cosparse.ShapeError, match="contiguous float32"):
        engine(x, out=np.empty((1, 12, 12, 16), np.float32).transpose(0, 3, 1, 2))
    frozen = np.empty((1, 16, 12, 12), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(cosparse.ShapeError, match="writable"):
        engine(x, out=frozen)


X = torch.zeros(1, 3, 12, 12)
STRANGE = {
    "float16": (X.half(), r"input 'x': expected dtype float32, got float16; convert it: x.float\(\)"),
    "bfloat16": (
        X.bfloat16(),
        r"input 'x': expected a dense array in main memory, float32, got torch.bfloat16 .*; convert it: x.float\(\)",
    ),
    "sparse": (X.to_sparse(), r"got torch.float32 torch.sparse_coo cpu .*; convert it: x.to_dense\(\).float\(\)"),
    "meta": (X.to("meta"), r"got torch.float32 torch.strided meta .*; convert it: x has no values"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_tensors_that_numpy_cannot_see_are_refused_with_what_converts_them(engine: Engine, kind: str) -> None:
    tensor, text = STRANGE[kind]
    with pytest.raises(cosparse.Error, match=text):
        engine(tensor)


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ((np.empty((1, 16, 12, 12), np.float32),), "expected numpy, torch or an array with DLPack, got tuple"),
        ("memory", "expected numpy, torch or an array with DLPack, got str"),
        (
            torch.empty(1, 16, 12, 12, requires_grad=True),
            r"expected a tensor without gradients, got one that requires them; pass out.detach\(\)",
        ),
        (torch.empty(1, 16, 12, 12, dtype=torch.bfloat16), r"got torch.bfloat16 .*; numpy.empty\(shape, numpy.float32\)"),
    ],
    ids=["tuple", "str", "gradient", "bfloat16"],
)
def test_what_is_no_memory_for_an_answer_is_refused(engine: Engine, out: object, text: str) -> None:
    with pytest.raises(cosparse.Error, match=f"out for output 'c2': .*{text}"):
        engine(image(1, 3, 12, 12), out=out)


def test_several_outputs_want_a_buffer_each() -> None:
    both = engine_of(replace(network(), outputs=("c0", "c2")))
    buffers = [np.empty((1, 16, 12, 12), np.float32) for _ in range(2)]
    assert both(image(1, 3, 12, 12), out=buffers)[1] is buffers[1]
    surplus = [*buffers, np.empty_like(buffers[0])]
    for out, got in ((buffers[0], "ndarray"), ([], "0 of them"), (buffers[:1], "1 of them"), (surplus, "3 of them"), (5, "int")):
        with pytest.raises(cosparse.Error, match=f"out: expected a sequence of 2 arrays, one for each output, got {got}"):
            both(image(1, 3, 12, 12), out=out)


def two_outputs(batch: int) -> tuple[Engine, np.ndarray]:
    """ReLU and sigmoid of the same input."""
    kinds = {"a": "relu", "b": "sigmoid"}
    nodes = tuple(Node(name, "activation", ("x",), {"kind": kind, "alpha": 0.0, "beta": 0.0}) for name, kind in kinds.items())
    return engine_of(Graph("two", (Input("x", (None, 4, 8, 8)),), ("a", "b"), nodes)), image(batch, 4, 8, 8)


def test_memory_that_overlaps_is_refused() -> None:
    engine, x = two_outputs(3)
    memory = np.zeros((8, 4, 8, 8), np.float32)
    memory[2:5] = x
    kept = memory.copy()
    for about, out in (
        ("a", (memory[2:5], memory[5:8])),
        ("a", (memory[0:3], memory[5:8])),
        ("b", (memory[5:8], memory[4:7])),
        ("b", (np.empty_like(x), memory[1:4])),
    ):
        message = f"out for output '{about}': expected memory of its own, got memory of input 'x'; pass another array, or none"
        with pytest.raises(cosparse.Error, match=message):
            engine(memory[2:5], out=out)
        assert np.array_equal(memory, kept)
    for shared in ([kept[:3], kept[:3]], [kept[:3], kept[2:5]]):
        with pytest.raises(cosparse.Error, match=r"out for output '[ab]': expected memory of its own, got memory of out for output '[ab]'"):
            engine(x, out=shared)


def test_memory_side_by_side_and_inputs_that_are_one_array_are_taken() -> None:
    engine, x = two_outputs(2)
    memory = np.zeros((6, 4, 8, 8), np.float32)
    memory[2:4] = x
    engine(memory[2:4], out=(memory[:2], memory[4:]))
    assert np.array_equal(memory, np.concatenate([engine(x)[0], x, engine(x)[1]]))
    both = Graph("sum", tuple(Input(name, (None, 4, 8, 8)) for name in "xy"), ("s",), (Node("s", "add", ("x", "y"), {}),))
    assert np.array_equal(engine_of(both)(x, x, out=np.empty_like(x)), x + x)


def test_inputs_that_do_not_fit_are_refused_by_name(engine: Engine) -> None:
    with pytest.raises(cosparse.Error, match="1 inputs"):
        engine()
    with pytest.raises(cosparse.Error, match=r"input 'x'.*float32.*float64.*astype"):
        engine(np.zeros((1, 3, 12, 12)))
    with pytest.raises(cosparse.Error, match=r"input 'x'.*list"):
        engine([1.0])
    with pytest.raises(cosparse.ShapeError, match="x"):
        engine(image(1, 4, 12, 12))
    with pytest.raises(cosparse.ShapeError, match=r"4 axes.*3 axes"):
        engine(image(3, 12, 12))
    with pytest.raises(cosparse.ShapeError):
        engine(image(0, 3, 12, 12))


def test_an_engine_survives_a_refused_call(engine: Engine) -> None:
    want = engine(image(1, 3, 12, 12))
    with pytest.raises(cosparse.ShapeError):
        engine(image(1, 5, 12, 12))
    assert np.array_equal(engine(image(1, 3, 12, 12)), want)


@pytest.mark.parametrize("isa", ISAS)
def test_many_callers_get_bitwise_the_same_answers(isa: str) -> None:
    """Different batches at once, so that contexts change hands and grow."""
    shared = engine_of(network(), isa=isa)
    inputs = [image(batch, 3, 12, 12) for batch in (1, 2, 5)]
    alone = [shared(x) for x in inputs]
    with ThreadPoolExecutor(8) as callers:
        for got, i in [(callers.submit(shared, inputs[i % 3]), i) for i in range(150)]:
            assert np.array_equal(got.result(), alone[i % 3])


def test_the_gil_is_free_while_the_engine_runs() -> None:
    """A Python thread counts on during a run that takes a while: it would stand still if the run held the lock."""
    heavy = engine_of(network(width=64, layers=6), threads=1)
    x = image(64, 3, 12, 12)
    heavy(x)
    counts: list[float] = []
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            counts.append(time.perf_counter())
            time.sleep(0.0005)

    counter = threading.Thread(target=count)
    counter.start()
    spans = []
    for _ in range(5):
        start = time.perf_counter()
        heavy(x)
        spans.append((start, time.perf_counter()))
    done.set()
    counter.join()
    inside = sum(1 for start, end in spans for t in counts if start + 0.1 * (end - start) < t < end - 0.1 * (end - start))
    assert inside > 0


def test_sizes_other_than_the_example(engine: Engine) -> None:
    small, large = engine(image(1, 3, 5, 7)), engine(image(3, 3, 40, 33))
    assert small.shape == (1, 16, 5, 7)
    assert large.shape == (3, 16, 40, 33)


def test_graphs_that_do_little() -> None:
    """What the format allows at its edges: no nodes, an input as output, one output twice, a dead node, an input that nobody reads."""
    x, z = image(2, 3, 5, 7), image(2, 4)
    nothing = engine_of(Graph("nothing", (Input("x", (None, 3, 5, 7)),), ("x",), ()))
    assert np.array_equal(nothing(x), x)
    relu = FakeNode("relu", "activation", ("x",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})
    dead = FakeNode("dead", "mean", ("x",), {"axes": [2, 3], "keep": 0})
    first, second, third = engine_of(graph_of([relu, dead], {"x": (3, 5, 7), "z": (4,)}, outputs=("relu", "relu", "z")))(x, z)
    assert np.array_equal(first, np.maximum(x, 0))
    assert np.array_equal(second, first)
    assert np.array_equal(third, z)


def test_specs_plan_profile_and_warmup(tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", network())
    engine = cosparse.load(tmp_path / "net.cosparse", threads=1)
    assert not engine.ready
    assert engine.warmup((1, 4)).ready
    assert [(i.name, i.shape, i.dtype) for i in engine.inputs] == [("x", (None, 3, 12, 12), "float32")]
    assert [(o.name, o.shape, o.dtype) for o in engine.outputs] == [("c2", (None, 16, 12, 12), "float32")]
    table = str(engine.plan)
    assert all(name in table for name in ("c0", "c1", "c2", "total", engine.isa))
    rows = engine.profile(image(1, 3, 12, 12), repeat=3)
    assert [row.name for row in rows] == ["c0", "c1", "c2"]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    with pytest.raises(cosparse.Error, match=r"network 'test': expected 1 inputs \(x\), got 0"):
        engine.profile()
    with pytest.raises(cosparse.Error, match="repeat: expected a whole number of 32 bits, got 4294967296"):
        engine.profile(image(1, 3, 12, 12), repeat=2**32)
    assert engine.metadata["name"] == "test"
    assert repr(engine) == f"<cosparse.Engine test: cpu, float32, {engine.isa}, 1 threads>"


@pytest.mark.parametrize("tune", [False, True])
def test_sizes_that_are_none_are_refused_by_warmup(tune: bool, tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", network(layers=1))
    engine = cosparse.load(tmp_path / "net.cosparse", threads=1, tune=tune)
    for batch in (-1, 0, 2**40):
        with pytest.raises(cosparse.ShapeError, match=f"input 'x': expected 1 to 2147483647 elements, got .{batch}, 3, 12, 12"):
            engine.warmup((batch,))
    with pytest.raises(cosparse.ShapeError, match="shape: expected sizes of at most 64 bits, got "):
        engine.warmup((2**63,))
    assert not engine.ready


@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 3), (1, 2)), ((7, 7), (1, 1)), ((1, 7), (1, 1)), ((1, 1), (1, 1))]
)
def test_the_plan_counts_as_compression_does(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    node = conv(np.random.default_rng(0), 32, 4, kernel, stride=stride, transform="dct", block=8, density=0.1)
    row = engine_of(graph_of([node], {"x": (4, 16, 16)})).plan.rows[0]
    pixels = ((16 - kernel[0]) // stride[0] + 1) * ((16 - kernel[1]) // stride[1] + 1)
    assert row.flops == node.tensors["values"].size * pixels
    assert row.dense_flops == 32 * 4 * kernel[0] * kernel[1] * pixels
    used = len(set(node.tensors["columns"] // (kernel[0] * kernel[1])))
    assert row.basis_flops == pytest.approx(basis_cost("dct", kernel, stride) * used * pixels)


def test_options_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.cosparse"
    artifact.write(path, network())
    with pytest.raises(cosparse.UnsupportedError, match="cuda"):
        cosparse.load(path, device="cuda")
    for device in ("cuda:x", "cuda:", "gpu", None):
        with pytest.raises(cosparse.UnsupportedError, match=f"device: expected cpu, cuda or cuda:N, got {device!r}"):
            cosparse.load(path, device=device)
    for option in ({"threads": 2**31}, {"tile": -(2**40)}, {"contexts": 2**31}, {"cores": [2**31]}):
        with pytest.raises(cosparse.Error, match=f"{next(iter(option))}: expected a whole number of 32 bits, got "):
            cosparse.load(path, **option)
    with pytest.raises(cosparse.Error, match="max_memory: expected a whole number of 64 bits, got 9223372036854775808"):
        cosparse.load(path, max_memory=2**63)
    with pytest.raises(cosparse.UnsupportedError, match=r"dtype: .*, got .udcff"):
        cosparse.load(path, dtype="\udcff")
    with pytest.raises(cosparse.UnsupportedError, match="float16"):
        cosparse.load(path, dtype="float16")
    with pytest.raises(cosparse.Error, match="threads"):
        cosparse.load(path, threads=0)
    with pytest.raises(cosparse.Error, match=r"isa.*sse9"):
        cosparse.load(path, isa="sse9")
    with pytest.raises(cosparse.Error, match="kernel"):
        cosparse.load(path, tile=-3)(image(1, 3, 12, 12))
    monkeypatch.setenv("COSPARSE_ISA", "scalar")
    assert cosparse.load(path).isa == "scalar"
    assert cosparse.load(path, isa=ISAS[-1]).isa == ISAS[-1]
    monkeypatch.setenv("COSPARSE_ISA", "mmx")
    with pytest.raises(cosparse.Error, match=r"COSPARSE_ISA.*mmx"):
        cosparse.load(path)
    monkeypatch.delenv("COSPARSE_ISA")
    monkeypatch.setenv("COSPARSE_THREADS", "3")
    assert cosparse.load(path).threads == 3
    monkeypatch.setenv("COSPARSE_THREADS", "many")
    with pytest.raises(cosparse.Error, match="COSPARSE_THREADS"):
        cosparse.load(path)
    with pytest.raises(cosparse.ArtifactError, match="nowhere"):
        cosparse.load(tmp_path / "nowhere.cosparse")


def test_an_idle_engine_burns_no_processor_time(engine: Engine) -> None:
    engine(image(1, 3, 12, 12))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
