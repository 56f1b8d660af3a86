"""The operator `constant`: the same numbers for each image, beside values in every layout and dtype; of its input the batch alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engines import ISAS, engine_of, graph_of, isas_of
from nodes import FakeNode, conv, normal
from nodes import node as make

from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import ArtifactError, ShapeError
from cosparse.kernels import reference

RNG = np.random.default_rng(0)
SHAPES = [(1,), (7,), (65,), (1, 1, 1), (5, 1, 7), (3, 6, 17), (21, 9, 1), (2, 33, 31)]


def constant(values: np.ndarray, name: str = "c", of: str = "x") -> FakeNode:
    return FakeNode(name, "constant", (of,), {}, {"values": values})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_constant_alone(shape: tuple[int, ...], isa: str) -> None:
    """As torch's expand, to the bit, from inputs of either rank; NaN in the input go nowhere."""
    values = normal(RNG, *shape)
    for given in ((4,), (2, 5, 3)):
        graph = graph_of([constant(values)], {"x": given})
        for threads in (1, 2, 3):
            engine = engine_of(graph, isa=isa, threads=threads)
            for batch in (1, 2, 3):
                x = np.full((batch, *given), np.nan, np.float32)
                want = torch.from_numpy(values).expand(batch, *shape).numpy()
                np.testing.assert_array_equal(engine(x), want)
                np.testing.assert_array_equal(reference.run(graph, x)[0], want)


def both_ways(nodes: list[Any], values: np.ndarray, x: np.ndarray, **options: Any) -> None:
    """The network with the constant `c` gives to the bit what it gives where `c` is an input of its own."""
    shape = tuple(x.shape[1:])
    graph = graph_of([constant(values), *nodes], {"x": shape})
    other = graph_of(nodes, {"x": shape, "c": values.shape})
    repeated = np.repeat(values[None], len(x), axis=0)
    int8 = options.get("dtype") == "int8"
    with_constant = engine_of(graph, calibration=[x] if int8 else [], **options)
    with_input = engine_of(other, calibration=[x, repeated] if int8 else [], **options)
    np.testing.assert_array_equal(with_constant(x), with_input(x, repeated))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize("shape", [(4, 7, 9), (4, 1, 1), (1, 7, 9), (1, 1, 9), (1, 7, 1), (4, 7, 1)], ids=str)
def test_broadcasting(op: str, shape: tuple[int, ...]) -> None:
    for order in (("x", "c"), ("c", "x")):
        for batch in (1, 3):
            both_ways([FakeNode("y", op, order)], normal(RNG, *shape), normal(RNG, batch, 4, 7, 9))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("order", [("c", "x"), ("x", "c"), ("x", "c", "x"), ("c", "c", "x")], ids=str)
def test_joined(axis: int, order: tuple[str, ...]) -> None:
    shape = [4, 7, 9]
    shape[axis - 1] = 3
    for batch in (1, 3):
        both_ways([FakeNode("y", "concat", order, {"axis": axis})], normal(RNG, *shape), normal(RNG, batch, 4, 7, 9))


def test_rows_joined() -> None:
    both_ways([FakeNode("y", "concat", ("x", "c", "x"), {"axis": 1})], normal(RNG, 5), normal(RNG, 3, 7))


def between(op: str, **settings: Any) -> list[Any]:
    """Two 1x1 convolutions, between which values are tiled, and `op` of the first and the constant."""
    rng = np.random.default_rng(1)
    first, second = (conv(rng, 24, 24, (1, 1), **settings) for _ in range(2))
    named = FakeNode("first", "conv", ("x",), first.attrs, first.tensors), FakeNode("second", "conv", ("y",), second.attrs, second.tensors)
    attrs = {"axis": 1} if op == "concat" else {}
    if op == "concat":
        wide = conv(rng, 24, 48, (1, 1), **settings)
        named = named[0], FakeNode("second", "conv", ("y",), wide.attrs, wide.tensors)
    return [named[0], FakeNode("y", op, ("first", "c"), attrs), named[1]]


@pytest.mark.parametrize(("dtype", "isa"), [(dtype, isa) for dtype in ("float32", "bfloat16", "int8") for isa in isas_of(dtype)])
@pytest.mark.parametrize("op", ["add", "mul", "concat"])
def test_between_convolutions_of_all_dtypes(op: str, dtype: str, isa: str) -> None:
    for settings in ({}, {"block": 8}):
        for batch in (1, 3):
            values, x = normal(RNG, 24, 7, 9), normal(RNG, batch, 24, 7, 9)
            both_ways(between(op, **settings), values, x, dtype=dtype, isa=isa)


def test_a_constant_splits_no_step() -> None:
    """It names a value that is folded into a convolution's step: the step stays one, since nothing of that value is read."""
    rng = np.random.default_rng(0)
    first = conv(rng, 4, 4, (3, 3), pad=(1, 1, 1, 1))
    relu = make("activation", kind="relu", alpha=0.0, beta=0.0)
    nodes = [
        FakeNode("first", "conv", ("x",), first.attrs, first.tensors),
        constant(normal(rng, 4, 5, 6), of="first"),
        FakeNode("relu", "activation", ("first",), relu.attrs),
        FakeNode("y", "mul", ("relu", "c")),
    ]
    graph = graph_of(nodes, {"x": (4, 5, 6)})
    engine = engine_of(graph, threads=1)
    x = normal(rng, 2, 4, 5, 6)
    np.testing.assert_allclose(engine(x), reference.run(graph, x)[0], rtol=0, atol=1e-5)
    assert [row.op for row in engine.plan.rows] == ["constant", "conv", "mul"]


def test_the_addition_of_a_constant_is_in_the_convolution() -> None:
    rng = np.random.default_rng(0)
    first = conv(rng, 4, 4, (3, 3), pad=(1, 1, 1, 1))
    named = FakeNode("first", "conv", ("x",), first.attrs, first.tensors)
    graph = graph_of([named, constant(normal(rng, 4, 5, 6)), FakeNode("y", "add", ("c", "first"))], {"x": (4, 5, 6)})
    assert [row.op for row in engine_of(graph, threads=1).plan.rows] == ["constant", "conv"]


def test_another_size_is_refused() -> None:
    engine = engine_of(graph_of([constant(normal(RNG, 4, 5, 6)), FakeNode("y", "add", ("x", "c"))], {"x": (4, 5, 6)}))
    with pytest.raises(ShapeError, match=r"node 'y' \(add\): expected sizes that are equal or 1, got input \[1, 4, 5, 7\], \[1, 4, 5, 6\]"):
        engine(normal(RNG, 1, 4, 5, 7))


def graph_with(values: np.ndarray) -> Graph:
    return Graph("g", (Input("x", (None, 3)),), ("c",), (Node("c", "constant", ("x",), {}, {"values": values}),))


def test_an_artifact_of_version_3_holds_it(tmp_path: Any) -> None:
    graph = graph_with(normal(RNG, 2, 3, 4))
    artifact.write(tmp_path / "c.cosparse", graph)
    read = artifact.read(tmp_path / "c.cosparse")
    assert read == graph
    assert b'\\"version\\":3' in artifact.to_bytes(graph)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Any) -> None:
    with pytest.raises(ArtifactError, match=r"tensor 'c.values': expected finite values"):
        artifact.write(tmp_path / "c.cosparse", graph_with(np.array([1.0, value], np.float32)))
