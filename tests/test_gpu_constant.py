"""Networks with constants as the GPU runtime plans them and as torch's own operators run them, held against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from nodes import normal

from cosparse.engine import artifact
from cosparse.engine.gpu.dense_network import DenseNetwork
from cosparse.engine.gpu.engine import GpuEngine
from cosparse.engine.graph import Graph, Input, Node
from cosparse.kernels import reference

POINT = {"filters": 4, "channels": 4, "kernel": [1, 1], "stride": [1, 1], "dilation": [1, 1], "pad": [0, 0, 0, 0], "groups": 1}
POINT |= {"transform": "identity", "format": "dense", "block": 1}


@pytest.fixture
def graph() -> Graph:
    """A constant in the epilogue of a convolution, one joined, one that is an output; two name values that are folded away."""
    rng = np.random.default_rng(0)
    relu = {"kind": "relu", "alpha": 0.0, "beta": 0.0}
    nodes = (
        Node("conv", "conv", ("x",), POINT, {"values": normal(rng, 4, 4, 1, 1)}),
        Node("places", "constant", ("x",), {}, {"values": normal(rng, 4, 5, 3)}),
        Node("sum", "add", ("conv", "places")),
        Node("relu", "activation", ("sum",), relu),
        Node("more", "constant", ("sum",), {}, {"values": normal(rng, 2, 5, 3)}),
        Node("both", "concat", ("more", "relu"), {"axis": 1}),
        Node("row", "constant", ("conv",), {}, {"values": normal(rng, 7)}),
    )
    return Graph("constants", (Input("x", (None, 4, 5, 3)),), ("both", "row"), nodes)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_plan(graph: Graph, tmp_path: Path, batch: int) -> None:
    artifact.write(tmp_path / "c.cosparse", graph)
    engine = GpuEngine(tmp_path / "c.cosparse", torch.device(DEVICE), "float16", tune=False)
    x = normal(np.random.default_rng(batch), batch, 4, 5, 3)
    for _ in range(2):
        for got, want in zip(engine(x), reference.run(graph, x), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("batch", [1, 3])
def test_torch_operators(graph: Graph, batch: int) -> None:
    x = normal(np.random.default_rng(batch), batch, 4, 5, 3)
    shapes = {name: value.shape for name, value in reference.trace(graph, x).items()}
    network = DenseNetwork(graph, shapes, torch.bfloat16, torch.device("cpu"))
    for got, want in zip(network([torch.from_numpy(x)]), reference.run(graph, x), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got.float().numpy(), want, rtol=0, atol=2e-2 * np.abs(want).max())
