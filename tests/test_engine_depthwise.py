"""Depthwise convolution against the float64 reference: bands of many rows and of one, strides, residues, ends of rows and planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines import ISAS, check, engine_of, graph_of
from nodes import FakeNode, conv

from cosparse.engine.graph import Node


def depthwise(channels: int, kernel: tuple[int, int], multiplier: int = 1, seed: int = 0, **options: Any) -> FakeNode:
    return conv(np.random.default_rng(seed), channels * multiplier, channels, kernel, groups=channels, **options)


def run(node: FakeNode, channels: int, size: tuple[int, int], batch: int = 1, **options: Any) -> None:
    x = np.random.default_rng(1).normal(size=(batch, channels, *size)).astype(np.float32)
    taps = node.tensors["values"].reshape(len(node.tensors["values"]), -1)
    terms, gain = taps.shape[1] + 2, float(np.abs(taps).sum(axis=1).max()) + 4
    check(graph_of([node], {"x": (channels, *size)}), [x], terms=terms, gain=gain, **options)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 2, 6, 7, 8, 9, 14, 15, 16, 17, 30, 31, 33, 112])
def test_widths(width: int, isa: str) -> None:
    for kernel, pad in (((3, 3), (1, 1, 1, 1)), ((5, 5), (2, 2, 2, 2)), ((1, 7), (0, 3, 0, 3))):
        run(depthwise(3, kernel, pad=pad), 3, (5, width), 2, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (2, 1), (3, 3), (2, 5), (7, 4)])
def test_strides(stride: tuple[int, int], isa: str) -> None:
    for size in ((1, 1), (9, 11), (16, 33), (15, 64), (14, 32)):
        run(depthwise(3, (3, 3), stride=stride, pad=(1, 1, 1, 1)), 3, size, 2, isa=isa)
        run(depthwise(2, (2, 5), stride=stride, pad=(1, 2, 0, 3)), 2, size, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dilation", [(2, 2), (1, 3), (5, 1), (40, 2), (3, 37)])
def test_dilations(dilation: tuple[int, int], isa: str) -> None:
    """Also such that no two taps of a band meet one row, or that most of them lie in the padding."""
    pad = (dilation[0], dilation[1], dilation[0], dilation[1])
    for stride in ((1, 1), (2, 2), (3, 1)):
        run(depthwise(2, (3, 3), stride=stride, dilation=dilation, pad=pad), 2, (21, 23), 2, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (2, 0, 0, 3), (0, 4, 5, 0), (3, 9, 3, 9)])
def test_pads(pad: tuple[int, int, int, int], isa: str) -> None:
    """Also such that whole rows and vectors of a window lie in the padding."""
    for kernel in ((3, 3), (5, 5)):
        for stride in ((1, 1), (2, 2)):
            for size in ((5, 5), (6, 18), (9, 47), (11, 64), (7, 81)):
                run(depthwise(2, kernel, stride=stride, pad=pad), 2, size, 2, isa=isa)


@pytest.mark.parametrize("size", [(3, 3000), (40, 900), (300, 2), (700, 1), (130, 130)])
def test_planes_of_several_bands(size: tuple[int, int]) -> None:
    """Rows so long that a band is one of them, and planes that are cut at every place."""
    for stride in ((1, 1), (2, 2)):
        for kernel in ((3, 3), (7, 7)):
            run(depthwise(1, kernel, stride=stride, pad=(kernel[0] // 2, kernel[1] // 2) * 2), 1, size, threads=3)


@pytest.mark.parametrize("isa", ISAS)
def test_large_kernels(isa: str) -> None:
    for kernel in ((11, 11), (1, 31), (64, 2), (2, 64)):
        run(depthwise(2, kernel, pad=(kernel[0] // 2, kernel[1] // 2) * 2), 2, (17, 19), isa=isa)
    run(depthwise(2, (64, 64), pad=(40, 40, 40, 40)), 2, (5, 9), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_residual_and_activation(multiplier: int, isa: str) -> None:
    """Rows that end beside the next one's, of which a vector of either must write nothing twice."""
    for kind, alpha, beta in (("relu", 0.0, 0.0), ("clip", -0.5, 0.75), ("silu", 0.0, 0.0)):
        for size in ((1, 1), (3, 5), (7, 7), (9, 17), (2, 40)):
            node = depthwise(4, (3, 3), multiplier, pad=(1, 1, 1, 1))
            layer = Node("c", "conv", ("x",), node.attrs, node.tensors)
            nodes = [layer, Node("s", "add", ("c", "z")), Node("a", "activation", ("s",), {"kind": kind, "alpha": alpha, "beta": beta})]
            graph = graph_of(nodes, {"x": (4, *size), "z": (4 * multiplier, *size)})
            assert len(engine_of(graph).plan.rows) == 1
            rng = np.random.default_rng(2)
            arrays = [rng.normal(size=(3, c, *size)).astype(np.float32) for c in (4, 4 * multiplier)]
            check(graph, arrays, terms=20, gain=12, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_stays_where_it_is(isa: str) -> None:
    """NaN and infinity reach the places whose windows hold them, and no other."""
    node = depthwise(1, (3, 3), pad=(1, 1, 1, 1))
    for kind in ("none", "relu", "clip"):
        act = (
            [] if kind == "none" else [Node("a", "activation", (node.name,), {"kind": kind, "alpha": 0.0, "beta": 6.0 * (kind == "clip")})]
        )
        engine = engine_of(graph_of([node, *act], {"x": (1, 9, 20)}), isa=isa)
        x = np.ones((1, 1, 9, 20), np.float32)
        x[0, 0, 4, 19] = np.nan
        spoilt = np.zeros((9, 20), bool)
        spoilt[3:6, 18:] = True
        np.testing.assert_array_equal(np.isnan(engine(x)[0, 0]), spoilt)


def test_answers_do_not_depend_on_threads_or_batch() -> None:
    graph = graph_of([depthwise(5, (5, 5), stride=(2, 2), pad=(2, 2, 2, 2))], {"x": (5, 33, 29)})
    x = np.random.default_rng(3).normal(size=(3, 5, 33, 29)).astype(np.float32)
    want = np.concatenate([engine_of(graph, threads=1)(x[i : i + 1]) for i in range(3)])
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(engine_of(graph, threads=threads)(x), want)
