"""The interpreter of whole graphs, and its completeness against docs/artifact.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close
from nodes import FakeGraph, FakeInput, FakeNode

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.activation import KINDS
from cosparse.kernels.reference import REFERENCES, run, run_node, trace

RELU = {"kind": "relu", "alpha": 0.0, "beta": 0.0}
INPUT = FakeInput("x", (None, 2, 4, 4))


def documented_ops(repository: Path) -> set[str]:
    """The first cells of the operator table."""
    text = (repository / "docs" / "artifact.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|.*\|.*\|.*\|$", text.split("## Operators")[1].split("## ")[0], re.MULTILINE)
    return {op for row in rows for op in re.findall(r"`(\w+)`", row)}


def test_every_documented_op_has_a_reference(repository: Path) -> None:
    assert documented_ops(repository) == set(REFERENCES)


def test_every_documented_activation_has_a_reference(repository: Path) -> None:
    text = (repository / "docs" / "artifact.md").read_text(encoding="utf-8")
    line = text.split("**activation** kinds:")[1].split(". ")[0]
    assert set(re.findall(r"`(\w+)`", line)) == set(KINDS)


def test_a_graph_runs_in_order_with_shared_values_and_several_outputs() -> None:
    nodes = (
        FakeNode("relu", "activation", ("x",), RELU),
        FakeNode("sum", "add", ("relu", "x")),
        FakeNode("square", "mul", ("sum", "sum")),
    )
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 6)).astype(np.float32)
    graph = FakeGraph((INPUT,), nodes, ("square", "relu", "x"))
    square, relu, same = run(graph, x)
    double = x.astype(np.float64)
    assert square.dtype == relu.dtype == same.dtype == np.float64
    assert_close(square, (np.maximum(double, 0) + double) ** 2, terms=0, scale=1)
    assert_close(relu, np.maximum(double, 0), terms=0, scale=1)
    assert_close(same, double, terms=0, scale=1)
    assert list(trace(graph, x)) == ["x", "relu", "sum", "square"]


def test_two_inputs_go_by_position() -> None:
    graph = FakeGraph((FakeInput("a", (None, 3)), FakeInput("b", (None, 3))), (FakeNode("d", "sub", ("b", "a")),), ("d",))
    (y,) = run(graph, np.zeros((1, 3)), np.ones((1, 3)))
    assert y.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"inputs: expected 1 \(x\), got 0"),
        ((np.zeros((1, 3, 4, 4)),), r"input x: expected shape \[None, 2, 4, 4\].*got \[1, 3, 4, 4\]"),
        ((np.zeros((1, 2)),), r"input x: expected shape \[None, 2, 4, 4\].*got \[1, 2\]"),
    ],
    ids=["missing", "channels", "rank"],
)
def test_inputs_that_do_not_fit(inputs: tuple, message: str) -> None:
    graph = FakeGraph((INPUT,), (FakeNode("relu", "activation", ("x",), RELU),), ("relu",))
    with pytest.raises(ShapeError, match=message):
        run(graph, *inputs)


def test_unknown_op_names_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"node f: expected op one of activation, .*upsample, got 'fft'"):
        run_node(FakeNode("f", "fft"), np.zeros((1, 1)))
