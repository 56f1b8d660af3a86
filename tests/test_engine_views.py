"""Outputs in the shapes of their views: engine, the caller's memory, reference, peers, command line and server."""

import json
from pathlib import Path

import numpy as np
import pytest
from serve_parts import images, serving

import cosparse
from cosparse import _C
from cosparse.cli import run
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import ShapeError
from cosparse.kernels import reference
from cosparse.kernels.view import Axis, view_sizes

VIEWS = ((2, 3, Axis(2), Axis(3)), None, (None, 4), ())


@pytest.fixture
def graph() -> Graph:
    relu = Node("relu", "activation", ("x",), {"kind": "relu", "alpha": 0.0, "beta": 0.0})
    means = Node("mean", "mean", ("relu",), {"axes": [1, 2, 3], "keep": 1})
    turned = Node("turned", "permute", ("relu",), {"order": [0, 2, 3, 1]})
    return Graph("views", (Input("x", (None, 6, 4, 8)),), ("relu", "relu", "turned", "mean"), (relu, means, turned), views=VIEWS)


@pytest.fixture
def path(graph: Graph, tmp_path: Path) -> Path:
    artifact.write(tmp_path / "views.cosparse", graph)
    return tmp_path / "views.cosparse"


def wanted(x: np.ndarray) -> list[np.ndarray]:
    n, _, h, w = x.shape
    y = np.maximum(x, 0)
    return [y.reshape(n, 2, 3, h, w), y, y.transpose(0, 2, 3, 1).reshape(n, -1, 4), y.mean((1, 2, 3))]


@pytest.mark.parametrize("shape", [(1, 6, 4, 8), (3, 6, 4, 8), (2, 6, 6, 2)])
def test_engine_and_reference(graph: Graph, path: Path, shape: tuple[int, ...]) -> None:
    x = images(shape[0], shape=shape[1:])
    engine = cosparse.load(path, threads=1)
    assert [spec.shape for spec in engine.outputs] == [(None, 2, 3, 4, 8), (None, 6, 4, 8), (None, 48, 4), (None,)]
    assert [spec.free for spec in engine.outputs] == [(3, 4), (2, 3), (1,), ()]
    out = [np.full(y.shape, np.nan, np.float32) for y in wanted(x)]
    assert engine(x, out=out) == tuple(out)
    for y, mine, given, exact in zip(wanted(x), engine(x), out, reference.run(graph, x), strict=True):
        assert mine.shape == given.shape == exact.shape == y.shape
        for answer in (mine, given, exact):
            np.testing.assert_allclose(answer, y, rtol=1e-6, atol=1e-6)


def test_memory_of_the_stored_shape_is_refused(path: Path) -> None:
    x = images(1, shape=(6, 4, 8))
    out = [np.empty(y.shape, np.float32) for y in wanted(x)]
    with pytest.raises(ShapeError, match=r"out for output 'relu': expected \(1, 2, 3, 4, 8\), got \(1, 6, 4, 8\)"):
        cosparse.load(path, threads=1)(x, out=[out[1].copy(), *out[1:]])


def test_a_size_that_the_view_does_not_fit(graph: Graph, path: Path) -> None:
    x = images(1, shape=(6, 1, 1))
    words = r"expected as many numbers as the view \[N, null, 4\] has, got \[1, 1, 1, 6\]"
    for call in (cosparse.load(path, threads=1), lambda x: reference.run(graph, x)):
        with pytest.raises(ShapeError, match=words):
            call(x)
    with pytest.raises(ShapeError, match=r"view: expected as many numbers as the view \[N, 5\] has, got \[1, 10\]"):
        view_sizes((5,), (1, 10))


def test_torch_and_onnx(graph: Graph, path: Path) -> None:
    torch_peer = pytest.importorskip("cosparse.bench.peers.torch_peer")
    runtime = pytest.importorskip("onnxruntime")
    from cosparse.bench.peers.onnx_model import to_onnx

    x = images(2, shape=(6, 4, 8))
    shapes = _C.infer_shapes(_C.read_artifact(path), [x.shape])
    session = runtime.InferenceSession(to_onnx(graph, shapes).SerializeToString(), providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"in0": x})] + [torch_peer.load(path, shapes, 1, "float32", way).run((x,)) for way in torch_peer.LAYOUTS]
    for answer in answers:
        for y, theirs in zip(wanted(x), answer, strict=True):
            assert theirs.shape == y.shape
            np.testing.assert_allclose(theirs, y, rtol=1e-6, atol=1e-6)


def test_inspect(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["inspect", str(path), "--json", str(tmp_path / "it.json")]) == 0
    assert "relu [N, 2, 3, axis 2, axis 3], relu, turned [N, null, 4], mean [N]" in capsys.readouterr().out
    found = json.loads((tmp_path / "it.json").read_text())
    assert found["views"] == ["[N, 2, 3, axis 2, axis 3]", None, "[N, null, 4]", "[N]"]


@pytest.mark.parametrize(
    ("scale", "sizes"), [(None, [[-1, 2, 3, 4, 8], [-1, 48, 4], [-1]]), (4.0, [[-1, 2, 3, -1, -1], [-1, -1, 4], [-1]])]
)
def test_server(graph: Graph, tmp_path: Path, scale: float | None, sizes: list[list[int]]) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    graph = Graph(graph.name, graph.inputs, ("relu", "turned", "mean"), graph.nodes, views=(VIEWS[0], *VIEWS[2:]))
    artifact.write(tmp_path / "views.cosparse", graph)
    x = images(3, shape=(6, 4, 8) if scale is None else (6, 2, 8))
    expected = [y for i, y in enumerate(wanted(x)) if i != 1]
    with serving(tmp_path, max_scale=scale) as running:
        _, metadata, _ = running.ask("GET", "/v2/models/views")
        assert [output["shape"] for output in metadata["outputs"]] == sizes
        status, answer, _ = running.infer(x, "views")
        assert status == 200
        with grpc.InferenceServerClient(running.grpc) as client:
            assert [list(output.shape) for output in client.get_model_metadata("views").outputs] == sizes
            value = grpc.InferInput("x", list(x.shape), "FP32")
            value.set_data_from_numpy(x)
            got = client.infer("views", [value])
    for y, output in zip(expected, answer["outputs"], strict=True):
        assert output["shape"] == list(y.shape)
        np.testing.assert_allclose(np.array(output["data"]).reshape(y.shape), y, atol=1e-5)
        np.testing.assert_allclose(got.as_numpy(output["name"]), y, atol=1e-5)
