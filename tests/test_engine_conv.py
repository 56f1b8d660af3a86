"""Every conv kernel of the table against the float64 reference, over awkward shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from engines import ISAS, check, engine_of, graph_of, in_transform
from nodes import FakeNode, conv, kept_blocks
from rounded_conv import EPS, assert_within, few_bits, in_bf16, in_int8, product_of, steps_for

from cosparse import _C
from cosparse.kernels.conv import unpack
from cosparse.kernels.table import GROUP

FEW = 4  # pixels that the kernel with filters side by side takes at most; kLanePixels of csrc/kernels/kernel.h


def rows_of(dtype: str) -> list[dict[str, Any]]:
    """The conv kernels that this machine runs; those that only calibrate run in the tests of int8."""
    rows = [row for row in _C.kernels() if row["op"] == "conv" and row["dtype"] == dtype and row["available"]]
    return [row for row in rows if "observe" not in row["name"]]


def run(node: FakeNode, channels: int, size: tuple[int, int], batch: int, **options: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batch, channels, *size)).astype(np.float32)
    weights = unpack(node)
    # The DCT of the taps adds up to R S of them before the product does; its matrices' entries are below 1.
    products = np.abs(weights).reshape(len(weights), -1).sum(axis=1).max() * np.sqrt(weights[0, 0].size)
    terms = weights[0].size + weights[0, 0].size + 4
    check(graph_of([node], {"x": (channels, *size)}), [x], terms=terms, gain=float(products) + 4, **options)


def channels_for(row: dict[str, Any]) -> int:
    """Enough of them for the kernel to be chosen at the density of walks(); 5 where it takes any number of columns."""
    return 5 + row["least_columns"]


def walks(row: dict[str, Any], transform: str) -> Iterator[tuple[FakeNode, int]]:
    """Pixel counts around the tile's width: 1, width - 1, width, width + 1, a prime, several tiles; filters that fill the last block
    row and do not."""
    width, channels = GROUP * row["t"] or FEW, channels_for(row)
    for filters in (row["r"], 2 * row["r"] + 1, 3):
        options = {"pad": (1, 1, 1, 1), "transform": transform, "block": row["r"], "density": 0.4}
        node = conv(np.random.default_rng(filters), filters, channels, (3, 3), **options)
        for pixels in {1, 2, width - 1, width, width + 1, 37, 3 * width + 5}:
            yield node, pixels


@pytest.mark.parametrize("transform", ["identity", "dct"])
@pytest.mark.parametrize("row", rows_of("float32"), ids=lambda row: row["name"])
def test_every_tile_walks_every_width(row: dict[str, Any], transform: str) -> None:
    kernels = set()
    for node, pixels in walks(row, transform):
        run(node, channels_for(row), (1, pixels), 1, isa=row["isa"], tile=row["t"], threads=1)
        engine = engine_of(graph_of([node], {"x": (channels_for(row), 1, pixels)}), isa=row["isa"], tile=row["t"], threads=1)
        kernels.add(engine.plan.rows[0].kernel)
    assert row["name"] in kernels


@pytest.mark.parametrize("transform", ["identity", "dct"])
@pytest.mark.parametrize("row", rows_of("bfloat16"), ids=lambda row: row["name"])
def test_every_bfloat16_tile_walks_every_width(row: dict[str, Any], transform: str) -> None:
    """Inputs of few bits, so that the reference has the kernels' maps exactly and every rounding is accounted for."""
    kernels = set()
    for node, pixels in walks(row, transform):
        x = few_bits(np.random.default_rng(1), 1, channels_for(row), 1, pixels)
        graph = graph_of([node], {"x": (channels_for(row), 1, pixels)})
        engine = engine_of(graph, isa=row["isa"], tile=row["t"], threads=1, dtype="bfloat16")
        want, bound = in_bf16(product_of(node, x, transformed=in_transform(engine)))
        assert_within(engine(x), want, bound)
        kernels.add(engine.plan.rows[0].kernel)
    assert row["name"] in kernels


@pytest.mark.parametrize("transform", ["identity", "dct"])
@pytest.mark.parametrize("row", rows_of("int8"), ids=lambda row: row["name"])
def test_every_int8_tile_walks_every_width(row: dict[str, Any], transform: str) -> None:
    """The reference has the same whole numbers, so only the last multiplication and addition may round."""
    kernels = set()
    for node, pixels in walks(row, transform):
        x = few_bits(np.random.default_rng(1), 1, channels_for(row), 1, pixels)
        graph = graph_of([node], {"x": (channels_for(row), 1, pixels)})
        engine = engine_of(graph, isa=row["isa"], tile=row["t"], threads=1, dtype="int8", calibration=[x])
        product = product_of(node, x, transformed=in_transform(engine))
        q = in_int8(product, steps_for(product), fused=row["isa"] != "scalar")
        assert q.largest_sum < 2**24
        bound = 2 * EPS * (np.abs(q.weights @ q.numbers * q.scale) + np.abs(q.bias))
        assert_within(engine(x), product.image(q.y), product.image(bound))
        kernels.add(engine.plan.rows[0].kernel)
    assert row["name"] in kernels


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (7, 7), (5, 33), (16, 16), (31, 3)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("block", [0, 1, 8])
def test_planes_and_batches(isa: str, size: tuple[int, int], batch: int, block: int) -> None:
    run(conv(np.random.default_rng(3), 16, 6, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=block), 6, size, batch, isa=isa)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)], ids=["1x1", "3x3"])
