"""Convolutions that run in blocks with the step that reads their planes (csrc/pair.h): strips, blocks, images, ends of planes.

Weights and inputs are small whole numbers, so that sums are exact in any order and every run must give the reference's very floats. A
network that also returns the value between runs step by step; int8 is compared with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chains import add, clip, layer
from engines import ISAS, check, engine_of, graph_of, isas_of
from nodes import FakeNode, conv

from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.kernels import reference

# csrc/step_pair.cpp: below the first no pair is made, below the second only where a filter has at most 8 coefficients, above at most 64.
LEAST_VALUE, LARGE_VALUE = 192 * 1024, 1024 * 1024
NUMBERS = [("float32", isa) for isa in ISAS] + [("bfloat16", isa) for isa in isas_of("bfloat16")]
RNG = np.random.default_rng


def reader(op: str, source: str, channels: int, kernel: tuple[int, int], **options: Any) -> FakeNode:
    """A depthwise conv of whole numbers, or a max pool."""
    if op == "conv":
        part = conv(RNG(9), channels, channels, kernel, groups=channels, **options)
        values = RNG(10).integers(-2, 2, part.tensors["values"].shape, endpoint=True).astype(np.float32)
        return FakeNode("r0", "conv", (source,), part.attrs, part.tensors | {"values": values, "bias": np.round(part.tensors["bias"])})
    attrs = {"kernel": list(kernel), "stride": [1, 1], "dilation": [1, 1], "pad": [0, 0, 0, 0], "ceil": 0}
    return FakeNode("r0", "max_pool", (source,), attrs | {key: list(value) for key, value in options.items()})


def pair(writer: Sequence[FakeNode], read: FakeNode) -> list[FakeNode]:
    return [*writer, clip("w", writer[-1].name, -3, 4), replace(read, inputs=("w",)), clip("r", "r0", -9, 8)]


def images(batch: int, channels: int, size: tuple[int, int]) -> np.ndarray:
    return RNG(5).integers(-2, 2, (batch, channels, *size), endpoint=True).astype(np.float32)


def paired(engine: Engine, x: np.ndarray) -> bool:
    return any("in blocks with" in row.why for row in engine.plan_for(x.shape))


def assert_pair(nodes: Sequence[FakeNode], x: np.ndarray, dtype: str, isa: str, threads: Sequence[int] = (1, 2, 5)) -> None:
    inputs = {"x": x.shape[1:]}
    graph, apart = graph_of(nodes, inputs), graph_of(nodes, inputs, ["r", "w"])
    calibration = (x,) if dtype == "int8" else ()
    single = engine_of(apart, isa=isa, dtype=dtype, calibration=calibration)
    assert not paired(single, x)
    want = single(x)[0]
    if dtype != "int8":
        np.testing.assert_array_equal(want, reference.run(graph, x)[0])
    for count in threads:
        engine = engine_of(graph, isa=isa, dtype=dtype, threads=count, calibration=calibration)
        assert paired(engine, x)
        np.testing.assert_array_equal(engine(x), want)


def tiled(filters: int = 20) -> list[FakeNode]:
    """An expansion of what another convolution makes: it reads tiles where they lie."""
    return [layer("s", "x", 6, 3), layer("e", "s", filters, 6, keep=0.4, seed=2)]


READERS = {
    "3x3": ("conv", (3, 3), {"pad": (1, 1, 1, 1)}),
    "3x3 stride 2": ("conv", (3, 3), {"pad": (1, 1, 1, 1), "stride": (2, 2)}),
    "3x3 stride 2, other pads": ("conv", (3, 3), {"pad": (0, 0, 1, 1), "stride": (2, 2)}),
    "5x5": ("conv", (5, 5), {"pad": (2, 2, 2, 2)}),
    "5x5 stride 2": ("conv", (5, 5), {"pad": (2, 2, 2, 2), "stride": (2, 2)}),
    "dilated": ("conv", (3, 3), {"pad": (3, 2, 3, 2), "dilation": (3, 2)}),
    "strides": ("conv", (2, 3), {"pad": (0, 2, 1, 0), "stride": (1, 3)}),
    "rows of padding": ("conv", (3, 3), {"pad": (7, 0, 6, 1)}),
    "1x1 stride 3": ("conv", (1, 1), {"stride": (3, 3)}),
    "pool": ("max_pool", (3, 3), {"pad": (1, 1, 1, 1), "stride": (2, 2)}),
    "pool 2x2": ("max_pool", (2, 2), {"stride": (2, 2)}),
    "pool at stride 1": ("max_pool", (3, 2), {"pad": (1, 0, 1, 1), "dilation": (1, 2)}),
}


@pytest.mark.parametrize(("dtype", "isa"), NUMBERS)
@pytest.mark.parametrize("kind", READERS)
def test_readers(kind: str, dtype: str, isa: str) -> None:
    op, kernel, options = READERS[kind]
    for size, batch in (((53, 67), 1), ((48, 56), 2), ((29, 31), 5)):
        assert_pair(pair(tiled(), reader(op, "w", 20, kernel, **options)), images(batch, 3, size), dtype, isa)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_int8(isa: str) -> None:
    for kind in ("3x3", "3x3 stride 2", "pool"):
        op, kernel, options = READERS[kind]
        assert_pair(pair(tiled(), reader(op, "w", 20, kernel, **options)), images(2, 3, (48, 57)), "int8", isa)


WRITERS = {
    "1x1 of planes": (3, [layer("e", "x", 24, 3)]),
    "1x1 at stride 2": (3, [layer("e", "x", 24, 3, stride=(2, 2))]),
    "1x1 at stride 2 of tiles": (3, [layer("s", "x", 6, 3), layer("e", "s", 24, 6, stride=(2, 2))]),
    "first layer": (3, [layer("e", "x", 24, 3, 3, stride=(2, 2))]),
    "large kernel": (1, [layer("e", "x", 24, 1, 7, stride=(2, 2))]),
    "all-zero block rows": (12, [layer("e", "x", 24, 12, 3, block=8, density=0.2, keep=0.9)]),
    "blocks of two": (4, [layer("e", "x", 22, 4, 3, block=2, density=0.3)]),
    "groups": (12, [layer("e", "x", 24, 12, 3, groups=3)]),
    "one filter more": (3, [layer("e", "x", 25, 3)]),
}


@pytest.mark.parametrize(("dtype", "isa"), NUMBERS)
@pytest.mark.parametrize("kind", WRITERS)
def test_writers(kind: str, dtype: str, isa: str) -> None:
    """Maps read in place, copied, or made by a basis step; planes of several strips; rows of whole groups, and others."""
    channels, writer = WRITERS[kind]
    down = writer[-1].attrs["stride"][0]
    read = reader("conv", "w", writer[-1].attrs["filters"], (3, 3), pad=(1, 1, 1, 1), stride=(2, 2))
    for height, width in ((113, 144), (131, 115)):
        assert_pair(pair(writer, read), images(1, channels, (height * down, width * down)), dtype, isa, (1, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_transformed_weights(isa: str) -> None:
    """The basis step of a DCT, in strips that overlap."""
    expand = conv(RNG(1), 24, 10, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8, density=0.2)
    nodes = [FakeNode("e", "conv", ("x",), expand.attrs, expand.tensors), reader("conv", "e", 24, (3, 3), pad=(1, 1, 1, 1))]
    x = RNG(2).normal(size=(1, 10, 118, 107)).astype(np.float32)
    graph = graph_of(nodes, {"x": x.shape[1:]})
    engines = [engine_of(graph, isa=isa, threads=count) for count in (1, 2, 5)]
    assert all(paired(engine, x) for engine in engines)
    first, *others = (engine(x) for engine in engines)
    for other in others:
        np.testing.assert_array_equal(other, first)
    gain = float(np.abs(expand.tensors["values"]).sum()) / 24 * 9 * 18
    check(graph, [x], terms=90 * 3 + 20, gain=gain, isa=isa)


def test_dense_twin_and_other_sizes() -> None:
    """Each size has a plan of its own, with or without pairs."""
    nodes = pair(tiled(), reader("conv", "w", 20, (3, 3), pad=(1, 1, 1, 1)))
    graph = graph_of(nodes, {"x": (3, 16, 16)})
    graph = replace(graph, inputs=(replace(graph.inputs[0], sizes=((8, 200), (8, 200))),))
    for dense in (False, True):
        engine = Engine(_C.parse_artifact(artifact.to_bytes(graph)), threads=2, dense=dense, poison=True)
        for size in ((16, 16), (64, 64), (9, 200), (200, 47)):
            x = images(1, 3, size)
            assert paired(engine, x) == (20 * size[0] * size[1] * 4 >= LEAST_VALUE)
            np.testing.assert_array_equal(engine(x), reference.run(graph, x)[0])


def test_what_is_no_pair() -> None:
    x = images(1, 3, (64, 64))
    dw = reader("conv", "w", 20, (3, 3), pad=(1, 1, 1, 1))
    assert paired(engine_of(graph_of(pair(tiled(), dw), {"x": x.shape[1:]})), x)
    twice = [*pair(tiled(), dw), layer("again", "w", 4, 20), layer("both", "r", 4, 20), add("sum", "again", "both")]
    residual = [layer("s", "x", 20, 3), layer("e", "s", 20, 20, keep=0.2), add("a", "e", "s"), replace(dw, inputs=("a",))]
    several = conv(RNG(0), 40, 20, (3, 3), pad=(1, 1, 1, 1), groups=20)
    for nodes in (
        twice,
        residual,
        [*tiled(), FakeNode("r", "conv", ("e",), several.attrs, several.tensors)],
        pair([layer("s", "x", 9, 3), layer("e", "s", 20, 9)], dw),  # more columns than so small a value is worth
        [*tiled(), layer("r", "e", 20, 20, 3)],
    ):
        assert not paired(engine_of(graph_of(nodes, {"x": x.shape[1:]})), x)


def test_the_value_between_takes_no_memory() -> None:
    x = images(1, 3, (128, 128))
    nodes = pair(tiled(64), reader("conv", "w", 64, (3, 3), pad=(1, 1, 1, 1), stride=(2, 2)))
    together, apart = (engine_of(graph_of(nodes, {"x": x.shape[1:]}, outputs), threads=1) for outputs in (["r"], ["r", "w"]))
    together(x), apart(x)
    assert together.arena_bytes < apart.arena_bytes - 0.75 * 64 * 128 * 128 * 4


def test_plan_and_profile() -> None:
    """Counts stay with their layers; the time of both stands in the first row."""
    x = images(1, 3, (64, 64))
    nodes = pair(tiled(), reader("conv", "w", 20, (3, 3), pad=(1, 1, 1, 1)))
    together, apart = (engine_of(graph_of(nodes, {"x": x.shape[1:]}, outputs)) for outputs in (["r"], ["r", "w"]))
    rows = list(together.plan_for(x.shape))
    assert [row.name for row in rows] == ["s", "e", "r0"]
    assert rows[2].why == "depthwise; in blocks with 'e' +clip"
    for row, other in zip(rows, apart.plan_for(x.shape), strict=True):
        assert (row.flops, row.dense_flops, row.bytes, row.density) == (other.flops, other.dense_flops, other.bytes, other.density)
    times = together.profile(x, repeat=3)
    assert times[1].us > 0
    assert (times[2].us, times[2].min_us, times[2].share, times[2].gflops, times[2].dense_gflops) == (0, 0, 0, 0, 0)


def test_counts_and_times_of_a_batch_in_parts_stay_with_their_layers() -> None:
    """Five images run as four and one. Four images of 'a' are large enough for a pair with its reader, one is not: its place differs."""
    nodes = [layer("a", "x", 8, 8, seed=1), layer("b", "x", 100, 8, 3, seed=2)]
    for name in ("a", "b"):
        window = {"kernel": [2, 2], "stride": [2, 2], "dilation": [1, 1], "pad": [0, 0, 0, 0], "ceil": 0}
        nodes.append(FakeNode(f"{name}_pool", "max_pool", (name,), window))
    engine = engine_of(graph_of(nodes, {"x": (8, 64, 64)}, ["a_pool", "b_pool"]), threads=1)
    one, five = engine.plan_for((1, 8, 64, 64)), engine.plan_for((5, 8, 64, 64))
    assert "4 images; 1 image" in str(five.batch)
    assert [row.name for row in one] != [row.name for row in five]
    flops = {row.name: row.flops for row in one}
    assert {row.name: row.flops for row in five} == {name: 5 * count for name, count in flops.items()}
    times = {row.name: row.us for row in engine.profile(images(5, 8, (64, 64)), repeat=3)}
    assert times["b"] > times["a"] > 0
