"""Rows of four groups of pixels between 1x1 convolutions of int8 (AVX512-VNNI): written, read, added and picked out of, whatever the plane.

The set without them, AVX2's, makes the same numbers: every answer must be the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from chains import add, clip
from engines import engine_of, graph_of, isas_of
from nodes import FakeNode, conv, kept_blocks, normal
from test_engine_pool_steps import pool, relu

from cosparse.engine.graph import Graph

RNG = np.random.default_rng
WIDE = "avx512_vnni"
pytestmark = pytest.mark.skipif(not {"avx2", WIDE} <= set(isas_of("int8")), reason="needs AVX2 and AVX512-VNNI")
CHANNELS = 5
# One group less than a row, one row with its last pixel alone, whole rows, and rows that leave one to three groups.
SIZES = [(6, 8), (7, 7), (8, 8), (5, 13), (1, 79), (9, 9), (10, 11), (8, 16), (14, 14), (11, 37), (28, 28)]

Chain = Callable[[], list[FakeNode]]


def layer(name: str, source: str, filters: int, channels: int, kernel: int = 1, *, seed: int, **options: object) -> FakeNode:
    """Random blocks of which no row is empty; filter 3 of every other layer is."""
    options = {"block": 8, "density": 0.4} | options
    density, block = options["density"], options["block"]
    part = conv(RNG(seed), filters, channels, (kernel, kernel), pad=(kernel // 2,) * 4, **options)  # type: ignore[arg-type]
    keep = RNG(seed).random((-(-filters // block), channels * kernel**2)) < density  # type: ignore[operator]
    keep[:, seed % keep.shape[1]] = True
    tensors = part.tensors | kept_blocks(RNG(seed), filters, keep, block)  # type: ignore[arg-type]
    if seed % 2:
        tensors["values"][: int(tensors["rows"][1]), 3] = 0
    return FakeNode(name, "conv", (source,), part.attrs, tensors)


def bottleneck() -> list[FakeNode]:
    """Tiles to tiles, a residual, the last block rows partial; the end in planes of floats."""
    return [
        layer("a0", "x", 36, CHANNELS, seed=1),
        relu("a", "a0"),
        layer("b0", "a", 19, 36, seed=2),
        relu("b", "b0"),
        layer("c0", "b", 36, 19, seed=3),
        add("c1", "c0", "a"),
        relu("c", "c1"),
        layer("d", "c", 20, 36, seed=4),
    ]


def of_both_signs() -> list[FakeNode]:
    """Nothing between the layers, so that zero is a number in the middle; what is added is read by nobody else."""
    return [
        layer("a", "x", 24, CHANNELS, seed=5),
        layer("b0", "a", 17, 24, seed=6),
        layer("b1", "a", 17, 24, seed=7),
        add("b", "b0", "b1"),
        layer("c", "b", 9, 17, seed=8),
    ]


def other_ends() -> list[FakeNode]:
    """Activations that no multiplication and addition makes steps of, and that all sets compute alike."""
    return [
        layer("a0", "x", 24, CHANNELS, seed=9),
        clip("a", "a0", -0.5, 0.7),
        layer("b0", "a", 24, 24, seed=10),
        FakeNode("b", "activation", ("b0",), {"kind": "leaky_relu", "alpha": 0.1, "beta": 0.0}),
        layer("c0", "b", 24, 24, seed=11),
        add("c1", "c0", "a"),
        FakeNode("c", "activation", ("c1",), {"kind": "abs", "alpha": 0.0, "beta": 0.0}),
        layer("d", "c", 8, 24, seed=12),
    ]


def strided() -> list[FakeNode]:
    """One value in rows that a layer reads with a stride, another without; what comes of it is added."""
    return [
        layer("a0", "x", 24, CHANNELS, seed=13),
        relu("a", "a0"),
        layer("b0", "a", 16, 24, seed=14),
        relu("b", "b0"),
        layer("c0", "b", 32, 16, seed=15, stride=(2, 2)),
        layer("d0", "a", 32, 24, seed=16, stride=(2, 2)),
        add("e0", "c0", "d0"),
        relu("e", "e0"),
        layer("f", "e", 8, 32, seed=17),
    ]


def other_blocks() -> list[FakeNode]:
    """Of two layers that read one value, one has blocks of four, for which there are no tiles of four groups."""
    return [
        layer("a0", "x", 24, CHANNELS, seed=18),
        relu("a", "a0"),
        layer("b0", "a", 16, 24, seed=19),
        layer("b1", "a", 16, 24, seed=20, block=4),
        add("b2", "b0", "b1"),
        relu("b", "b2"),
        layer("c", "b", 8, 16, seed=21),
    ]


def pooled() -> list[FakeNode]:
    """A pool of steps that writes rows."""
    return [
        layer("a0", "x", 10, CHANNELS, seed=22),
        relu("a", "a0"),
        pool("b", "a", (3, 3), (1, 1), pad=1),
        layer("c0", "b", 16, 10, seed=23),
        relu("c", "c0"),
        layer("d", "c", 8, 16, seed=24),
    ]


def spatial() -> list[FakeNode]:
    """A 3x3 layer in the spatial domain between two of 1x1: out of planes of floats, into rows that two layers read and add."""
    return [
        layer("a0", "x", 12, CHANNELS, seed=25),
        relu("a", "a0"),
        layer("b0", "a", 20, 12, 3, seed=26, density=0.1),
        relu("b", "b0"),
        layer("c0", "b", 12, 20, seed=27),
        layer("c1", "b", 12, 20, seed=29),
        add("c2", "c0", "c1"),
        relu("c", "c2"),
        layer("d", "c", 8, 12, seed=28),
    ]


CHAINS: list[Chain] = [bottleneck, of_both_signs, other_ends, strided, other_blocks, pooled, spatial]


def chained(chain: Chain, size: Sequence[int]) -> Graph:
    return graph_of(chain(), {"x": (CHANNELS, *size)})


def answers(graph: Graph, x: np.ndarray, isa: str, **options: int) -> np.ndarray:
    return engine_of(graph, isa=isa, dtype="int8", calibration=[x], **options)(x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_same_numbers_as_without_them(chain: Chain, size: tuple[int, int]) -> None:
    graph = chained(chain, size)
    for batch in (1, 2, 5):
        x = normal(RNG(batch), batch, CHANNELS, *size)
        want = answers(graph, x, "avx2")
        for threads in (1, 2, 3):
            np.testing.assert_array_equal(answers(graph, x, WIDE, threads=threads), want)


@pytest.mark.parametrize("tile", [1, 2, 3, 4])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_tile_reads_them(chain: Chain, tile: int) -> None:
    for size in ((7, 7), (5, 13), (10, 11), (14, 14)):
        graph = chained(chain, size)
        x = normal(RNG(tile), 2, CHANNELS, *size)
        want = answers(graph, x, "avx2")
        for threads in (1, 3):
            np.testing.assert_array_equal(answers(graph, x, WIDE, threads=threads, tile=tile), want)


@pytest.mark.parametrize(
    ("pixels", "threads", "kernel"), [(48, 1, "8x2"), (49, 1, "8x4"), (49, 2, "8x4"), (196, 1, "8x4"), (784, 2, "8x4")]
)
def test_where_they_are(pixels: int, threads: int, kernel: str) -> None:
    """From four groups on, where each thread has tiles."""
    graph = chained(bottleneck, (1, pixels))
    x = normal(RNG(0), 1, CHANNELS, 1, pixels)
    engine = engine_of(graph, isa=WIDE, dtype="int8", calibration=[x], threads=threads)
    assert kernel in engine.plan.rows[1].kernel, engine.plan.rows[1].kernel


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e9])
def test_sums_of_more_than_32_bits_of_steps_are_the_largest(factor: float) -> None:
    """Calibration saw two channels that cancel but for next to nothing, which makes the steps of their difference tiny."""
    nodes = [layer("a", "x", 8, 2, seed=30, density=1.0), layer("b", "a", 8, 8, seed=31, density=1.0)]
    first, second = (node.tensors["values"] for node in nodes)
    first[0], first[1], second[:] = 1, -1, 1
    nodes[0].tensors["bias"][:], nodes[1].tensors["bias"][:] = 0, 0
    graph = graph_of(nodes, {"x": (2, 8, 8)})
    seen = np.repeat(normal(RNG(3), 1, 1, 8, 8), 2, axis=1)
    seen[:, 1] += np.float32(np.abs(seen).max() / factor)
    apart = seen * np.array([1, -1], np.float32)[:, None, None]
    engines = [engine_of(graph, isa=isa, dtype="int8", calibration=[seen]) for isa in ("avx2", WIDE)]
    for x in (seen, apart):
        got = [engine(x) for engine in engines]
        np.testing.assert_array_equal(*got)
    np.testing.assert_array_equal(got[0] > 0, np.repeat(apart[:, :1] > 0, 8, axis=1))
