"""Convolutions by Winograd's tiles: the algorithm, the kernels of every instruction set over awkward planes, and when they are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chains import add, layer
from engines import EPS, ISAS, graph_of
from nodes import FakeNode, conv
from rounded_conv import assert_within

import cosparse
from cosparse import _C
from cosparse.engine import Engine, artifact
from cosparse.engine.graph import Graph
from cosparse.kernels import conv as direct
from cosparse.kernels import reference, winograd
from cosparse.kernels.conv import unpack
from cosparse.kernels.window import padded

PAD = (1, 1, 1, 1)
SIZES = [(1, 1), (2, 2), (4, 4), (7, 7), (5, 33), (31, 3), (16, 16), (13, 64), (9, 130)]
RNG = np.random.default_rng


def engine_of(graph: Graph, **options: Any) -> Engine:
    """Winograd's tiles wherever they can run, in poisoned memory."""
    settings = {"threads": 2, "poison": True, "winograd": True} | options
    return Engine(_C.parse_artifact(artifact.to_bytes(graph)), **settings)


def images(*shape: int, seed: int = 1) -> np.ndarray:
    return RNG(seed).normal(size=shape).astype(np.float32)


def of_fields(x: np.ndarray, dilation: tuple[int, int], f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """f, which takes off two rows and columns, of each field of the padded x; its results lie where the field's pixels do."""
    down, along = dilation
    y = np.zeros((*f(x[:, :, :3, :3]).shape[:2], x.shape[2] - 2 * down, x.shape[3] - 2 * along))
    for i in range(min(down, y.shape[2])):
        for j in range(min(along, y.shape[3])):
            y[:, :, i::down, j::along] = f(x[:, :, i::down, j::along])
    return y


def check(node: FakeNode, x: np.ndarray, **options: Any) -> None:
    """Against the float64 reference. Behind an output are the roundings of 6 + 6 terms of the source's transform, of the weight, of the sum
    over channels, of 6 + 6 terms of the result's, and of the bias: each at most eps of the magnitudes."""
    graph = graph_of([node], {"x": x.shape[1:]})
    engine = engine_of(graph, **options)
    assert engine.plan.rows[0].kernel.startswith("winograd_f32"), engine.plan.rows[0].kernel
    (want,) = reference.run(graph, x)
    whole = padded(x.astype(np.float64), node.attrs["pad"])
    size = of_fields(whole, node.attrs["dilation"], lambda field: winograd.magnitude(field, unpack(node)))
    bias = np.abs(node.tensors["bias"].astype(np.float64))[:, None, None]
    assert_within(engine(x), want, EPS * (size * (x.shape[1] + 26) + bias))


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 6), (11, 3)])
def test_the_algorithm_is_the_convolution(size: tuple[int, int]) -> None:
    x, w = images(2, 3, size[0] + 2, size[1] + 2).astype(np.float64), images(4, 3, 3, 3).astype(np.float64)
    want = direct.correlate(x, w, (1, 1), (1, 1), size)
    assert_within(winograd.correlate(x, w), want, 2**-52 * 40 * winograd.magnitude(x, w))


def test_its_points_are_exact_and_the_matrices_known() -> None:
    a, b, g = winograd.matrices()
    assert (a == a.astype(np.float32)).all()
    assert (b == b.astype(np.float32)).all()
    assert b[:, 0].tolist() == [1.265625, 0, -2.8125, 0, 1, 0]  # (z^2 - 9/16) (z^2 - 9/4)
    assert np.allclose(g[1], [-128 / 243, -96 / 243, -72 / 243], rtol=1e-15)  # M at 3/4 is 2 (9/16) (9/16 - 9/4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(("filters", "channels"), [(8, 8), (21, 13), (9, 10), (10, 15)])
def test_planes_and_batches(isa: str, size: tuple[int, int], filters: int, channels: int) -> None:
    node = conv(RNG(3), filters, channels, (3, 3), pad=PAD)
    for batch in (1, 2, 5):
        check(node, images(batch, channels, *size), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (2, 0, 1, 3), (5, 4, 6, 7)])
def test_paddings(isa: str, pad: tuple[int, int, int, int]) -> None:
    node = conv(RNG(4), 9, 8, (3, 3), pad=pad)
    for size in ((3, 3), (6, 35), (17, 4)):
        check(node, images(2, 8, *size), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dilation", [(2, 2), (1, 3), (4, 1), (8, 7)])
def test_dilated_layers_are_fields_of_pixels(isa: str, dilation: tuple[int, int]) -> None:
    down, along = dilation
    node = conv(RNG(5), 10, 8, (3, 3), dilation=dilation, pad=(down, along, down, along))
    for size in ((1, 1), (7, 5), (13, 30), (9, 70)):
        check(node, images(2, 8, *size), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3, 4])