@pytest.mark.parametrize("row", rows_of("float32"), ids=lambda row: row["name"])
def test_columns_that_follow_each_other(row: dict[str, Any], kernel: tuple[int, int]) -> None:
    """Block rows of none, of one column, of all, of some in the midst, of such with one left out, of all from one place to the end."""
    channels, r = 23 + row["least_columns"], row["r"]
    columns, pad, tile = channels * kernel[0] * kernel[1], kernel[0] // 2, {"isa": row["isa"], "tile": row["t"]}
    keep = np.zeros((6, columns), bool)
    keep[1, 7] = keep[2] = keep[3, 3:-5] = keep[4, 2:-2] = keep[5, columns // 2 :] = True
    keep[4, 9] = False
    options = {"pad": (pad,) * 4, "transform": "dct" if pad else "identity", "block": r}
    node = conv(np.random.default_rng(7), 6 * r, channels, kernel, **options)
    node.tensors.update(kept_blocks(np.random.default_rng(8), 6 * r, keep, r))
    run(node, channels, (5, GROUP * row["t"] + 3), 2, **tile)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("points", range(1, 12))
def test_a_dct_of_every_length(points: int, isa: str) -> None:
    """Along rows, along columns, along both with some columns that no filter reads; on rows that vectors cross, and cross twice."""
    for kernel, size in (((1, points), (3, 17)), ((points, 1), (17, 3)), ((points, 12 - points), (9, 11)), ((points, 3), (12, 5))):
        pad = [n // 2 for n in kernel for _ in range(2)]
        node = conv(np.random.default_rng(9), 13, 5, kernel, pad=pad, transform="dct", block=8, density=0.1)
        run(node, 5, size, 2, isa=isa)


@pytest.mark.parametrize("apart", [1, 3])
@pytest.mark.parametrize("row", rows_of("float32"), ids=lambda row: row["name"])
def test_rows_of_few_columns(row: dict[str, Any], apart: int) -> None:
    """Block rows of 0, 1, .. 13 columns, side by side and apart: loops that take several columns at once have rests of every length."""
    r, rows, channels = row["r"], 14, 45 + row["least_columns"]
    keep = np.zeros((rows, channels), bool)
    for columns in range(rows):
        keep[columns, columns % 5 :][: apart * columns : apart] = True
    node = conv(np.random.default_rng(7), rows * r, channels, (1, 1), block=r)
    node.tensors.update(kept_blocks(np.random.default_rng(8), rows * r, keep, r))
    for pixels in (GROUP * row["t"] or FEW, GROUP + 3):
        run(node, channels, (1, pixels), 1, isa=row["isa"], tile=row["t"], threads=1)


GEOMETRIES = {
    "stride2": {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1, 1, 1)},
    "stride2_unpadded": {"kernel": (3, 3), "stride": (2, 2)},
    "stride_2x1": {"kernel": (3, 3), "stride": (2, 1), "pad": (1, 0, 0, 1)},
    "stride_1x2": {"kernel": (3, 3), "stride": (1, 2), "pad": (0, 1, 1, 0)},
    "stride3": {"kernel": (3, 3), "stride": (3, 3), "pad": (1, 2, 1, 2)},
    "stride_far": {"kernel": (3, 3), "stride": (7, 9), "pad": (2, 2, 2, 2), "dilation": (1, 2)},
    "stride3_kernel2": {"kernel": (2, 2), "stride": (3, 3)},
    "stride4_kernel11": {"kernel": (11, 11), "stride": (4, 4), "pad": (2, 2, 2, 2)},
    "unpadded": {"kernel": (3, 3)},
    "dilated": {"kernel": (3, 3), "dilation": (2, 3), "pad": (2, 3, 2, 3)},
    "dilated_far": {"kernel": (3, 3), "dilation": (12, 12), "pad": (12, 12, 12, 12)},
    "dilated_stride2": {"kernel": (3, 3), "stride": (2, 2), "dilation": (2, 2), "pad": (2, 2, 2, 2)},
    "asymmetric": {"kernel": (3, 3), "pad": (0, 2, 3, 1)},
    "wide_pad": {"kernel": (3, 3), "pad": (5, 4, 5, 4)},
    "row": {"kernel": (1, 7), "pad": (0, 3, 0, 3)},
    "column": {"kernel": (7, 1), "pad": (3, 0, 3, 0)},
    "5x5": {"kernel": (5, 5), "pad": (2, 2, 2, 2)},
    "7x7_stride2": {"kernel": (7, 7), "stride": (2, 2), "pad": (3, 3, 3, 3)},
    "2x2": {"kernel": (2, 2)},
    "1x1_stride2": {"kernel": (1, 1), "stride": (2, 2)},
    "13x13": {"kernel": (13, 13), "pad": (6, 6, 6, 6)},
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 11])  # sources of few channels are copied phase by phase, others read as they lie
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(name: str, channels: int, isa: str) -> None:
    for transform in ("identity", "dct"):
        for block, size, batch in ((0, (14, 19), 1), (8, (15, 14), 3), (2, (13, 21), 2)):
            node = conv(np.random.default_rng(5), 9, channels, **GEOMETRIES[name], transform=transform, block=block, density=0.2)
            run(node, channels, size, batch, isa=isa)


