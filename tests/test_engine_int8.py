"""int8 alone: exact sums, what calibration takes its steps from, what lies beyond them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines import engine_of, graph_of, isas_of
from nodes import FakeNode, conv
from rounded_conv import EPS, Product, Quantized, Steps, assert_within, few_bits, in_int8, product_of, steps_for

import cosparse
from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.engine.graph import Graph
from cosparse.kernels import reference

RNG = np.random.default_rng
FEW_CHANNELS = 8  # window_geometry.cpp: sources of so many are copied where there is a stride


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_rows_of_whole_groups_are_rounded_as_any_others(isa: str) -> None:
    """A value whose step in float64, rounded to float32, would be another than that of a fused multiplication and addition."""
    step, value = np.float32(float.fromhex("0x1.9d76b6p-1")), np.float32(float.fromhex("0x1.9d7854p-2"))
    node = conv(RNG(0), 8, 1, (3, 3), pad=(1, 1, 1, 1), block=0)
    node.tensors["values"][:] = 0
    node.tensors["values"][:, :, 1, 1] = 1
    answers = []
    for width in (15, 16):
        sample, x = (np.full((1, 1, 3, width), of, np.float32) for of in (-128 * step, value))
        answers.append(engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype="int8", calibration=[sample])(x)[:, :, 1, 5])
    assert np.array_equal(*answers)


@pytest.mark.parametrize("transform", ["identity", "dct"])
@pytest.mark.parametrize("size", [(1, 3), (6, 7), (16, 16)])
@pytest.mark.parametrize("block", [0, 4, 8])
def test_int8_is_the_same_with_and_without_its_instructions(block: int, size: tuple[int, int], transform: str) -> None:
    """Whole numbers either way, and one multiplication and addition behind them."""
    node = conv(RNG(9), 20, 12, (3, 3), pad=(1, 1, 1, 1), transform=transform, block=block)
    x = few_bits(RNG(10), 2, 12, *size)
    isas = [isa for isa in isas_of("int8") if isa != "scalar"]  # which has no such instruction
    answers = [engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype="int8", calibration=[x])(x) for isa in isas]
    assert all(np.array_equal(answers[0], y) for y in answers)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_inputs_beyond_the_calibrated_range_saturate(isa: str) -> None:
    node = conv(RNG(11), 8, 3, (1, 1), block=8, density=1.0)
    sample, x = few_bits(RNG(12), 1, 3, 4, 4), 10 * few_bits(RNG(13), 1, 3, 4, 4)
    engine = engine_of(graph_of([node], {"x": (3, 4, 4)}), isa=isa, dtype="int8", calibration=[sample])
    steps = steps_for(product_of(node, sample, transformed=False))
    low, high = -128 * steps.step[0], 127 * steps.step[0]
    assert (x > high).any()
    assert (x < low).any()
    assert np.array_equal(engine(x), engine(np.clip(x, low, high)))


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_positive_inputs_get_all_256_numbers(isa: str) -> None:
    """Whole numbers 0..255 are their own steps; weights of whole numbers, one of each filter 127, are their own too: the sum is exact."""
    node = conv(RNG(14), 8, 6, (3, 3), pad=(1, 1, 1, 1), extras=())
    node.tensors["values"][:] = RNG(15).integers(-127, 127, (8, 6, 3, 3))
    node.tensors["values"][:, 0, 0, 0] = 127
    x = RNG(16).integers(0, 255, (2, 6, 5, 9), endpoint=True).astype(np.float32)
    x[0, 0, 0, 0] = 255
    graph = graph_of([node], {"x": (6, 5, 9)})
    np.testing.assert_array_equal(engine_of(graph, isa=isa, dtype="int8", calibration=[x])(x), reference.run(graph, x)[0])


@pytest.mark.parametrize("isa", [isa for isa in isas_of("int8") if isa not in ("scalar", "avx512")])  # which keep it
@pytest.mark.parametrize("size", [(3, 5), (3, 16)])
def test_what_is_no_number_is_the_least_one(size: tuple[int, int], isa: str) -> None:
    """In maps that are copied, and in copies with padding."""
    node = conv(RNG(14), 8, 3, (3, 3), pad=(1, 1, 1, 1))
    x = RNG(16).integers(0, 255, (2, 3, *size), endpoint=True).astype(np.float32)
    engine = engine_of(graph_of([node], {"x": (3, *size)}), isa=isa, dtype="int8", calibration=[x])
    none, least = x.copy(), x.copy()
    none[1, 1, 1, 2], least[1, 1, 1, 2] = np.nan, 0
    np.testing.assert_array_equal(engine(none), engine(least))


@pytest.mark.parametrize("isa", [isa for isa in isas_of("int8") if isa not in ("scalar", "avx512")])  # which sum in float32
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_sums_that_float32_would_round_are_exact(size: tuple[int, int], isa: str) -> None:
    """Half of 1,200 channels take the sum to 19 million, odd numbers on the way, the other half take it back."""
    node = conv(RNG(18), 12, 1201, (1, 1), extras=())
    for channels, value in ((slice(600), 127), (slice(600, 1200), -127), (1200, 1)):
        node.tensors["values"][:, channels] = value
    x = np.full((1, 1201, *size), 255, np.float32)
    x[:, 1200] = RNG(19).integers(0, 255, size)
    graph = graph_of([node], {"x": x.shape[1:]})
    np.testing.assert_array_equal(engine_of(graph, isa=isa, dtype="int8", calibration=[x])(x), reference.run(graph, x)[0])


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("signs", ["like", "mixed"])
@pytest.mark.parametrize("block", [0, 1, 4, 8])
def test_products_of_bytes_are_never_cut_off(block: int, signs: str, size: tuple[int, int], isa: str) -> None:
    """AVX2 adds two products of bytes in 16 bits, and four in double steps: 255 times 128 fits there, 255 times 129 does not. Weights at
    and beside the halves and quarters of that, all maps at their largest."""
    near = np.array([1, 31, 32, 33, 42, 43, 63, 64, 65, 95, 96, 97, 126, 127])
    for channels in (2, 3, 5, 8, 13, 64, 301):
        node = conv(RNG(channels), 19, channels, (1, 1), block=block, density=1.0, extras=())
        values = node.tensors["values"]
        values[:] = (values != 0) * RNG(21).choice(near, values.shape) * (RNG(22).choice([-1, 1], values.shape) if signs == "mixed" else 1)
        first = values[node.tensors["columns"] == 0] if block else values[:, 0]
        first[first != 0] = 127  # so that weights are their own steps
        if block:
            values[node.tensors["columns"] == 0] = first
        x = np.full((1, channels, *size), 255, np.float32)
        graph = graph_of([node], {"x": x.shape[1:]})
        y, want = engine_of(graph, isa=isa, dtype="int8", calibration=[x])(x), reference.run(graph, x)[0]
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_calibration_that_saw_nothing_leaves_the_bias(isa: str) -> None:
    node = conv(RNG(17), 8, 3, (3, 3), pad=(1, 1, 1, 1), block=8)
    zeros = np.zeros((1, 3, 6, 6), np.float32)
    engine = engine_of(graph_of([node], {"x": (3, 6, 6)}), isa=isa, dtype="int8", calibration=[zeros])
    want = np.broadcast_to(node.tensors["bias"][:, None, None], (1, 8, 6, 6))
    assert np.array_equal(engine(zeros), want)
    assert np.array_equal(engine(few_bits(RNG(0), 1, 3, 6, 6)), want)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_calibration_looks_at_pixels_only(isa: str) -> None:
    """The second layer sees 0 .. 15 / 16, and not the bias of 8 that the first leaves in the lanes behind its 25 pixels."""
    first = conv(RNG(18), 8, 1, (1, 1))
    first.tensors["values"][:], first.tensors["bias"][:] = 1, 8
    second = conv(RNG(19), 8, 8, (1, 1), extras=())
    nodes = [
        FakeNode("first", "conv", ("x",), first.attrs, first.tensors),
        FakeNode("second", "conv", ("first",), second.attrs, second.tensors),
    ]
    x = (RNG(20).integers(0, 15, (1, 1, 5, 5), endpoint=True) / 16 - 8).astype(np.float32)
    x[0, 0, 0, 0], x[0, 0, 1, 1] = -8, -8 + 15 / 16  # so steps are 1 / 16 and 1 / 272, and nothing lies half between two numbers
    product = product_of(second, (x + 8).repeat(8, axis=1), transformed=False)
    q = in_int8(product, steps_for(product), fused=True)
    bound = 2 * EPS * np.abs(q.weights @ q.numbers * q.scale)
    y = engine_of(graph_of(nodes, {"x": (1, 5, 5)}), isa=isa, dtype="int8", calibration=[x])(x)
    assert_within(y, product.image(q.y), product.image(bound))


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("spread", [1e-20, 1e-33, 1e-38, 1e-44])
def test_calibration_with_next_to_nothing_gives_numbers(spread: float, isa: str) -> None:
    """Down to denormals, whose steps have no inverse in float32."""
    node = conv(RNG(27), 8, 3, (3, 3), pad=(1, 1, 1, 1), block=8)
    x = few_bits(RNG(28), 1, 3, 6, 6)
    sample = np.abs(x) * np.float32(spread)
    engine = engine_of(graph_of([node], {"x": (3, 6, 6)}), isa=isa, dtype="int8", calibration=[sample])
    assert np.isfinite(engine(x)).all()
    assert_within(engine(sample), np.broadcast_to(node.tensors["bias"][:, None, None], (1, 8, 6, 6)), 1e-15)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_calibration_with_infinity_is_refused(value: float) -> None:
    x = few_bits(RNG(29), 1, 3, 6, 6)
    x[0, 1, 2, 3] = value
    graph = graph_of([conv(RNG(30), 8, 3, (3, 3), block=8)], {"x": (3, 6, 6)})
    with pytest.raises(cosparse.Error, match="calibration"):
        engine_of(graph, dtype="int8", calibration=[x])


def test_calibration_with_nan_is_refused() -> None:
    """The least and the greatest of numbers pass NaN over: the steps would be those of the other samples."""
    node = conv(RNG(30), 8, 3, (3, 3), block=8)
    x = few_bits(RNG(29), 2, 3, 6, 6)
    x[1, 1, 2, 3] = np.nan
    with pytest.raises(cosparse.Error, match="calibration: expected samples that are numbers in every layer, got NaN in 'x'; leave out"):
        engine_of(graph_of([node], {"x": (3, 6, 6)}), dtype="int8", calibration=[x])
    quotient = FakeNode("quotient", "div", ("x", "x"))
    made_inside = graph_of([quotient, FakeNode("c", "conv", ("quotient",), node.attrs, node.tensors)], {"x": (3, 6, 6)})
    x[1, 1, 2, 3] = 0
    with pytest.raises(cosparse.Error, match="got NaN in 'c'"):
        engine_of(made_inside, dtype="int8", calibration=[x])


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("columns", [66_000, 70_000, 100_003])
def test_sums_of_many_columns_stay_within_32_bits(columns: int, isa: str) -> None:
    """255 * 127 * 66,312 is 2^31. All weights alike and all maps at their largest: a mean of ones."""
    node = conv(RNG(0), 8, columns, (1, 1), extras=())
    node.tensors["values"] = np.full((8, columns, 1, 1), 1 / columns, np.float32)
    x = np.ones((1, columns, 1, 1), np.float32)
    y = engine_of(graph_of([node], {"x": (columns, 1, 1)}), isa=isa, dtype="int8", calibration=[x])(x)
    np.testing.assert_allclose(y, 1, rtol=0.02)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_weights_without_a_scale_in_float32_become_zero(isa: str) -> None:
    """127 of their steps would be smaller than any normal number: the bias alone is left."""
    node = conv(RNG(0), 8, 3, (1, 1))
    node.tensors["values"] = node.tensors["values"] * np.float32(1e-15)
    x = few_bits(RNG(1), 1, 3, 4, 5) * np.float32(1e-26)
    y = engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype="int8", calibration=[x])(x)
    np.testing.assert_array_equal(y, np.broadcast_to(node.tensors["bias"][None, :, None, None], y.shape))


def test_int8_asks_for_calibration(tmp_path: Path) -> None:
    path = tmp_path / "net.cosparse"
    artifact.write(path, graph_of([conv(RNG(0), 8, 3, (3, 3))], {"x": (3, 8, 8)}))
    with pytest.raises(cosparse.Error, match=r"calibration: expected sample inputs.*got none; pass calibration="):
        cosparse.load(path, dtype="int8")
    with pytest.raises(cosparse.ShapeError, match=r"x.*3.*4"):
        cosparse.load(path, dtype="int8", calibration=np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(cosparse.ShapeError, match="4 axes"):
        cosparse.load(path, dtype="int8", calibration=np.zeros((3, 8, 8), np.float32))
    with pytest.raises(cosparse.ShapeError, match="1 inputs"):
        cosparse.load(path, dtype="int8", calibration=(np.zeros((1, 3, 8, 8), np.float32),) * 2)
    with pytest.raises(cosparse.Error, match=re.escape("calibration[0]")):
        cosparse.load(path, dtype="int8", calibration=np.zeros((1, 3, 8, 8)))


def source_of(channels: int) -> FakeNode:
    """A 1x1 layer that hands its source on: every filter is 1 at one channel. Its weights in steps are 127 times 1 / 127."""
    node = conv(RNG(0), channels, channels, (1, 1), extras=())
    node.tensors["values"][:] = np.eye(channels, dtype=np.float32)[:, :, None, None]
    return FakeNode("hands_on", "conv", ("x",), node.attrs, node.tensors)


def in_whole_numbers(p: Product, steps: Steps) -> Quantized:
    """The basis step out of a source of steps of 1: maps are sums times a factor of 16 bits, rounded half up."""
    seen = steps.step > 0
    factor = np.where(seen, np.clip(np.rint(np.float32(2**15) / np.where(seen, steps.step, 1)), 1, 2**15 - 1), 0)
    taken = Steps(np.where(seen, np.float32(2**15) / np.maximum(factor, 1), 0).astype(np.float32), steps.zero)
    each = p.values.shape[1] // p.taps
    numbers = np.floor((p.maps * np.tile(factor, each)[:, None] + 2**14) / 2**15) + np.tile(steps.zero, each)[:, None]
    return replace(in_int8(p, taken, fused=True), numbers=np.clip(numbers, 0, 255))


STRIDES = [(1, 1), (2, 2), (1, 2), (2, 1), (3, 2)]
SIZES = [(1, 1), (1, 16), (1, 17), (2, 3), (4, 4), (5, 13), (7, 7), (9, 56), (14, 14), (16, 16), (28, 28)]


def on_whole_numbers(filters: int, channels: int, size: tuple[int, int], density: float, **window: Sequence[int]) -> tuple[Graph, FakeNode]:
    """A 3x3 layer in the DCT behind one that hands its source on, nothing of it negative."""
    node = conv(RNG(1), filters, channels, (3, 3), transform="dct", block=8, density=density, **window)
    node = FakeNode("b", "conv", ("a",), node.attrs, node.tensors)
    relu = FakeNode("a", "activation", ("hands_on",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})
    return graph_of([source_of(channels), relu, node], {"x": (channels, *size)}), node


def compare_whole(graph: Graph, node: FakeNode, x: np.ndarray, isa: str, **options: int) -> None:
    product = product_of(node, x, transformed=True)
    steps = steps_for(product)
    engine = engine_of(graph, isa=isa, dtype="int8", calibration=[x], **options)
    row = engine.plan.rows[-1]
    assert row.why.startswith("sparse in the DCT")
    stride, dilation = node.attrs["stride"], node.attrs["dilation"]
    window = tuple(stride) == (1, 1) or (stride[1] == 2 and dilation[1] == 1)
    copied = max(stride) > 1 and node.attrs["channels"] <= FEW_CHANNELS
    whole = row.kernel.endswith("avx512_vnni") and window and not copied  # AMX leaves it layers of few columns
    q = in_whole_numbers(product, steps) if whole else in_int8(product, steps, fused=isa != "scalar")
    assert_within(engine(x), product.image(q.y), product.image(4 * EPS * (np.abs(q.weights) @ q.numbers * q.scale + np.abs(q.bias))))


def bytes_of(seed: int, batch: int, channels: int, size: tuple[int, int]) -> np.ndarray:
    x = RNG(seed).integers(0, 255, (batch, channels, *size), endpoint=True).astype(np.float32)
    x[:, 0, 0, 0] = 255
    return x


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("channels", "filters", "density"), [(5, 40, 0.5), (12, 20, 0.1), (40, 24, 0.3)])
def test_the_dct_of_what_a_layer_hands_on(
    channels: int, filters: int, density: float, stride: tuple[int, int], size: tuple[int, int], isa: str
) -> None:
    """All places of a tile, maps that only some blocks read, partial block rows; on AVX512-VNNI in whole numbers."""
    graph, node = on_whole_numbers(filters, channels, size, density, pad=(1, 1, 1, 1), stride=stride)
    for batch in (1, 2):
        compare_whole(graph, node, bytes_of(batch, batch, channels, size), isa)


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("tile", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "window", [{"pad": (1, 1, 1, 1)}, {"pad": (0, 2, 3, 1), "stride": (1, 2)}, {"pad": (2, 0, 2, 0), "dilation": (2, 1), "stride": (2, 2)}]
)
def test_every_tile_of_whole_numbers(window: dict[str, Sequence[int]], tile: int, isa: str) -> None:
    """Groups left over behind tiles of four, paddings that differ, rows that are dilated, one thread and three."""
    for size in ((5, 16), (8, 35), (13, 29)):
        graph, node = on_whole_numbers(28, 20, size, 0.2, **window)
        for threads in (1, 3):
            compare_whole(graph, node, bytes_of(3, 2, 20, size), isa, tile=tile, threads=threads)


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("tile", [0, 4])
def test_sums_of_whole_numbers_wait_between_chunks(tile: int, isa: str) -> None:
    """10,800 maps, more than a chunk has, and more pixels than those whose maps are made before."""
    graph, node = on_whole_numbers(12, 1200, (9, 17), 0.02, pad=(1, 1, 1, 1))
    compare_whole(graph, node, bytes_of(4, 1, 1200, (9, 17)), isa, tile=tile)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_what_is_only_added_has_steps_of_its_own(isa: str) -> None:
    """Between two convolutions, read by no layer: numbers of 8 bits over its own range, negative ones too."""
    rng = RNG(5)
    nodes = [source_of(16)]
    for name, source in (("a", "hands_on"), ("b", "hands_on")):
        nodes.append(FakeNode(name, "conv", (source,), (part := conv(rng, 16, 16, (1, 1))).attrs, part.tensors))
    nodes += [FakeNode("c", "add", ("a", "b")), FakeNode("d", "conv", ("c",), (last := source_of(16)).attrs, last.tensors)]
    graph = graph_of(nodes, {"x": (16, 5, 7)})
    x = few_bits(rng, 2, 16, 5, 7)
    want, got = reference.run(graph, x)[0], engine_of(graph, isa=isa, dtype="int8", calibration=[x])(x)
    both = [reference.run(graph_of(nodes[:3], {"x": (16, 5, 7)}, outputs=(name,)), x)[0] for name in ("a", "b")]
    steps = [np.abs(value).max() / 127 for value in (x, *both, want)]
    of_weights = sum(np.abs(node.tensors["values"]).sum(axis=1).max() for node in nodes[1:3])
    assert np.abs(got - want).max() <= sum(steps) / 2 + of_weights * steps[0] + np.abs(x).sum(axis=1).max() * 2 / 127


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_layers_in_pairs_see_their_source_in_calibration(isa: str) -> None:
    """A pool reads the first of two 3x3 layers of one value, so that both run in blocks where planes are large, and not where they are
    small: the ranges of both samples count for both layers."""
    nodes = [source_of(8), FakeNode("a", "activation", ("hands_on",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})]
    for name, seed in (("b", 2), ("c", 3)):
        part = conv(RNG(seed), 32, 8, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8, density=0.1)
        nodes.append(FakeNode(name, "conv", ("a",), part.attrs, part.tensors))
    attrs = {"kernel": [2, 2], "stride": [2, 2], "dilation": [1, 1], "pad": [0, 0, 0, 0], "ceil": 0}
    nodes.append(FakeNode("d", "max_pool", ("b",), attrs))
    graph = graph_of(nodes, {"x": (8, 96, 96)}, outputs=("d", "c"))
    small, large = RNG(4).random((1, 8, 8, 8), np.float32), 100 * RNG(5).random((1, 8, 96, 96), np.float32)
    content = _C.parse_artifact(artifact.to_bytes(graph))
    engine = Engine(content, threads=2, isa=isa, poison=True, dtype="int8", calibration=[[small], [large]])
    for got, want in zip(engine(large), reference.run(graph, large), strict=True):
        assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