@pytest.mark.parametrize("tile", [0, 1, 2, 4, 5, 8, 9])
def test_blocks_and_threads_change_no_bit(isa: str, threads: int, tile: int) -> None:
    node = conv(RNG(6), 40, 8, (3, 3), pad=PAD)
    graph, x = graph_of([node], {"x": (8, 30, 37)}), images(3, 8, 30, 37)
    alone = engine_of(graph, isa=isa, threads=1)
    assert alone.plan.rows[0].kernel.startswith("winograd_")
    want = alone(x)
    assert (engine_of(graph, isa=isa, threads=threads, tile=tile)(x) == want).all()
    assert (engine_of(graph, isa=isa, threads=threads, tile=tile)(x[:1]) == want[:1]).all()


@pytest.mark.parametrize("block", [1, 2, 8])
@pytest.mark.parametrize("transform", ["identity", "dct"])
def test_masked_layers_run_with_their_zeros(block: int, transform: str) -> None:
    check(conv(RNG(7), 18, 9, (3, 3), pad=PAD, block=block, transform=transform, extras=("bias", "scale")), images(1, 9, 12, 12))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [None, ("relu", 0, 0), ("clip", -3.0, 4.0), ("leaky_relu", 0.25, 0)], ids=str)
@pytest.mark.parametrize("reader", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_what_follows(isa: str, kind: tuple[str, float, float] | None, reader: int, dilation: int) -> None:
    """Residual and activation, into tiles that a 1x1 layer reads, or planes. 16 channels of at most 18, times 9 taps, times 16 more: 4e4
    eps of error, where an activation left out differs by 1."""
    first, second, last = layer("a0", "x", 16, 8), layer("b", "e", 16, 16, 3, keep=0.5, seed=1), layer("d", "c", 9, 16, reader, seed=2)
    second = FakeNode("b", "conv", ("e",), second.attrs | {"dilation": [dilation] * 2, "pad": [dilation] * 4}, second.tensors)
    # What is added is read by nobody else, so that the sum lies where it lay.
    relu = {"kind": "relu", "alpha": 0.0, "beta": 0.0}
    nodes = [first, FakeNode("a", "activation", ("a0",), relu), FakeNode("e", "activation", ("x2",), relu), second, add("s", "b", "a")]
    if kind:
        nodes.append(FakeNode("c", "activation", ("s",), {"kind": kind[0], "alpha": float(kind[1]), "beta": float(kind[2])}))
    else:
        last = FakeNode("d", "conv", ("s",), last.attrs, last.tensors)
    graph = graph_of([*nodes, last], {"x": (8, 11, 14), "x2": (16, 11, 14)})
    engine = engine_of(graph, isa=isa)
    convs = [row.kernel.split("_")[0] for row in engine.plan if row.op == "conv"]
    assert convs == ["conv", "winograd", "winograd" if reader == 3 else "conv"]
    x, x2 = (RNG(8).integers(-2, 2, (2, channels, 11, 14), endpoint=True).astype(np.float32) for channels in (8, 16))
    (want,) = reference.run(graph, x, x2)
    assert_within(engine(x, x2), want, 2e-3)


@pytest.mark.parametrize("transform", ["identity", "dct"])
@pytest.mark.parametrize(("block", "density"), [(0, 1.0), (8, 1.0), (8, 0.4), (4, 0.1)])
def test_it_counts_what_a_mask_leaves(transform: str, block: int, density: float) -> None:
    """As in its other forms, at the most all taps: reductions are the mask's, whatever form is the fastest."""
    node = conv(RNG(2), 20, 16, (3, 3), pad=PAD, transform=transform, block=block, density=density)
    (tiles,) = engine_of(graph_of([node], {"x": (16, 9, 12)})).plan
    (plain,) = engine_of(graph_of([node], {"x": (16, 9, 12)}), winograd=False).plan
    assert tiles.dense_flops == plain.dense_flops
    assert tiles.flops + tiles.basis_flops == min(plain.flops + plain.basis_flops, plain.dense_flops)
    assert tiles.density == tiles.flops / tiles.dense_flops


def test_its_error_is_a_few_times_that_of_plain_sums() -> None:
    node = conv(RNG(9), 64, 64, (3, 3), pad=PAD)
    graph, x = graph_of([node], {"x": (64, 28, 28)}), np.maximum(images(1, 64, 28, 28), 0)
    (want,) = reference.run(graph, x)
    error = [float(np.sqrt(((engine_of(graph, winograd=on)(x) - want) ** 2).mean())) for on in (True, False)]
    assert error[0] < 4 * error[1]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": (3, 3), "stride": (2, 2)},
        {"kernel": (3, 3), "stride": (1, 2)},
        {"kernel": (3, 1)},
        {"kernel": (5, 5)},
        {"kernel": (3, 3), "groups": 2},
        {"kernel": (3, 3), "dilation": (9, 1), "pad": (9, 0, 9, 0)},
    ],
    ids=str,
)
def test_other_layers_do_without(options: dict[str, Any]) -> None:
    node = conv(RNG(1), 16, 16, **options)
    (row,) = engine_of(graph_of([node], {"x": (16, 12, 12)})).plan
    assert row.kernel.startswith("conv_")