def width_for(out: int, name: str) -> int:
    """The least source width that gives `out` output columns."""
    g = {"stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)} | GEOMETRIES[name]
    return int((out - 1) * g["stride"][1] + (g["kernel"][1] - 1) * g["dilation"][1] + 1 - g["pad"][1] - g["pad"][3])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 8, 11])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_rows_of_whole_groups(name: str, channels: int, isa: str) -> None:
    """Taps of few channels, and of large kernels with a stride, are then read in place, out of copies with padding."""
    for block, out, height, beyond, batch in ((0, 16, 14, 0, 2), (8, 32, 15, 1, 1), (2, 48, 17, 0, 3)):
        node = conv(np.random.default_rng(5), 9, channels, **GEOMETRIES[name], block=block, density=0.2)
        run(node, channels, (height, width_for(out, name) + beyond), batch, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_copies_do_not_grow_with_the_dilation(isa: str) -> None:
    far = 60_000
    node = conv(np.random.default_rng(6), 8, 3, (3, 3), pad=(far,) * 4, dilation=(far, far))
    engine = engine_of(graph_of([node], {"x": (3, 4, 16)}), isa=isa)
    assert np.array_equal(engine(np.zeros((1, 3, 4, 16), np.float32))[0, :, 0, 0], node.tensors["bias"])
    assert engine.arena_bytes < 1 << 20


@pytest.mark.parametrize("isa", ISAS)
def test_more_taps_than_a_chunk_read_in_place(isa: str) -> None:
    run(conv(np.random.default_rng(6), 20, 8, (17, 17), pad=(8, 8, 8, 8), block=8, density=0.3), 8, (3, 16), 1, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("filters", "channels", "groups"), [(12, 6, 3), (16, 16, 2), (6, 6, 6), (12, 6, 6), (7, 7, 7), (24, 4, 2), (64, 8, 4)]
)
def test_groups(filters: int, channels: int, groups: int, isa: str) -> None:
    for stride in ((1, 1), (2, 2)):
        for transform in ("identity", "dct"):
            node = conv(
                np.random.default_rng(7), filters, channels, (3, 3), stride=stride, pad=(1, 1, 1, 1), groups=groups, transform=transform
            )
            run(node, channels, (9, 11), 2, isa=isa)


def test_grouped_blocks() -> None:
    for block in (1, 2, 4, 8):
        node = conv(np.random.default_rng(8), 32, 12, (3, 3), pad=(1, 1, 1, 1), groups=4, transform="dct", block=block)
        run(node, 12, (9, 11), 2)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_wide_blocks_are_cut(block: int) -> None:
    run(conv(np.random.default_rng(9), 80, 3, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=block), 3, (9, 11), 2)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_densities(density: float) -> None:
    for block in (1, 8):
        run(conv(np.random.default_rng(11), 24, 7, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=block, density=density), 7, (10, 10), 1)


def test_all_zero_dense_layer_is_its_bias() -> None:
    node = conv(np.random.default_rng(2), 5, 4, (3, 3))
    node.tensors["values"][:] = -0.0
    run(node, 4, (6, 6), 2)


def test_signed_zero_and_tiny_values_survive() -> None:
    node = conv(np.random.default_rng(2), 8, 4, (1, 1), block=8, density=1.0)
    node.tensors["values"][0] = -0.0
    node.tensors["values"][1] = np.float32(1e-38)
    run(node, 4, (3, 3), 1)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("filters", "size"), [(256, (2, 2)), (256, (4, 4)), (8, (40, 40))])
def test_threads_share_tiles_and_block_rows(filters: int, size: tuple[int, int], threads: int) -> None:
    """Few tiles with many block rows, and many tiles with one: bitwise the same for any number of threads."""
    node = conv(np.random.default_rng(4), filters, 16, (3, 3), pad=(1, 1, 1, 1), transform="dct", block=8)
    run(node, 16, size, 1, threads=threads)
    x = np.random.default_rng(0).normal(size=(1, 16, *size)).astype(np.float32)
    graph = graph_of([node], {"x": (16, *size)})
    assert np.array_equal(engine_of(graph, threads=threads)(x), engine_of(graph, threads=1)(x))


def test_scale_and_no_bias() -> None:
    for extras in ((), ("scale",), ("scale", "bias")):
        run(conv(np.random.default_rng(6), 10, 4, (3, 3), transform="dct", block=4, extras=extras), 4, (7, 7), 1)
