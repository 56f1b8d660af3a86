"""What is written comes back equal, equal graphs give equal bytes, and an old artifact still loads."""

import gc
import hashlib
import json
import pathlib
from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sample_graphs import every_op, every_transform, version_three

from cosparse import _C
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node, consumers, drop_nodes, replace_nodes, unique_name
from cosparse.errors import ArtifactError, UnsupportedError
from cosparse.kernels.view import Axis

DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.cosparse"


@pytest.mark.parametrize(("graph", "version"), [(every_op, 1), (every_transform, 2)])
def test_equal_and_of_the_lowest_version(path, graph, version):
    artifact.write(path, graph())
    assert artifact.read(path) == graph()
    assert json.loads(_C.read_artifact(path).json)["version"] == version


def test_views_of_outputs(path):
    """Of one value in several shapes; a graph without them stays of the lowest version."""
    base = every_op()
    graph = replace(base, outputs=("x", "x", "softmax"), views=((None, Axis(3)), None, ()))
    sizes = base.inputs[0].shape[1:]
    with pytest.raises(ArtifactError, match=r"output 'softmax': expected as many numbers as the view \[N\] has, got \[1, 3\]"):
        artifact.write(path, graph)
    graph = replace(graph, views=((None, Axis(3)), None, (3, 1)))
    artifact.write(path, graph)
    assert artifact.read(path) == graph
    document = json.loads(_C.read_artifact(path).json)
    assert (document["version"], document["views"]) == (3, [[None, {"axis": 3}], None, [3, 1]])
    shapes = _C.output_shapes(_C.read_artifact(path), [(2, *i.shape[1:]) for i in base.inputs])
    assert shapes == [(2, sizes[0] * sizes[1], sizes[2]), (2, *sizes), (2, 3, 1)]
    artifact.write(path, replace(graph, views=(None, None, None)))
    assert json.loads(_C.read_artifact(path).json)["version"] == 1
    assert artifact.read(path).views == ()


def test_written_again_it_has_the_same_bytes(path):
    artifact.write(path, every_op())
    assert artifact.to_bytes(artifact.read(path)) == path.read_bytes()


def test_order_of_dicts_does_not_matter():
    graph = every_op()
    turned = [replace(n, attrs=dict(reversed(n.attrs.items())), tensors=dict(reversed(n.tensors.items()))) for n in graph.nodes]
    assert artifact.to_bytes(replace(graph, nodes=tuple(turned))) == artifact.to_bytes(graph)


def test_safetensors_reads_it(path):
    artifact.write(path, every_op())
    tensors = load_file(path)
    assert tensors["block.values"].shape == (5, 4)
    assert numpy.array_equal(tensors["dense.values"], every_op().node("dense").tensors["values"])


def test_a_shared_array_is_stored_once(path):
    artifact.write(path, every_op())
    graph = artifact.read(path)
    assert graph.node("affine").tensors["scale"] is graph.node("prelu").tensors["slope"]
    assert _C.read_artifact(path).tensors.count("affine.scale") == 1
    assert "prelu.slope" not in _C.read_artifact(path).tensors


def test_equal_arrays_that_are_not_one_object_are_stored_each(path):
    twins = [numpy.ones(4, numpy.float32) for _ in range(2)]
    node = Node("affine", "affine", ("x",), {}, {"scale": twins[0], "shift": twins[1]})
    artifact.write(path, Graph("twins", (Input("x", (None, 4)),), ("affine",), (node,)))
    assert sorted(_C.read_artifact(path).tensors) == ["affine.scale", "affine.shift"]


def test_views_are_read_only_and_outlive_the_artifact(path):
    artifact.write(path, every_op())
    values = artifact.read(path).node("dense").tensors["values"]
    gc.collect()
    assert not values.flags.writeable
    assert not values.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    assert numpy.array_equal(values, every_op().node("dense").tensors["values"])


def test_unknown_tensor_name(path):
    artifact.write(path, every_op())
    with pytest.raises(KeyError, match="nothing"):
        _C.read_artifact(path).tensor("nothing")


def test_strided_and_empty_arrays(path):
    """Transposed and reversed views are stored as the values they show; a layer may have no block at all."""
    attrs = {"filters": 4, "channels": 6, "transform": "identity", "format": "block", "block": 2}
    empty = {"values": numpy.zeros((0, 2), numpy.float32), "columns": numpy.zeros(0, numpy.uint16), "rows": numpy.zeros(3, numpy.uint32)}
    scale = numpy.arange(8, dtype=numpy.float32)[::-2]
    node = Node("linear", "linear", ("x",), attrs, {**empty, "scale": scale})
    values = numpy.arange(8, dtype=numpy.float32).reshape(2, 4).T
    dense = Node("dense", "linear", ("x",), attrs | {"format": "dense", "block": 1, "channels": 2}, {"values": values})
    artifact.write(path, Graph("strided", (Input("x", (None, 6)),), ("linear",), (node,)))
    assert artifact.read(path).node("linear") == node
    artifact.write(path, Graph("strided", (Input("x", (None, 2)),), ("dense",), (dense,)))
    assert artifact.read(path).node("dense") == dense