@pytest.mark.parametrize(("filters", "channels"), [(7, 16), (16, 7)])
def test_few_channels_or_filters_do_without(filters: int, channels: int) -> None:
    (row,) = engine_of(graph_of([conv(RNG(1), filters, channels, (3, 3))], {"x": (channels, 12, 12)})).plan
    assert row.kernel.startswith("conv_")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_short_dtypes_do_without(dtype: str) -> None:
    graph, x = graph_of([conv(RNG(1), 16, 16, (3, 3), pad=PAD)], {"x": (16, 12, 12)}), images(1, 16, 12, 12)
    (row,) = engine_of(graph, dtype=dtype, calibration=[[x]] if dtype == "int8" else []).plan
    assert row.kernel.startswith("conv_")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.cosparse"
    artifact.write(path, graph_of([conv(RNG(1), 64, 64, (3, 3), pad=PAD)], {"x": (64, 24, 24)}))
    return path


def kept(cache: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = cache.glob("*")
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_loading_measures_it_and_the_cache_decides(cache: Path, network: Path) -> None:
    assert "winograd" in next(iter(cosparse.load(network, threads=2).plan)).why
    path, stored = kept(cache)
    (layer,) = stored["layers"].values()
    for form in ("winograd", "spatial"):
        layer["form"] = form
        path.write_text(json.dumps(stored), encoding="utf-8")
        (row,) = cosparse.load(network, threads=2).plan
        assert row.kernel.startswith("winograd_") == (form == "winograd")


def test_it_can_be_asked_for_and_refused(cache: Path, network: Path) -> None:
    for winograd_, tune in ((True, False), (True, True), (False, True), (False, False)):
        (row,) = cosparse.load(network, threads=2, winograd=winograd_, tune=tune).plan
        assert row.kernel.startswith("winograd_") == winograd_
        assert ("winograd" in row.why) == (winograd_ and tune)


def test_without_measuring_it_is_not_taken(network: Path) -> None:
    assert next(iter(cosparse.load(network, tune=False).plan)).kernel.startswith("conv_")


def test_a_dense_engine_measures_both_dense_forms(cache: Path, network: Path) -> None:
    assert cosparse.load(network, threads=2, dense=True)._native.measured == 1
    (layer,) = kept(cache)[1]["layers"].values()
    assert {name.split("/")[0] for name in layer["us"]} == {"dense", "winograd"}
    assert cosparse.load(network, threads=2)._native.measured == 1  # its own: stored zeros count for the one and not for the other


def test_sparse_layers_are_not_measured_by_it(cache: Path, tmp_path: Path) -> None:
    """36 places serve 16 pixels: where a mask leaves less than 36/16 coefficients of nine, there is nothing to gain."""
    for density, measured in ((0.05, False), (0.4, True)):
        path = tmp_path / f"{density}.cosparse"
        artifact.write(path, graph_of([conv(RNG(1), 64, 64, (3, 3), pad=PAD, block=8, density=density)], {"x": (64, 12, 12)}))
        assert ("winograd" in next(iter(cosparse.load(path, threads=2).plan)).why) == measured


@pytest.mark.parametrize(("channels", "most"), [(128, 1 << 20), (512, 16 << 20)], ids=["scratch", "weights"])
def test_a_limit_of_memory_is_kept(channels: int, most: int, cache: Path, tmp_path: Path) -> None:
    """Its places need room in scratch, its weights four times that of dense ones; where either is missing the layer does without."""
    path = tmp_path / "net.cosparse"
    artifact.write(path, graph_of([conv(RNG(1), channels, channels, (3, 3), pad=PAD)], {"x": (channels, 4, 4)}))
    cosparse.load(path, threads=1)
    where, stored = kept(cache)
    (layer,) = stored["layers"].values()
    layer["form"] = "winograd"  # measured where there was more room
    where.write_text(json.dumps(stored), encoding="utf-8")
    assert next(iter(cosparse.load(path, threads=1).plan)).kernel.startswith("winograd_")
    for _ in range(2):  # with the file, and measured anew
        assert next(iter(cosparse.load(path, threads=1, max_memory=most).plan)).kernel.startswith("conv_")
        where.unlink(missing_ok=True)


def test_little_memory_neither_refuses_a_network_nor_spoils_the_cache(cache: Path, tmp_path: Path) -> None:
    """Activations that take most of the limit leave no room for places; what was measured then counts only where that is so again."""
    path = tmp_path / "net.cosparse"
    artifact.write(path, graph_of([conv(RNG(1), 64, 64, (3, 3), pad=PAD)], {"x": (64, 56, 56)}))
    (tight,) = cosparse.load(path, threads=1, max_memory=1_800_000).plan
    assert tight.kernel.startswith("conv_")
    assert "winograd" not in tight.why
    assert "winograd" in next(iter(cosparse.load(path, threads=1).plan)).why


def test_other_sizes_are_measured_and_batches_counted_by_form(cache: Path, network: Path) -> None:
    for winograd_ in (True, False):
        engine = cosparse.load(network, threads=2, winograd=winograd_)
        engine.warmup((3,))
        assert next(iter(engine.plan_for((3, 64, 24, 24)))).kernel.startswith("winograd_") == winograd_
    stored = kept(cache)[1]
    assert {key.rsplit(" ", 1)[1] for key in stored["layers"] if " as " in key} >= {"winograd"}
    assert len(stored["batches"]) == 2
