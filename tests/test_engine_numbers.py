"""dtype= of the engine: bfloat16 and int8 on every geometry and source of maps, and what NaN and infinity become.

int8 alone: test_engine_int8.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import engine_of, graph_of, in_transform, isas_of
from nodes import FakeNode, conv
from rounded_conv import EPS, assert_within, few_bits, in_bf16, in_int8, int8_error, product_of, round_bf16, steps_for

import cosparse
from cosparse.engine import Engine, artifact
from cosparse.kernels import reference
from cosparse.kernels.transform import dct_matrix

SHORT = [(dtype, isa) for dtype in ("bfloat16", "int8") for isa in isas_of(dtype)]
ALL = [("float32", isa) for isa in isas_of("float32")] + SHORT
RNG = np.random.default_rng

LAYERS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel": (3, 3), "pad": (1, 1, 1, 1)},
    "3x3_stride2": {"kernel": (3, 3), "pad": (1, 1, 1, 1), "stride": (2, 2)},
    "3x3_dilated": {"kernel": (3, 3), "pad": (2, 2, 2, 2), "dilation": (2, 2)},
    "7x7_stride2": {"kernel": (7, 7), "pad": (3, 3, 3, 3), "stride": (2, 2)},
    "1x7": {"kernel": (1, 7), "pad": (0, 3, 0, 3)},
    "1x1": {"kernel": (1, 1)},
    "1x1_stride2": {"kernel": (1, 1), "stride": (2, 2)},
}


def compare(node: FakeNode, x: np.ndarray, dtype: str, isa: str, **options: Any) -> None:
    """Against the kernels' own roundings where the maps are exact, else within what one step a map makes of them."""
    graph = graph_of([node], {"x": x.shape[1:]})
    calibration = [x] if dtype == "int8" else []
    engine = engine_of(graph, isa=isa, dtype=dtype, calibration=calibration, **options)
    product = product_of(node, x, transformed=in_transform(engine))
    y = engine(x)
    if dtype == "bfloat16":
        assert_within(y, *in_bf16(product))
        return
    steps = steps_for(product)
    q = in_int8(product, steps, fused=isa != "scalar")
    assert q.largest_sum < 2**24
    bound = 2 * EPS * (np.abs(q.weights @ q.numbers * q.scale) + np.abs(q.bias))
    if product.exact:
        assert_within(y, product.image(q.y), product.image(bound))
    # 1 %: steps that differ by a rounding of float32 move a number that lies half between two.
    assert_within(y, reference.run(graph, x)[0], product.image(1.01 * int8_error(product, steps, q) + bound))


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
@pytest.mark.parametrize("channels", [6, 10])  # sources of few channels are copied phase by phase, others read as they lie
@pytest.mark.parametrize("name", LAYERS)
def test_geometries(name: str, channels: int, dtype: str, isa: str) -> None:
    for transform, block, density, size, batch in (
        ("dct", 8, 0.3, (9, 10), 1),
        ("dct", 4, 0.1, (5, 7), 3),
        ("identity", 8, 0.5, (6, 6), 2),
        ("identity", 0, 1.0, (7, 7), 1),
    ):
        node = conv(RNG(2), 19, channels, **LAYERS[name], transform=transform, block=block, density=density, extras=("scale", "bias"))
        compare(node, few_bits(RNG(3), batch, channels, *size), dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_of_whole_groups(name: str, channels: int, dtype: str, isa: str) -> None:
    """Taps of few channels are then read in place where bfloat16 is emulated, out of copies that are rounded."""
    layer = LAYERS[name]
    for out, height, block, batch in ((16, 9, 0, 2), (32, 6, 8, 1), (16, 7, 4, 3)):
        width = (out - 1) * layer.get("stride", (1, 1))[1] + 1
        node = conv(RNG(5), 19, channels, **layer, block=block, density=0.4)
        shape = (batch, channels, height, width)
        x = RNG(6).normal(size=shape).astype(np.float32) if dtype == "bfloat16" else few_bits(RNG(6), *shape)
        compare(node, x, dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_any_number_of_columns_fills_its_last_step(block: int, dtype: str, isa: str) -> None:
    """Columns join in pairs and quads; 1 to 9 of them leave every remainder. Pixels: the tiles' kernels and those of few pixels."""
    for columns in range(1, 10):
        node = conv(RNG(columns), 2 * block, columns, (1, 1), block=block, density=1.0)
        for size in ((1, 2), (4, 5)):
            compare(node, few_bits(RNG(4), 1, columns, *size), dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 63, 64, 65])
def test_columns_around_a_tile(columns: int, dtype: str, isa: str) -> None:
    """AMX takes 32 (bfloat16) or 64 (int8) at a step. Blocks: an empty row, a whole one, a partial one; dense: three rows alike."""
    for block, filters in ((8, 19), (0, 19), (0, 8), (0, 33)):
        node = conv(RNG(columns), filters, columns, (1, 1), block=block, density=1.0)
        for batch, size in ((1, (1, 1)), (2, (1, 8)), (1, (1, 17)), (2, (3, 11)), (1, (5, 13))):
            compare(node, few_bits(RNG(4), batch, columns, *size), dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
@pytest.mark.parametrize("tile", [1, 2, 3, 4])
def test_rows_alike_by_every_tile(tile: int, dtype: str, isa: str) -> None:
    """Dense layers, whose block rows have the same columns: one to eleven of them, 5 groups of pixels, by one thread and by three."""
    for filters in (8, 16, 24, 40, 83):
        node = conv(RNG(filters), filters, 5, (3, 3), pad=(1, 1, 1, 1), block=0)
        for threads in (1, 3):
            compare(node, few_bits(RNG(4), 1, 5, 6, 13), dtype, isa, tile=tile, threads=threads)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
def test_sums_wait_between_chunks_of_channels(dtype: str, isa: str) -> None:
    """More maps than the 2304 of floats (two, four times as many shorter numbers) of a chunk; 9 x 15 pixels are more than the groups
    whose maps are made before. Of many weights few are kept, so that sums stay small."""
    channels = 300 if isa in ("scalar", "avx2", "avx512") else 600 if dtype == "bfloat16" else 1200
    for transform, block, size in (("identity", 8, (9, 15)), ("dct", 8, (9, 15)), ("identity", 8, (1, 3)), ("identity", 0, (9, 15))):
        node = conv(RNG(5), 20, channels, (3, 3), pad=(1, 1, 1, 1), transform=transform, block=block)
        node.tensors["values"][:] *= RNG(7).random(node.tensors["values"].shape) < 300 / channels
        compare(node, few_bits(RNG(6), 1, channels, *size), dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
def test_chunks_of_taps_that_are_read_in_place(dtype: str, isa: str) -> None:
    """5,000 maps out of padded copies, 4,608 of a chunk of 16-bit ones."""
    node = conv(RNG(5), 11, 8, (25, 25), pad=(12, 12, 12, 12))
    node.tensors["values"][:] *= RNG(7).random(node.tensors["values"].shape) < 0.05
    compare(node, few_bits(RNG(6), 1, 8, 3, 16), dtype, isa)


@pytest.mark.parametrize(("dtype", "isa"), SHORT)
def test_maps_before_the_product(dtype: str, isa: str) -> None:
    """Few pixels and more than 512 KiB of weights: int8 has 12 bytes for eight weights."""
    for transform, block, stride in (("dct", 8, (1, 1)), ("identity", 8, (2, 2)), ("identity", 0, (1, 1))):
        node = conv(RNG(7), 208, 256, (3, 3), pad=(1, 1, 1, 1), stride=stride, transform=transform, block=block, density=0.8)
        compare(node, few_bits(RNG(8), 1, 256, 5 * stride[0], 7 * stride[1], low=-32, high=32), dtype, isa)


def support(node: FakeNode, transformed: bool) -> np.ndarray:
    """[O, C, R, S]: whether tap (r, s) of channel c enters filter o, zeros inside a kept block included."""
    r = node.attrs["block"]
    shape = (node.attrs["filters"], node.attrs["channels"], *node.attrs["kernel"])
    kept = np.zeros((-(-shape[0] // r), int(np.prod(shape[1:]))), bool)
    rows = np.repeat(np.arange(len(kept)), np.diff(node.tensors["rows"].astype(int)))
    kept[rows, node.tensors["columns"]] = True
    kept = kept.repeat(r, axis=0)[: shape[0]].reshape(shape)
    if not transformed:
        return kept
    enters = [np.abs(dct_matrix(n)) > 1e-9 for n in shape[2:]]  # (1, 0, -1) does not see its middle
    return np.einsum("ocuv,ui,vj->ocij", kept, *enters) > 0


@pytest.mark.parametrize(("dtype", "isa"), [case for case in ALL if case[0] != "int8"])
@pytest.mark.parametrize("size", [(1, 3), (5, 5), (8, 12), (3, 16)])
@pytest.mark.parametrize("transform", ["identity", "dct"])
def test_nan_reaches_the_pixels_that_read_it_and_no_others(transform: str, size: tuple[int, int], dtype: str, isa: str) -> None:
    node = conv(RNG(21), 20, 5, (3, 3), pad=(1, 1, 1, 1), transform=transform, block=8, density=0.2)
    x = few_bits(RNG(22), 2, 5, *size)
    x[0, 1, 0, 1], x[1, 3, -1, -1] = np.nan, np.uint32(0x7FFFFFFF).view(np.float32)  # of which rounding as of a number makes -0
    engine = engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype=dtype)
    reads = FakeNode("reads", "conv", ("x",), node.attrs | {"format": "dense", "transform": "identity", "block": 1}, {})
    reads.tensors["values"] = support(node, in_transform(engine)).astype(np.float32)
    assert np.array_equal(np.isnan(engine(x)), reference.run_node(reads, np.isnan(x)) > 0)


@pytest.mark.parametrize("isa", isas_of("int8"))
def test_what_is_no_number_in_int8_stays_with_its_readers(isa: str) -> None:
    """Eight bits have no NaN: what a convolution makes of it is unspecified, but only where it is read."""
    node = conv(RNG(21), 8, 5, (3, 3), pad=(1, 1, 1, 1), block=8)
    x = few_bits(RNG(22), 1, 5, 8, 12)
    engine = engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype="int8", calibration=[x])
    clean = engine(x)
    x[0, 1, 3, 4] = np.nan
    reads = np.zeros((8, 12), bool)
    reads[2:5, 3:6] = True
    assert np.array_equal(engine(x)[:, :, ~reads], clean[:, :, ~reads])


@pytest.mark.parametrize(("dtype", "isa"), [case for case in ALL if case[0] != "int8"])
def test_infinity_stays_where_it_is_multiplied(dtype: str, isa: str) -> None:
    """One infinite pixel: infinite in the filters that keep it, finite in those of the empty block row; columns that leave a step of any
    kind to be filled, so that what fills it shows."""
    for columns in (1, 2, 3, 4, 5, 31, 32, 33, 65):
        node = conv(RNG(23), 16, columns, (1, 1), block=8, density=1.0)
        x = few_bits(RNG(24), 1, columns, 3, 6)
        x[0, -1, 1, 2] = np.inf
        want = reference.run(graph_of([node], {"x": x.shape[1:]}), x)[0]
        y = engine_of(graph_of([node], {"x": x.shape[1:]}), isa=isa, dtype=dtype)(x)
        assert np.isfinite(y[:, :8]).all()
        np.testing.assert_array_equal(y[:, 8:, 1, 2], want[:, 8:, 1, 2])
        assert np.isinf(y).sum() == 8


@pytest.mark.parametrize("isa", isas_of("bfloat16"))
def test_floats_become_the_nearest_bfloat16(isa: str) -> None:
    """A weight of 1 shows what its map was rounded to: ties to even up to 2^80, above within half a unit, infinity where it is. The
    instructions for bfloat16 take denormals for zero, and AMX halves a lone weight until it fills a step."""
    node = FakeNode("c", "conv", ("x",), conv(RNG(0), 8, 1, (1, 1)).attrs, {"values": np.ones((8, 1, 1, 1), np.float32)})
    bits = RNG(1).integers(0, 2**32, 6000, np.uint32)
    bits[1000:3000] = bits[1000:3000] & 0xFFFF0000 | 0x8000  # ties
    bits[3000:4000] &= 0xFFFF0000  # exact
    bits[4000:5000] |= 0x7FFF
    x = bits.view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.array([0, np.inf, -np.inf, 2.0**80, np.finfo(np.float32).max], np.float32)])
    y = engine_of(graph_of([node], {"x": (1, 1, len(x))}), isa=isa, dtype="bfloat16")(x[None, None, None])[0, :, 0]
    assert (y == y[0]).all()
    x, y = x.astype(np.float64), y[0].astype(np.float64)
    size = np.abs(x)
    usual = (size >= 2.0**-90) & (size < 2.0**80)
    np.testing.assert_array_equal(y[usual], round_bf16(x[usual]))
    np.testing.assert_array_equal(y[np.isinf(x)], x[np.isinf(x)])
    finite = np.isfinite(y)
    assert (np.abs(y[finite] - x[finite]) <= 2.0**-8 * size[finite] + 2.0**-120).all()
    assert (size[np.isinf(y)] >= (2 - 2.0**-8) * 2.0**127).all()


def written(folder: Path) -> Path:
    path = folder / "net.cosparse"
    artifact.write(path, graph_of([conv(RNG(0), 8, 3, (3, 3))], {"x": (3, 8, 8)}))
    return path


def test_dtypes_that_there_are_no_kernels_for_are_refused(tmp_path: Path) -> None:
    for dtype in ("float16", "float64", "int4", "observe", "bf16"):
        with pytest.raises(cosparse.UnsupportedError, match=rf"dtype: expected float32, bfloat16 or int8, got {dtype}"):
            cosparse.load(written(tmp_path), dtype=dtype)


def test_the_engine_says_what_it_multiplies(tmp_path: Path) -> None:
    path, x = written(tmp_path), few_bits(RNG(0), 4, 3, 8, 8)
    assert cosparse.load(path).dtype == "float32"
    engines = {dtype: cosparse.load(path, dtype=dtype, calibration=x, threads=1) for dtype in ("float32", "bfloat16", "int8")}
    for dtype, engine in engines.items():
        assert (engine.dtype, engine.inputs[0].dtype, engine.outputs[0].dtype) == (dtype, "float32", "float32")
        assert dtype in repr(engine)
        assert engine(x).dtype == np.float32
        assert {"float32": "_f32_", "bfloat16": "_bf16_", "int8": "_int8_"}[dtype] in engine.plan.rows[0].kernel


def packed_bytes(engine: Engine) -> int:
    return engine.plan.rows[0].bytes


def test_short_numbers_take_fewer_bytes_where_the_machine_multiplies_them() -> None:
    """Per block of eight: 36 bytes, 20 in pairs of columns, 12 in quads; emulated they are floats. AVX2 has quads of int8 too, whose places
    need not all be taken, and a count for each block row."""
    graph = graph_of([conv(RNG(25), 64, 64, (1, 1), block=8, density=1.0)], {"x": (64, 4, 4)})
    x = few_bits(RNG(26), 1, 64, 4, 4)
    size = {(d, isa): packed_bytes(engine_of(graph, isa=isa, dtype=d, calibration=[x] if d == "int8" else [])) for d, isa in ALL}
    for (dtype, isa), bytes_ in size.items():
        narrow = (dtype, isa) == ("int8", "avx2")
        native = {"bfloat16": 20, "int8": 12}[dtype] if narrow or isa in ("amx", "avx512_bf16", "avx512_vnni") else 36
        rest = ((3 if narrow else 2) * 8 + 64 * (2 if dtype == "int8" else 1)) * 4  # where rows begin; bias, scale
        assert 0 <= bytes_ - (7 * 64 * native + rest) <= (0.05 * bytes_ if narrow else 0), (dtype, isa)