def test_an_array_without_axes_is_refused_not_reshaped(path):
    slope = numpy.array(0.25, numpy.float32)
    graph = Graph("scalar", (Input("x", (None, 1)),), ("y",), (Node("y", "prelu", ("x",), {}, {"slope": slope}),))
    with pytest.raises(ArtifactError, match=r"tensor 'y\.slope': expected rank 1 to 5, got shape \[\]"):
        artifact.write(path, graph)


def test_no_nodes(path):
    """The identity: an output may be an input, and a file may hold no tensor."""
    graph = Graph("identity", (Input("x", (None, 3)),), ("x",), ())
    artifact.write(path, graph)
    assert artifact.read(path) == graph


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def network_of(graph: Graph) -> dict[str, Any]:
    return json.loads(_C.parse_artifact(artifact.to_bytes(graph)).json)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_any_provenance_comes_back_exactly(provenance):
    assert network_of(replace(every_op(), provenance=provenance))["provenance"] == provenance


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_any_printable_name_comes_back_exactly(name):
    graph = Graph(name, (Input("x", (None, 3)),), ("x",), ())
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in name):
        with pytest.raises(ArtifactError, match="control characters"):
            network_of(graph)
    else:
        assert network_of(graph)["name"] == name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"filters": numpy.int64(10)}, "int64 is not JSON serializable"),
        ({"filters": float("nan")}, "not JSON compliant"),
        ({"filters": True}, "attribute 'filters': expected an integer"),
    ],
    ids=["numpy integer", "NaN", "truth"],
)
def test_attributes_of_a_wrong_type_are_refused(path, change, says):
    graph = every_op()
    bad = replace(graph.node("block"), attrs=graph.node("block").attrs | change)
    with pytest.raises(ArtifactError, match=says):
        artifact.write(path, replace_nodes(graph, {"block": bad}))
    assert not path.exists()


@pytest.mark.parametrize("array", [numpy.ones(10), numpy.ones(10, numpy.float16), [1.0] * 10], ids=["float64", "float16", "list"])
def test_arrays_of_a_wrong_type_are_refused(path, array):
    graph = every_op()
    bad = replace(graph.node("prelu"), tensors={"slope": array})
    with pytest.raises(ArtifactError, match=r"node 'prelu': tensor 'slope': expected a numpy array of float32, uint16, uint32, got"):
        artifact.write(path, replace_nodes(graph, {"prelu": bad}))


def test_big_endian_arrays_are_stored_little_endian(path):
    values = numpy.array([1.5, -2, 3], ">f4")
    node = Node("affine", "affine", ("x",), {}, {"scale": values, "shift": values})
    artifact.write(path, Graph("big", (Input("x", (None, 3)),), ("affine",), (node,)))
    assert artifact.read(path).node("affine").tensors["scale"].tolist() == [1.5, -2, 3]


def test_a_refusal_names_the_file_asked_for(path):
    graph = every_op()
    unknown = replace(graph.node("relu"), op="lstm")
    with pytest.raises(UnsupportedError, match=r"net\.cosparse: node 'relu': expected one of the operators conv, .*, got 'lstm'") as caught:
        artifact.write(path, replace_nodes(graph, {"relu": unknown}))
    assert ".tmp" not in str(caught.value)


def test_published_versions_load():
    """One artifact of each version stays in tests/data and loads for ever."""
    files = sorted(DATA.glob("v*.cosparse"))
    assert [file.stem for file in files] == [f"v{version}" for version in range(1, artifact.VERSION + 1)]
    for file in files:
        graph = artifact.read(file)
        assert {node.op for node in graph.nodes} <= set(_C.operators())
    assert [artifact.read(file) for file in files] == [every_op(), every_transform(), version_three()]


@pytest.mark.parametrize("count", [0, 1, 3, 127, 128, 129, 255, 256, 257, 384, 4095, 100003])
def test_checksum_is_blake2b(count):
    content = bytes((7 * i + i // 256) % 256 for i in range(count))
    assert _C.blake2b(content) == hashlib.blake2b(content, digest_size=32).hexdigest()


def test_graph_helpers():
    graph = every_op()
    assert consumers(graph)["add"] == ("sub", "dense")
    assert consumers(graph)["mul"] == ("div",)  # it reads it twice
    assert consumers(graph)["permute"] == ()
    without = drop_nodes(graph, {"affine": "block", "relu": "affine"})
    assert without.node("clip").inputs == ("block",)
    assert without.node("sub").inputs == ("add", "block")
    assert drop_nodes(graph, {"softmax": "linear"}).outputs == ("linear", "like", "permute")
    assert unique_name("add", {"add", "add#2"}) == "add#3"
    with pytest.raises(KeyError):
        graph.node("nothing")
