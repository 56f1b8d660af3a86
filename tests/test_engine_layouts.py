"""How the plan lays out values and shares out work: tiles between 1x1 convolutions, rows first, chunks, maps before the product, parts of a
batch.

Weights and inputs are small whole numbers wherever no DCT is in between. Then sums are exact in any order, and every layout, instruction
set, number of threads and batch must give the reference's very floats, in bfloat16 too. In int8 they are whole numbers of steps of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from chains import CHAINS, SIZES, Limit, add, chained, clip, layer
from engines import EPS, ISAS, engine_of, graph_of, isas_of
from nodes import FakeNode, conv, kept_blocks
from rounded_conv import assert_within

from cosparse.engine.graph import Graph
from cosparse.kernels import reference
from cosparse.kernels.conv import unpack
from cosparse.kernels.table import GROUP

THREADS = (1, 2, 3, 5)
EXACT = [("float32", isa) for isa in ISAS] + [("bfloat16", isa) for isa in isas_of("bfloat16")]
# csrc: below these limits nothing of the below happens.
WEIGHTS_IN_CACHE = 512 * 1024  # step_conv.cpp: bytes
FEW_GROUPS = 8  # step_conv.cpp: of 16 pixels
CHUNK_MAPS = 2304  # weights.cpp
NEAR_MAPS, NEAR_COLUMNS = 160, 110  # weights.cpp: of AVX2
CACHED_FLOATS = 2 << 20  # engine.cpp
RNG = np.random.default_rng


def whole_numbers(*shape: int, seed: int = 0, most: int = 2) -> np.ndarray:
    return RNG(seed).integers(-most, most, shape, endpoint=True).astype(np.float32)


def assert_exact(graph: Graph, arrays: Sequence[np.ndarray], dtype: str, isa: str, threads: Sequence[int] = (2,)) -> None:
    want = reference.run(graph, *arrays)
    calibration = arrays if dtype == "int8" else ()
    # Weights of 1 are 127 times a scale that is 1 / 127 but for its rounding; bias and residual (at most 257) may cancel what they make.
    bound = [4 * EPS * (np.abs(w).max() + 257) if dtype == "int8" else 0.0 for w in want]
    for count in threads:
        got = engine_of(graph, isa=isa, dtype=dtype, threads=count, calibration=calibration)(*arrays)
        for g, w, b in zip(got if isinstance(got, tuple) else (got,), want, bound, strict=True):
            assert_within(g, w, b)


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_of_convolutions(chain: Callable[[Limit], list[FakeNode]], dtype: str, isa: str) -> None:
    graph = chained(chain, 2)
    for size in SIZES:
        for batch in (1, 2, 17) if size[0] == 1 else (1, 2):
            assert_exact(graph, [whole_numbers(batch, 3, *size)], dtype, isa)


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_of_int8_convolutions(chain: Callable[[Limit], list[FakeNode]], isa: str) -> None:
    graph = chained(chain, 255)
    for size in SIZES:
        for batch in (1, 2, 17) if size[0] == 1 else (1, 2):
            x = np.abs(whole_numbers(batch, 3, *size, most=255))
            x[:, 0] = 255  # a channel that every first layer reads, so every tap of it has a step of 1
            assert_exact(graph, [x], "int8", isa)


def sparse_to_tiles(relu: bool) -> Graph:
    """1x1 -> sparse 3x3, with relu or nothing behind it -> 1x1: the 3x3 stores whole block rows to tiles."""
    last = "b0"
    nodes = [
        layer("a0", "x", 16, 3, keep=0.5),
        clip("a", "a0", -2, 2),
        layer("b0", "a", 24, 16, 3, keep=0.3, seed=1, block=8, density=0.5),
    ]
    if relu:
        nodes.append(FakeNode("b", "activation", ("b0",), {"kind": "relu", "alpha": 0.0, "beta": 0.0}))
        last = "b"
    return graph_of([*nodes, layer("c", last, 8, 24, keep=0.3, seed=4)], {"x": (3, 7, 7)})


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("relu", [False, True])
def test_whole_block_rows_to_tiles(relu: bool, dtype: str, isa: str) -> None:
    for size in SIZES:
        assert_exact(sparse_to_tiles(relu), [whole_numbers(2, 3, *size)], dtype, isa)


@pytest.mark.parametrize("relu", [False, True])
def test_whole_block_rows_to_tiles_of_int8(relu: bool) -> None:
    """Bit for bit the same by every set that multiplies bytes. The others keep floats between layers, which are rounded once more."""
    for size in SIZES:
        x = whole_numbers(2, 3, *size)
        isas = [isa for isa in isas_of("int8") if isa not in ("scalar", "avx512")]
        answers = [engine_of(sparse_to_tiles(relu), isa=isa, dtype="int8", calibration=[x])(x) for isa in isas]
        assert all(np.array_equal(answers[0], y) for y in answers)


@pytest.mark.parametrize("isa", isas_of("bfloat16"))
@pytest.mark.parametrize("pixels", [2, 20, 48])
def test_a_tiled_value_is_bfloat16_itself(pixels: int, isa: str) -> None:
    """257 is no bfloat16. Added to a convolution as its residual it is 256 where it lies in tiles, 257 where it is an output too."""
    first, second = layer("a", "x", 8, 1), layer("b", "a", 8, 8)
    first.tensors["bias"][:], second.tensors["bias"][:] = 257, 0
    second.tensors["values"][:] = np.array([1, -1] * 4, np.float32)[:, None, None]
    nodes, x = [first, second, add("c", "b", "a")], np.zeros((1, 1, 1, pixels), np.float32)
    tiled = engine_of(graph_of(nodes, {"x": (1, 1, pixels)}), isa=isa, dtype="bfloat16")(x)
    planar, _ = engine_of(graph_of(nodes, {"x": (1, 1, pixels)}, outputs=("c", "a")), isa=isa, dtype="bfloat16")(x)
    assert (tiled == 256).all()
    assert (planar == 257).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pixels", [3, 16, 17, 5 * GROUP, 7 * GROUP + 2, 11 * GROUP + 9, 31 * GROUP])
def test_units_cover_every_output_once(pixels: int, isa: str) -> None:
    """Groups that tiles of three, two and one leave over for 1 to 5 threads, and block rows (1, 3, 5, 23) to cut them by."""
    for filters in (8, 20, 40, 180):
        graph = graph_of([layer("a", "x", filters, 4, keep=0.7)], {"x": (4, 1, pixels)})
        assert_exact(graph, [whole_numbers(1, 4, 1, pixels)], "float32", isa, THREADS)


def widest(graph: Graph, isa: str, dtype: str = "float32", step: int = -1) -> int:
    """The groups of the widest tile that a step takes: 3 where block rows come first and there is such a kernel, else 2 at most."""
    return int(engine_of(graph, isa=isa, dtype=dtype, threads=1).plan.rows[step].kernel.split("__")[0][-1])


HAS_WIDE = {("float32", "avx512"), ("bfloat16", "avx512_bf16"), ("bfloat16", "amx")}


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("size", [(3, 7), (7, 7), (8, 16)])
def test_rows_first_where_weights_are_large(size: tuple[int, int], dtype: str, isa: str) -> None:
    """512 x 512 weights, a tiled source of at most 8 groups. 21 pixels: no tile of three. 49: one, and a single pixel."""
    nodes = [layer("a", "x", 512, 3, keep=0.7), clip("a2", "a", -1, 1), layer("b", "a2", 512, 512, seed=1), clip("b2", "b", -64, 64)]
    graph = graph_of(nodes, {"x": (3, *size)})
    assert engine_of(graph, isa=isa, dtype=dtype).plan.rows[1].bytes > WEIGHTS_IN_CACHE
    if (dtype, isa) in HAS_WIDE:
        assert widest(graph, isa, dtype) == min(3, -(-size[0] * size[1] // GROUP))
    assert_exact(graph, [whole_numbers(1, 3, *size)], dtype, isa, (1, 3))


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("channels", [256, 257, 700])
def test_chunks_of_channels(channels: int, dtype: str, isa: str) -> None:
    """More groups than those whose maps are made before; the packed bytes tell into how many chunks the layer is cut."""
    graph = graph_of([layer("a", "x", 12, channels, 3, block=8, density=0.3)], {"x": (channels, 10, 14)})
    tensors = graph.nodes[0].tensors
    assert FEW_GROUPS * GROUP < 10 * 14
    near = isa == "avx2"
    row = engine_of(graph, isa="avx2" if near else "scalar").plan.rows[0]
    blocks, rows = len(tensors["columns"]), 2
    chunks = ((row.bytes // 4 - 8 * rows) - 9 * blocks) // rows - 1
    most = min(max(int(NEAR_COLUMNS / row.density), NEAR_MAPS), CHUNK_MAPS) if near else CHUNK_MAPS
    assert chunks == -(-9 * channels // most)
    assert_exact(graph, [whole_numbers(1, channels, 10, 14, most=1)], dtype, isa, (1, 3))


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("pixels", [17, 18, 19, 20, 21, 36, 49, 50, 51, 52, 53, 99, 196])
def test_the_last_pixels_follow_a_tile(pixels: int, dtype: str, isa: str) -> None:
    """One to four behind tiles of one to three groups; 1x1 and 3x3, some of whose channels come in chunks, with what is added to them."""
    nodes = [layer("a", "x", 20, 3, keep=0.7), clip("a2", "a", -1, 1), layer("b", "a2", 40, 20, seed=1), clip("b2", "b", -2, 2)]
    nodes += [layer("c", "b2", 300, 40, 3, keep=0.05, seed=2), clip("c2", "c", -1, 1), layer("d", "c2", 40, 300, 3, keep=0.3, seed=3)]
    nodes += [add("e", "d", "b2"), clip("f", "e", -200, 200)]
    shape = (14, 14) if pixels == 196 else (1, pixels)
    assert_exact(graph_of(nodes, {"x": (3, *shape)}), [whole_numbers(1, 3, *shape)], dtype, isa, (1, 2, 5))


def kept_columns(filters: int, channels: int, share: float) -> FakeNode:
    """A 3x3 layer in the DCT that reads `share` of the maps, of every channel some, in all its block rows."""
    node = conv(RNG(0), filters, channels, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8)
    keep = RNG(1).random((-(-filters // 8), channels * 9)) < 0.7
    keep[:, RNG(2).random(channels * 9) >= share] = False
    return FakeNode("a", "conv", ("x",), node.attrs, node.tensors | kept_blocks(RNG(3), filters, keep, 8))


def against_magnitudes(node: FakeNode, x: np.ndarray, isa: str) -> None:
    """Float32 within eps of the sum of magnitudes for each of its roundings: the products', and those of the DCT and its inverse, which
    may make up to 9 times the magnitude (the sum of |entries| of two 3-point matrices, there and back)."""
    graph = graph_of([node], {"x": x.shape[1:]})
    weights = unpack(node)
    magnitude = FakeNode("m", "conv", ("x",), node.attrs | {"format": "dense", "transform": "identity", "block": 1}, {})
    magnitude.tensors["values"] = np.abs(weights).astype(np.float32)
    bound = EPS * (weights[0].size + 16) * (9 * reference.run_node(magnitude, np.abs(x)) + np.abs(node.tensors["bias"])[:, None, None])
    answers = [engine_of(graph, isa=isa, threads=threads)(x) for threads in THREADS]
    assert_within(answers[0], reference.run(graph, x)[0], bound)
    assert all(np.array_equal(answers[0], y) for y in answers)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("share", "whole"), [(0.6, False), (0.8, True)])
def test_channels_are_completed_where_most_of_their_maps_are_read(share: float, whole: bool, isa: str) -> None:
    """Maps before the product need whole channels, which shows in the tile: with 60 % of the maps they are not completed, with 80 % they
    are."""
    node = kept_columns(208, 256, share)
    graph = graph_of([node], {"x": (256, 7, 7)})
    assert engine_of(graph, isa=isa).plan.rows[0].bytes > WEIGHTS_IN_CACHE
    if isa == "avx512":
        assert widest(graph, isa) == (3 if whole else 2)
    against_magnitudes(node, RNG(4).normal(size=(1, 256, 7, 7)).astype(np.float32), isa)


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "size"),
    [
        (3, 1, 1, (7, 7)),
        (3, 2, 1, (14, 14)),
        (3, 2, 1, (13, 9)),
        (1, 2, 1, (14, 14)),
        (3, 1, 2, (8, 9)),
        (3, 1, 1, (8, 16)),
        (3, 1, 1, (3, 1)),
    ],
)
def test_maps_before_the_product(kernel: int, stride: int, dilation: int, size: tuple[int, int], dtype: str, isa: str) -> None:
    """Small planes and large weights, in phases too. (8, 16): as many groups as there may be."""
    channels, filters = (128, 264) if kernel == 3 else (520, 520)
    node = layer("a", "x", filters, channels, kernel, stride=(stride, stride), dilation=(dilation, dilation))
    graph = graph_of([node], {"x": (channels, *size)})
    assert engine_of(graph, isa=isa, dtype=dtype).plan.rows[0].bytes > WEIGHTS_IN_CACHE
    pixels = reference.run(graph, np.zeros((1, channels, *size)))[0][0, 0].size
    assert pixels <= FEW_GROUPS * GROUP
    if (dtype, isa) in HAS_WIDE and pixels >= 3 * GROUP:
        assert widest(graph, isa, dtype) == 3
    assert_exact(graph, [whole_numbers(1, channels, *size, most=1)], dtype, isa, (1, 2, 5))


@pytest.mark.parametrize(("dtype", "isa"), EXACT)
@pytest.mark.parametrize("size", [(2, 2), (7, 7), (10, 14)])
def test_a_residual_outlasts_the_sums_between_chunks(size: tuple[int, int], dtype: str, isa: str) -> None:
    """264 channels, several chunks of maps: sums wait in the output, which therefore lies beside the residual that nobody reads later."""
    nodes = [layer("a", "x", 264, 3, keep=0.7), clip("a2", "a", -1, 1), layer("b", "a2", 264, 264, 3, seed=1), clip("b2", "b", -2, 2)]
    nodes += [layer("c", "b2", 264, 264, 3, keep=0.1, seed=2), add("d", "c", "a2")]
    graph = graph_of([*nodes, clip("e", "d", -128, 128)], {"x": (3, *size)})
    assert CHUNK_MAPS < 9 * 264
    assert_exact(graph, [whole_numbers(1, 3, *size)], dtype, isa, (1, 2, 5))


@pytest.mark.parametrize(("dtype", "isa"), [(dtype, isa) for dtype in ("bfloat16", "int8") for isa in isas_of(dtype)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 7), (10, 14)])
@pytest.mark.parametrize(("channels", "filters"), [(300, 16), (1100, 80)])  # more maps than a chunk has of floats, and of bytes
def test_sums_between_chunks_are_not_rounded(channels: int, filters: int, size: tuple[int, int], dtype: str, isa: str) -> None:
    """The same network with its middle value given out, which therefore lies in floats: what its reader makes of it is the same."""
    nodes = [conv(RNG(0), filters, channels, (3, 3), pad=(1, 1, 1, 1)), conv(RNG(1), 24, filters, (1, 1))]
    nodes = [replace(nodes[0], name="a"), replace(nodes[1], name="b", inputs=("a",))]
    x = RNG(2).normal(size=(1, channels, *size)).astype(np.float32)
    assert CHUNK_MAPS * (4 if channels > 1000 else 1) < 9 * channels
    tiled, floats = (
        engine_of(graph_of(nodes, {"x": x.shape[1:]}, outputs), isa=isa, dtype=dtype, calibration=[x] if dtype == "int8" else ())
        for outputs in (["b"], ["a", "b"])
    )
    assert np.array_equal(tiled(x), floats(x)[1])


@pytest.mark.parametrize("isa", ISAS)
def test_a_large_batch_runs_in_parts(isa: str) -> None:
    """In and out are 1 Mi floats an image, so two run at once, and of five one is left. Each is bitwise what it is alone: a plane of whole
    groups has no pixels that another kernel takes."""
    graph = graph_of([layer("a", "x", 32, 32, keep=0.3), clip("a2", "a", -2, 2)], {"x": (32, 128, 128)})
    assert 2 * 32 * 128 * 128 * 2 <= CACHED_FLOATS < 2 * 32 * 128 * 128 * 3
    x = RNG(0).normal(size=(5, 32, 128, 128)).astype(np.float32)
    engine = engine_of(graph, isa=isa)
    y = engine(x)
    for i in range(5):
        assert np.array_equal(y[i : i + 1], engine(x[i : i + 1]))
    few = x[:, :, :1, :5]
    assert_within(y[:, :, :1, :5], reference.run(graph, few)[0], EPS * 40 * (np.abs(few).sum(axis=1, keepdims=True) + 2))


@pytest.mark.parametrize("isa", ISAS)
def test_a_batch_is_planned_as_a_whole(isa: str) -> None:
    """The plan counts all parts: five images are five times one."""
    graph = graph_of([layer("a", "x", 32, 32, keep=0.3)], {"x": (32, 128, 128)})
    engine = engine_of(graph, isa=isa)
    assert engine.plan_for((5, 32, 128, 128)).flops == 5 * engine.plan.flops


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("transform", ["identity", "dct"])
def test_threads_do_not_change_a_bit(transform: str, isa: str) -> None:
    """Every output is one kernel's sum in one order, whoever computes it: the tiles differ with the threads, the order does not."""
    for size in ((5, 5), (9, 9), (14, 10)):
        nodes = [conv(RNG(0), 44, 12, (3, 3), pad=(1, 1, 1, 1), transform=transform, block=8), conv(RNG(1), 26, 44, (1, 1), block=8)]
        chained = [
            FakeNode("a", "conv", ("x",), nodes[0].attrs, nodes[0].tensors),
            FakeNode("b", "conv", ("a",), nodes[1].attrs, nodes[1].tensors),
        ]
        x = RNG(2).normal(size=(2, 12, *size)).astype(np.float32)
        answers = [engine_of(graph_of(chained, {"x": (12, *size)}), isa=isa, threads=threads)(x) for threads in THREADS]
        assert all(np.array_equal(answers[0], y) for y in answers)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("size", "same"), [((4, 4), True), ((6, 6), False), ((1, 1), False)])
def test_an_image_of_a_batch_is_its_own_run_but_for_the_last_few_pixels(size: tuple[int, int], same: bool, isa: str) -> None:
    """Bitwise where planes are whole groups. Of 36 pixels the last four are summed by the kernel for few pixels, in chains, when the image
    is alone, and so they differ by roundings."""
    node = conv(RNG(0), 24, 50, (1, 1), block=8, density=0.9)
    x = RNG(1).normal(size=(16, 50, *size)).astype(np.float32)
    engine = engine_of(graph_of([node], {"x": (50, *size)}), isa=isa)
    batch, alone = engine(x), np.concatenate([engine(image[None]) for image in x])
    head = size[0] * size[1] // GROUP * GROUP
    flat = [y.reshape(16, 24, -1) for y in (batch, alone)]
    assert np.array_equal(flat[0][:, :, :head], flat[1][:, :, :head])
    assert np.array_equal(batch, alone) == same
    bound = EPS * 52 * (np.abs(unpack(node)[:, :, 0, 0]) @ np.abs(x.reshape(16, 50, -1)) + np.abs(node.tensors["bias"])[:, None])
    assert_within(flat[0], flat[1].astype(np.float64), bound)
