"""Every operator of the engine except conv against the float64 reference, on every instruction set."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from engines import ISAS, check, engine_of, graph_of
from nodes import FakeNode, conv, normal, random_blocks

from cosparse.kernels import reference

SIZES = [(1, 1), (1, 17), (4, 4), (7, 9), (16, 33)]


def make(
    op: str, inputs: tuple[str, ...] = ("x",), tensors: dict[str, np.ndarray] | None = None, name: str | None = None, **attrs: Any
) -> FakeNode:
    return FakeNode(name or f"a_{op}", op, inputs, attrs, tensors or {})


def image(*shape: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return (spread * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


NO_PARAMETERS = ("relu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "softplus", "mish")
ACTIVATIONS = {"clip": (-0.5, 1.25), "leaky_relu": (0.1, 0.0), "elu": (1.5, 0.0), **dict.fromkeys(NO_PARAMETERS, (0.0, 0.0))}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind: str, isa: str) -> None:
    """From tiny to far beyond saturation. 16 roundings: exp's polynomial and what is around it."""
    alpha, beta = ACTIVATIONS[kind]
    node = make("activation", kind=kind, alpha=alpha, beta=beta)
    for spread in (1e-3, 0.3, 1.0, 30.0):
        check(graph_of([node], {"x": (3, 5, 23)}), [image(2, 3, 5, 23, spread=spread)], terms=16, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_fused_behind_a_convolution(kind: str, isa: str) -> None:
    """Block rows that are whole and one that is not, tiles of planes, with an addition before and without."""
    alpha, beta = ACTIVATIONS[kind]
    for adds in (False, True):
        nodes: list[FakeNode] = [conv(np.random.default_rng(0), 20, 4, (3, 3), pad=(1, 1, 1, 1))]
        nodes += [make("add", ("a_conv", "z"), name="sum")] * adds
        nodes.append(make("activation", (nodes[-1].name,), kind=kind, alpha=alpha, beta=beta))
        graph = graph_of(nodes, {"x": (4, 9, 9), **({"z": (20, 9, 9)} if adds else {})})
        assert len(engine_of(graph).plan) == 1
        check(graph, [image(2, 4, 9, 9), *([image(2, 20, 9, 9)] if adds else [])], terms=64, gain=40, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_behind_a_convolution_keep_nan(kind: str, isa: str) -> None:
    alpha, beta = ACTIVATIONS[kind]
    first = conv(np.random.default_rng(0), 20, 4, (1, 1))
    nodes = [first, make("activation", (first.name,), kind=kind, alpha=alpha, beta=beta)]
    x = image(1, 4, 3, 17)
    x[0, 2, 1, 5] = np.nan
    y = engine_of(graph_of(nodes, {"x": (4, 3, 17)}), isa=isa)(x)
    assert np.isnan(y[0, :, 1, 5]).all()
    assert np.isnan(y).sum() == 20


def test_activations_keep_nan_and_infinity() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0], np.float32).reshape(1, 1, 1, 4)
    engine = engine_of(graph_of([make("activation", kind="relu", alpha=0.0, beta=0.0)], {"x": (1, 1, 4)}))
    np.testing.assert_array_equal(engine(x).ravel(), [np.nan, np.inf, 0.0, 0.0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("other", [(4, 7, 9), (4, 1, 1), (1, 7, 9), (1, 1, 1), (4, 1, 9), (4, 7, 1)], ids=str)
def test_broadcasting(op: str, other: tuple[int, ...], isa: str) -> None:
    a, b = image(3, 4, 7, 9), 2 + np.abs(image(3, *other, seed=1))
    for names in (("x", "z"), ("z", "x")):
        graph = graph_of([make(op, names)], {"x": (4, 7, 9), "z": other})
        check(graph, [a if op != "div" else 1 + np.abs(a), b], terms=4, gain=8, isa=isa)


def test_operands_that_broadcast_each_other() -> None:
    check(graph_of([make("mul", ("x", "z"))], {"x": (4, 1, 1), "z": (1, 5, 6)}), [image(2, 4, 1, 1), image(2, 1, 5, 6)], terms=4, gain=4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_channel_parameters(size: tuple[int, int], isa: str) -> None:
    rng = np.random.default_rng(0)
    x = image(3, 5, *size)
    for node in (
        make("affine", tensors={"scale": normal(rng, 5), "shift": normal(rng, 5)}),
        make("prelu", tensors={"slope": normal(rng, 5)}),
        make("layer_norm", tensors={"scale": normal(rng, 5), "shift": normal(rng, 5)}, eps=1e-5),
    ):
        check(graph_of([node], {"x": (5, *size)}), [x], terms=64, gain=16, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_softmax(isa: str) -> None:
    for shape in ((10,), (1,), (21, 5, 6)):
        for spread in (1.0, 40.0):
            check(graph_of([make("softmax", axis=1)], {"x": shape}), [image(3, *shape, spread=spread)], terms=128, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [*SIZES, (40, 50)], ids=str)
def test_group_norm(size: tuple[int, int], isa: str) -> None:
    """Groups of one channel, of some and of all, planes that share a vector; numbers far from zero lose what their mean has."""
    rng = np.random.default_rng(0)
    tensors = {"scale": normal(rng, 6), "shift": normal(rng, 6)}
    for groups in (1, 3, 6):
        for away in (0.0, 10.0):
            node = make("group_norm", tensors=tensors, groups=groups, eps=1e-1)
            check(graph_of([node], {"x": (6, *size)}), [away + image(3, 6, *size)], terms=256, gain=16, isa=isa)


def test_log_softmax() -> None:
    for shape in ((10,), (1,), (21, 5, 6)):
        for spread in (1.0, 200.0):
            check(graph_of([make("log_softmax", axis=1)], {"x": shape}), [image(3, *shape, spread=spread)], terms=64)


POOLS = {
    "3x3_stride2": {"kernel": [3, 3], "stride": [2, 2], "pad": [1, 1, 1, 1]},
    "2x2": {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0, 0, 0]},
    "3x3_same": {"kernel": [3, 3], "stride": [1, 1], "pad": [1, 1, 1, 1]},
    "5x2_uneven": {"kernel": [5, 2], "stride": [3, 1], "pad": [2, 1, 1, 0]},
    "3x3_stride3": {"kernel": [3, 3], "stride": [3, 3], "pad": [0, 0, 0, 0]},
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("ceil", [0, 1])
def test_pools(name: str, ceil: int, isa: str) -> None:
    for size in ((7, 9), (14, 15), (8, 33)):
        x = image(3, 4, *size) - 5  # below zero: padding must not win a maximum
        check(graph_of([make("max_pool", **POOLS[name], dilation=[1, 1], ceil=ceil)], {"x": (4, *size)}), [x], terms=1, isa=isa)
        for count_pad in (0, 1):
            for divisor in (0, 7):
                node = make("avg_pool", **POOLS[name], ceil=ceil, count_pad=count_pad, divisor=divisor)
                check(graph_of([node], {"x": (4, *size)}), [x], terms=32, gain=8, isa=isa)


# Rows shorter than a vector, as long as one, a little longer, several; and windows that reach over the whole plane.
POOL_PLANES = [(1, 1), (1, 15), (3, 16), (5, 17), (2, 31), (13, 37), (3, 67)]
WINDOWS = {
    "2x2_stride2": {"kernel": [2, 2], "stride": [2, 2], "pad": [1, 1, 1, 1]},
    "3x3_stride1": {"kernel": [3, 3], "stride": [1, 1], "pad": [1, 1, 1, 1]},
    "7x7_stride2": {"kernel": [7, 7], "stride": [2, 2], "pad": [3, 3, 3, 3]},
    "9x64_stride5": {"kernel": [9, 64], "stride": [4, 5], "pad": [4, 32, 4, 32]},
    "1x1_stride2": {"kernel": [1, 1], "stride": [2, 2], "pad": [0, 0, 0, 0]},
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("batch", [1, 3])
def test_pools_of_awkward_planes(name: str, batch: int, isa: str) -> None:
    cells = WINDOWS[name]["kernel"][0] * WINDOWS[name]["kernel"][1]
    for height, width in POOL_PLANES:
        x = image(batch, 3, height, width) - 5
        for ceil in (0, 1):
            largest = make("max_pool", **WINDOWS[name], dilation=[1, 1], ceil=ceil)
            check(graph_of([largest], {"x": (3, height, width)}), [x], terms=1, isa=isa)
            average = make("avg_pool", **WINDOWS[name], ceil=ceil, count_pad=ceil, divisor=0)
            check(graph_of([average], {"x": (3, height, width)}), [x], terms=cells + 2, isa=isa)


# Windows that neither overlap nor meet two images: a channel's images are one plane for them, and 2x2 ones on narrow planes go by vectors.
APART = {
    "2x2": {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0, 0, 0]},
    "2x3_padded_columns": {"kernel": [2, 3], "stride": [2, 2], "pad": [0, 1, 0, 1]},
    "1x2_of_every_second_row": {"kernel": [1, 2], "stride": [2, 2], "pad": [0, 0, 0, 0]},
    "3x3_stride3": POOLS["3x3_stride3"],
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("batch", [1, 5])
def test_largest_of_windows_apart(name: str, batch: int, isa: str) -> None:
    for height in (3, 4, 6, 11, 30):
        for width in (4, 6, 8, 12, 16, 24, 32, 33, 64):
            x = image(batch, 3, height, width) - 5
            x[-1, 1, 1, 2] = np.nan
            nodes = [
                make("max_pool", **APART[name], dilation=[1, 1], ceil=0),
                make("activation", ("a_max_pool",), kind="relu", alpha=0.0, beta=0.0),
            ]
            graph = graph_of(nodes, {"x": (3, height, width)})
            for threads in (1, 3):
                np.testing.assert_array_equal(engine_of(graph, isa=isa, threads=threads)(x), reference.run(graph, x)[0])


@pytest.mark.parametrize("isa", ISAS)
def test_pairs_of_one_column(isa: str) -> None:
    x = image(2, 5, 6, 2)
    graph = graph_of([make("max_pool", **APART["2x2"], dilation=[1, 1], ceil=0)], {"x": (5, 6, 2)})
    np.testing.assert_array_equal(engine_of(graph, isa=isa)(x), reference.run(graph, x)[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [[2, 1], [1, 2], [3, 3]], ids=str)
def test_dilated_max_pools(stride: list[int], isa: str) -> None:
    """Also one whose taps step over a plane of one row: what no tap meets is minus infinity."""
    for size, dilation in (((11, 13), [2, 3]), ((17, 40), [3, 5])):
        node = make("max_pool", kernel=[3, 2], stride=stride, pad=[1, 1, 1, 1], dilation=dilation, ceil=0)
        check(graph_of([node], {"x": (4, *size)}), [image(2, 4, *size) - 5], terms=1, isa=isa)
    node = make("max_pool", kernel=[2, 2], stride=stride, pad=[1, 1, 1, 1], dilation=[2, 2], ceil=0)
    y = engine_of(graph_of([node], {"x": (2, 1, 5)}), isa=isa)(image(1, 2, 1, 5))
    np.testing.assert_array_equal(y, np.full_like(y, -np.inf))


@pytest.mark.parametrize("isa", ISAS)
def test_largest_of_a_window_with_nan_is_nan(isa: str) -> None:
    """Wherever in its window it stands: vectors and lanes, rows and columns, windows of one size and of several."""
    x = image(1, 1, 14, 40)
    x[0, 0, [0, 3, 6, 13], [0, 9, 22, 39]] = np.nan
    pools = [make("max_pool", **POOLS[name], dilation=[1, 1], ceil=0) for name in POOLS]
    pools += [make("adaptive_max_pool", size=[*size]) for size in ((7, 8), (5, 9), (1, 1))]
    for node in pools:
        graph = graph_of([node], {"x": (1, 14, 40)})
        np.testing.assert_array_equal(np.isnan(engine_of(graph, isa=isa)(x)), np.isnan(reference.run(graph, x)[0]))


def test_pool_with_activation_behind() -> None:
    nodes = [
        make("avg_pool", **POOLS["2x2"], ceil=0, count_pad=1, divisor=0),
        make("activation", ("a_avg_pool",), kind="relu", alpha=0.0, beta=0.0),
    ]
    check(graph_of(nodes, {"x": (4, 8, 8)}), [image(2, 4, 8, 8)], terms=16)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["adaptive_avg_pool", "adaptive_max_pool"])
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (3, 2), (7, 7), (9, 11), (11, 13)], ids=str)
def test_adaptive_pools(op: str, size: tuple[int, int], isa: str) -> None:
    """Cells of one size, of several, and that overlap."""
    check(graph_of([make(op, size=list(size))], {"x": (5, 9, 11)}), [image(3, 5, 9, 11)], terms=128, isa=isa)


@pytest.mark.parametrize(
    ("axes", "keep"), [([2, 3], 0), ([2, 3], 1), ([1], 1), ([2], 1), ([3], 1), ([1, 2], 1), ([1, 3], 1), ([1, 2, 3], 1)]
)
def test_means(axes: list[int], keep: int) -> None:
    for size in ((5, 6, 7), (1, 1, 1), (33, 2, 17)):
        check(graph_of([make("mean", axes=axes, keep=keep)], {"x": size}), [image(3, *size)], terms=2048)


COPIES = {
    "slice_channels": ("slice", {"axis": 1, "start": 1, "stop": -1, "step": 1}),
    "slice_channels_strided": ("slice", {"axis": 1, "start": 0, "stop": 2**31 - 1, "step": 2}),
    "slice_rows": ("slice", {"axis": 2, "start": -4, "stop": 2**31 - 1, "step": 1}),
    "slice_columns_strided": ("slice", {"axis": 3, "start": 1, "stop": 6, "step": 3}),
    "pad": ("pad", {"before": [1, 2, 3], "after": [2, 0, 1], "mode": "constant", "value": -1.5}),
    "reflect": ("pad", {"before": [0, 2, 3], "after": [0, 1, 4], "mode": "reflect", "value": 0.0}),
    "replicate": ("pad", {"before": [0, 2, 3], "after": [0, 9, 1], "mode": "replicate", "value": 0.0}),
    "flatten": ("reshape", {"shape": [-1]}),
    "reshape": ("reshape", {"shape": [0, -1, 1]}),
    "reshape_mixed": ("reshape", {"shape": [4, 3, -1]}),
    "permute": ("permute", {"order": [0, 2, 3, 1]}),
    "permute_back": ("permute", {"order": [0, 3, 1, 2]}),
    "shuffle": ("channel_shuffle", {"groups": 3}),
    "d2s_crd": ("depth_to_space", {"block": [2, 3], "order": "crd", "crop": [0, 0, 0, 0]}),
    "d2s_dcr": ("depth_to_space", {"block": [2, 3], "order": "dcr", "crop": [1, 2, 0, 1]}),
    "nearest_factor": ("upsample", {"mode": "nearest", "size": [0, 0], "factor": [2, 3], "align_corners": 0}),
    "nearest_size": ("upsample", {"mode": "nearest", "size": [8, 5], "factor": [0, 0], "align_corners": 0}),
    "bilinear_factor": ("upsample", {"mode": "bilinear", "size": [0, 0], "factor": [2, 3], "align_corners": 0}),
    "bilinear_size": ("upsample", {"mode": "bilinear", "size": [17, 3], "factor": [0, 0], "align_corners": 0}),
    "bilinear_corners": ("upsample", {"mode": "bilinear", "size": [17, 1], "factor": [0, 0], "align_corners": 1}),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_moves(name: str, batch: int) -> None:
    op, attrs = COPIES[name]
    # Interpolation weights are computed in float, as PyTorch does: their error is about eps times the position.
    check(graph_of([make(op, **attrs)], {"x": (12, 6, 8)}), [image(batch, 12, 6, 8)], terms=64 if op == "upsample" else 1)


@pytest.mark.parametrize("order", [[0, *rest] for rest in itertools.permutations((1, 2, 3))], ids=str)
def test_every_order_of_axes(order: list[int]) -> None:
    """Planes that are no whole number of the squares in which they are turned."""
    for size in ((18, 33, 17), (5, 1, 40), (1, 16, 3)):
        nodes = [make("permute", order=order, name="turned"), make("reshape", ("turned",), shape=[-1])]
        check(graph_of(nodes, {"x": size}, ["turned", nodes[1].name]), [image(2, *size)], terms=1)


def test_chains_of_moves_become_one_step() -> None:
    """Option A of the CIFAR ResNets, and more: pads of different values keep to their own steps."""
    nodes = [
        make("slice", ("x",), name="rows", axis=2, start=0, stop=2**31 - 1, step=2),
        make("slice", ("rows",), name="columns", axis=3, start=1, stop=2**31 - 1, step=2),
        make("pad", ("columns",), name="pad", before=[3, 1, 0], after=[3, 0, 2], mode="constant", value=0.5),
        make("pad", ("pad",), name="reflect", before=[0, 1, 1], after=[0, 2, 3], mode="reflect", value=0.0),
        make("channel_shuffle", ("reflect",), name="shuffle", groups=3),
        make("pad", ("shuffle",), name="other", before=[0, 1, 0], after=[1, 0, 2], mode="constant", value=-2.0),
        make("slice", ("other",), name="reverse", axis=1, start=1, stop=-1, step=3),
    ]
    graph = graph_of(nodes, {"x": (6, 9, 8)})
    assert len(engine_of(graph).plan) == 2
    check(graph, [image(2, 6, 9, 8)], terms=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [1, 2, 7, 16, 17, 33])
def test_upsampling_of_awkward_planes(columns: int, isa: str) -> None:
    """To fewer columns, about as many, and many more: neighbours that share a vector and neighbours that do not."""
    x = image(2, 3, 5, columns)
    for width in (1, 3, columns, columns + 1, 2 * columns, 8 * columns, 97):
        for mode, corners in (("nearest", 0), ("bilinear", 0), ("bilinear", 1)):
            for height in (2, 5, 23):
                node = make("upsample", mode=mode, size=[height, width], factor=[0, 0], align_corners=corners)
                check(graph_of([node], {"x": (3, 5, columns)}), [x], terms=64, isa=isa)


@pytest.mark.parametrize(("rows", "left"), [(2, 0), (3, 1)])
@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("order", ["crd", "dcr"])
def test_depth_to_space_of_awkward_planes(rows: int, columns: int, left: int, order: str) -> None:
    for width in (1, 8, 13):
        for right in (0, 1):
            if columns * width > left + right:
                node = make("depth_to_space", block=[rows, columns], order=order, crop=[1, left, 0, right])
                check(graph_of([node], {"x": (18 * 2, 3, width)}), [image(2, 18 * 2, 3, width)], terms=1)


def test_upsample_like_another_value() -> None:
    node = make("upsample", ("x", "z"), mode="bilinear", size=[0, 0], factor=[0, 0], align_corners=0)
    check(graph_of([node], {"x": (3, 4, 5), "z": (1, 11, 7)}), [image(2, 3, 4, 5), image(2, 1, 11, 7)], terms=64)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_concat_of_inputs_and_repeats(axis: int) -> None:
    check(
        graph_of([make("concat", ("x", "z", "x"), axis=axis)], {"x": (3, 4, 5), "z": (3, 4, 5)}),
        [image(2, 3, 4, 5), image(2, 3, 4, 5, seed=1)],
        terms=1,
    )


def test_growing_concatenations_share_their_storage() -> None:
    """As in a dense block: each step reads all before it; producers write in place, so no concatenation costs a step."""
    rng = np.random.default_rng(0)
    first = conv(rng, 4, 3, (3, 3), pad=(1, 1, 1, 1))
    nodes = [FakeNode("f0", "conv", ("x",), first.attrs, first.tensors)]
    for i in range(1, 4):
        relu = make("activation", ("f0",), name="cat1", kind="relu", alpha=0.0, beta=0.0)
        nodes.append(make("concat", tuple(f"f{j}" for j in range(i)), name=f"cat{i}", axis=1) if i > 1 else relu)
        part = conv(rng, 4, 4 * i, (3, 3), pad=(1, 1, 1, 1))
        nodes.append(FakeNode(f"f{i}", "conv", (f"cat{i}",), part.attrs, part.tensors))
    nodes.append(make("concat", ("f0", "f1", "f2", "f3"), name="all", axis=1))
    graph = graph_of(nodes, {"x": (3, 6, 7)})
    assert not [row for row in engine_of(graph).plan if row.op == "concat"]
    check(graph, [image(2, 3, 6, 7)], terms=512, gain=3000)


def test_nested_concatenation_and_slices() -> None:
    nodes = [
        make("activation", ("x",), name="a", kind="relu", alpha=0.0, beta=0.0),
        make("activation", ("x",), name="b", kind="tanh", alpha=0.0, beta=0.0),
        make("concat", ("a", "b"), name="ab", axis=1),
        make("slice", ("ab",), name="middle", axis=1, start=2, stop=5, step=1),
        make("activation", ("middle",), name="c", kind="sigmoid", alpha=0.0, beta=0.0),
        make("concat", ("ab", "c", "middle"), name="all", axis=1),
        make("slice", ("all",), name="cut", axis=1, start=-7, stop=2**31 - 1, step=1),
    ]
    check(graph_of(nodes, {"x": (3, 5, 6)}, outputs=("cut", "ab", "middle", "x")), [image(2, 3, 5, 6)], terms=32)


def two_branches() -> list[FakeNode]:
    """Two convolutions of x, and their sum."""
    rng = np.random.default_rng(0)
    parts = {name: conv(rng, 8, 8, (3, 3), pad=(1, 1, 1, 1)) for name in ("a", "b")}
    return [*(FakeNode(name, "conv", ("x",), p.attrs, p.tensors) for name, p in parts.items()), make("add", ("a", "b"), name="sum")]


def test_residual_from_either_side_and_shared() -> None:
    """The addition is folded into the later convolution; an operand with other readers stays."""
    nodes = [
        *two_branches(),
        make("activation", ("sum",), name="relu", kind="relu", alpha=0.0, beta=0.0),
        make("add", ("relu", "a"), name="again"),
        make("add", ("again", "again"), name="twice"),
    ]
    check(graph_of(nodes, {"x": (8, 9, 9)}), [image(2, 8, 9, 9)], terms=400, gain=200)


def test_addition_of_two_convolutions_that_nobody_else_reads() -> None:
    """As in a downsampling block: one of the two takes the addition, not both."""
    graph = graph_of(two_branches(), {"x": (8, 9, 9)})
    assert len(engine_of(graph).plan) == 2
    check(graph, [image(2, 8, 9, 9)], terms=200, gain=100)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 17])
def test_linear(batch: int, isa: str) -> None:
    rng = np.random.default_rng(0)
    for filters, features, block in ((10, 37, 0), (33, 256, 8), (7, 5, 1), (1, 3, 0)):
        tensors = random_blocks(rng, filters, features, block, 0.4) if block else {"values": normal(rng, filters, features)}
        node = make("linear", tensors=tensors | {"bias": normal(rng, filters)}, filters=filters, channels=features, transform="identity")
        node.attrs.update(format="block" if block else "dense", block=block or 1)
        check(graph_of([node], {"x": (features,)}), [image(batch, features)], terms=features + 4, gain=4 * features, isa=isa)
