"""Every op on every peer against the float64 reference: a peer that computed something else would make a comparison worthless."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_close
from sample_graphs import every_op
from small_net import small_net

from cosparse import _C
from cosparse.bench.check import compare_short
from cosparse.bench.dense import densify
from cosparse.bench.peers import PEERS, Peer, Runner, Shapes, find, torch_peer
from cosparse.bench.peers.openvino_peer import IN_FLOAT32
from cosparse.bench.rounding import allowed
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import Error, UnsupportedError
from cosparse.kernels import reference
from cosparse.kernels.activation import KINDS

EPS = float(np.finfo(np.float32).eps)
PLAIN = {"transform": "identity", "format": "dense", "block": 1}
IMAGE = (2, 4, 8, 9)

# torch.compile takes seconds for each graph; it compiles what the peer torch runs, and its own test is one graph with all that.
QUICK = [peer for peer in PEERS.values() if peer.name != "torch.compile"]

Case = tuple[str, dict[str, Any], dict[str, tuple[int, ...]], tuple[tuple[int, ...], ...]]


def conv_cases() -> list[Case]:
    cases: list[Case] = []
    for stride, dilation, pad, groups in product(([1, 1], [2, 1]), ([1, 1], [2, 3]), ([0, 0, 0, 0], [1, 2, 0, 1]), (1, 2)):
        attrs = {"filters": 6, "channels": 4, "kernel": [3, 2], "stride": stride, "dilation": dilation, "pad": pad, "groups": groups}
        attrs |= PLAIN
        cases.append(("conv", attrs, {"values": (6, 4 // groups, 3, 2), "bias": (6,)}, (IMAGE,)))
    linear = {"filters": 5, "channels": 7, **PLAIN}
    return [*cases, ("linear", linear, {"values": (5, 7)}, ((3, 7),)), ("linear", linear, {"values": (5, 7), "bias": (5,)}, ((1, 7),))]


def pool_cases() -> list[Case]:
    cases: list[Case] = []
    for ceil, pad, stride, kernel in product((0, 1), ([0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 2, 1]), ([1, 2], [3, 2]), ([3, 3], [2, 3])):
        window = {"kernel": kernel, "stride": stride, "pad": pad, "ceil": ceil}
        cases += [("max_pool", {**window, "dilation": dilation}, {}, (IMAGE,)) for dilation in ([1, 1], [2, 1])]
        cases += [("avg_pool", {**window, "count_pad": count, "divisor": d}, {}, (IMAGE,)) for count, d in product((0, 1), (0, 5))]
    for op, size in product(("adaptive_avg_pool", "adaptive_max_pool"), ([1, 1], [4, 3], [3, 5], [11, 2])):
        cases.append((op, {"size": size}, {}, (IMAGE,)))
    cases += [("mean", {"axes": axes, "keep": 1}, {}, (IMAGE,)) for axes in ([1], [2], [3], [1, 2], [2, 3], [1, 2, 3])]
    cases += [(op, {"axes": axes, "keep": 1}, {}, (IMAGE,)) for op in ("sum", "amax") for axes in ([1], [3], [2, 3])]
    return [*cases, *((op, {"axes": [2, 3], "keep": 0}, {}, (IMAGE,)) for op in ("mean", "sum", "amax"))]


def pointwise_cases() -> list[Case]:
    settings = {"clip": (-0.5, 0.7), "leaky_relu": (0.1, 0.0), "elu": (1.3, 0.0), "pow": (0.7, 0.0)}
    cases: list[Case] = []
    for kind in KINDS:
        alpha, beta = settings.get(kind, (0.0, 0.0))
        cases.append(("activation", {"kind": kind, "alpha": alpha, "beta": beta}, {}, (IMAGE,)))
    for shape in (IMAGE, (2, 4)):
        cases.append(("affine", {}, {"scale": (4,), "shift": (4,)}, (shape,)))
        cases.append(("prelu", {}, {"slope": (4,)}, (shape,)))
        cases.append(("layer_norm", {"eps": 1e-6}, {"scale": (4,), "shift": (4,)}, (shape,)))
        cases += [("group_norm", {"groups": g, "eps": 1e-3}, {"scale": (4,), "shift": (4,)}, (shape,)) for g in (1, 2, 4)]
        cases += [(op, {"axis": 1}, {}, (shape,)) for op in ("softmax", "log_softmax")]
        cases += [(op, {}, {}, (shape, shape)) for op in ("add", "sub", "mul", "div", "maximum", "minimum")]
    return [*cases, *((op, {}, {}, ((2, 4, 1, 1), (2, 1, 3, 5))) for op in ("add", "sub", "mul", "div", "maximum", "minimum"))]


def movement_cases() -> list[Case]:
    cases: list[Case] = [
        ("concat", {"axis": 1}, {}, ((2, 3, 4, 5), (2, 1, 4, 5), (2, 2, 4, 5))),
        ("concat", {"axis": 3}, {}, ((2, 3, 4, 5), (2, 3, 4, 1))),
        ("concat", {"axis": 1}, {}, ((2, 3), (2, 4))),
        ("constant", {}, {"values": (3, 4, 5)}, ((2, 3),)),
        ("constant", {}, {"values": (3,)}, (IMAGE,)),
        ("slice", {"axis": 1, "start": -3, "stop": 2**31 - 1, "step": 2}, {}, (IMAGE,)),
        ("slice", {"axis": 3, "start": 1, "stop": -1, "step": 1}, {}, (IMAGE,)),
        ("slice", {"axis": 1, "start": 1, "stop": 3, "step": 1}, {}, ((2, 5),)),
        ("reshape", {"shape": [-1]}, {}, (IMAGE,)),
        ("reshape", {"shape": [0, 2, -1]}, {}, (IMAGE,)),
        ("reshape", {"shape": [2, 3, 0]}, {}, ((2, 6),)),
        ("permute", {"order": [0, 3, 1, 2]}, {}, (IMAGE,)),
        ("channel_shuffle", {"groups": 3}, {}, ((2, 6, 3, 4),)),
    ]
    sides = (([0, 1, 2], [0, 0, 3]), ([1, 1, 2], [2, 0, 3]), ([1, 0, 0], [2, 0, 0]))
    for mode, (before, after) in product(("constant", "reflect", "replicate"), sides):
        cases.append(("pad", {"before": before, "after": after, "mode": mode, "value": 1.5 if mode == "constant" else 0.0}, {}, (IMAGE,)))
    for order in ("crd", "dcr"):
        cases.append(("depth_to_space", {"block": [2, 2], "order": order, "crop": [0, 0, 0, 0]}, {}, ((2, 8, 3, 4),)))
        cases.append(("depth_to_space", {"block": [2, 3], "order": order, "crop": [1, 0, 2, 1]}, {}, ((2, 12, 3, 4),)))
    return cases


def upsample_cases() -> list[Case]:
    cases: list[Case] = []
    for mode, align in (("nearest", 0), ("bilinear", 0), ("bilinear", 1)):
        kind = {"mode": mode, "align_corners": align}
        cases += [("upsample", {**kind, "size": size, "factor": [0.0, 0.0]}, {}, (IMAGE,)) for size in ([17, 5], [3, 2])]
        cases += [("upsample", {**kind, "size": [0, 0], "factor": factor}, {}, (IMAGE,)) for factor in ([2.0, 3.0], [1.7, 2.3], [0.5, 0.6])]
        cases.append(("upsample", {**kind, "size": [0, 0], "factor": [0.0, 0.0]}, {}, (IMAGE, (2, 1, 8, 13))))
    return cases


CASES = [*conv_cases(), *pool_cases(), *pointwise_cases(), *movement_cases(), *upsample_cases()]


def one_node(case: Case) -> tuple[Graph, tuple[np.ndarray, ...]]:
    op, attrs, tensor_shapes, input_shapes = case
    rng = np.random.default_rng(0)
    tensors = {role: rng.standard_normal(shape, np.float32) for role, shape in tensor_shapes.items()}
    inputs = tuple(Input(f"x{i}", (None, *shape[1:])) for i, shape in enumerate(input_shapes))
    arrays = [rng.standard_normal(shape, np.float32) for shape in input_shapes]
    if op == "div":
        arrays[1] = np.abs(arrays[1]) + 1
    node = Node("y", op, tuple(value.name for value in inputs), attrs, tensors)
    return Graph("one", inputs, ("y",), (node,)), tuple(arrays)


def runners(peer: Peer, graph: Graph, shapes: Shapes) -> list[Runner]:
    if peer.name != "torch":
        return peer.runners(graph, shapes, 1)
    # Its file is an artifact, which refuses some of these settings.
    ways = torch_peer.LAYOUTS.items()
    return [torch_peer.runner(torch_peer.build(graph, shapes, layout), label, layout, torch.float32) for label, layout in ways]


def assert_agrees(peer: Peer, graph: Graph, inputs: tuple[np.ndarray, ...]) -> None:
    values = reference.trace(graph, *inputs)
    largest = max((float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in values.values()), default=0.0)
    weights = [np.abs(array).max() for node in graph.nodes for array in node.tensors.values()]
    for runner in runners(peer, graph, {name: value.shape for name, value in values.items()}):
        outputs = runner.run(inputs)
        runner.bind(inputs)()
        for got, name in zip(outputs, graph.outputs, strict=True):
            got = np.where(got == np.finfo(np.float32).min, -np.inf, got)  # OpenVINO's maximum of nothing
            # At most 32 terms a sum in these cases; the interpolations and activations need a few roundings only.
            assert_close(got.astype(np.float64), values[name], terms=32, scale=largest * max(1.0, *weights, 0.0), eps=EPS)


@pytest.mark.parametrize("peer", QUICK, ids=lambda p: p.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[1].values()))}")
def test_each_op(peer: Peer, case: Case) -> None:
    graph, inputs = one_node(case)
    assert_agrees(peer, graph, inputs)


def test_no_op_is_left_out() -> None:
    assert {case[0] for case in CASES} == set(_C.operators()) == set(reference.REFERENCES)


@pytest.mark.parametrize("peer", QUICK, ids=lambda p: p.name)
def test_a_graph_of_every_op_with_several_inputs_and_outputs(peer: Peer) -> None:
    graph = densify(every_op())
    rng = np.random.default_rng(1)
    inputs = tuple(rng.standard_normal((3, *value.shape[1:]), np.float32) for value in graph.inputs)
    assert_agrees(peer, graph, inputs)


@pytest.fixture(scope="module")
def small() -> tuple[Graph, tuple[np.ndarray, ...], dict[str, tuple[int, ...]]]:
    """A dense network, two images for it and the shapes of its values."""
    graph = densify(small_net())
    inputs = (np.random.default_rng(2).standard_normal((2, 3, 8, 8), np.float32),)
    return graph, inputs, {name: value.shape for name, value in reference.trace(graph, *inputs).items()}


def test_torch_compile_computes_the_same(small) -> None:
    graph, inputs, _ = small
    assert_agrees(find("torch.compile"), graph, inputs)


def test_a_compiler_that_takes_too_long_is_stopped(small, monkeypatch) -> None:
    from cosparse.bench.peers import torch_compile_peer

    monkeypatch.setattr(torch_compile_peer, "LIMIT_S", 0.01)
    with pytest.raises(Error, match=r"peer torch\.compile: expected a compilation of at most 0\.01 s, got a longer one; leave it out"):
        find("torch.compile").runners(small[0], small[2], 1)


SHORT = [(peer, dtype) for peer in QUICK for dtype in peer.dtypes if dtype != "float32"]


@pytest.mark.parametrize(("peer", "dtype"), SHORT, ids=lambda value: getattr(value, "name", value))
def test_short_dtypes_round_and_no_more(peer: Peer, dtype: str, small) -> None:
    graph, inputs, shapes = small
    rng = np.random.default_rng(3)
    samples = [(rng.standard_normal((2, 3, 8, 8), np.float32),) for _ in range(8)]
    expected = reference.run(graph, *inputs)
    for runner in peer.runners(graph, shapes, 1, dtype, samples):
        outputs = runner.run(inputs)
        check = compare_short(outputs, expected, allowed(graph, dtype))
        assert check.passed, (runner.label, check)
        said = dtype == "bfloat16" and runner.label.endswith(IN_FLOAT32)
        assert said or check.bounded > 1e-4, f"{runner.label} did not compute in {dtype}"
        assert all(y.dtype == np.float32 for y in outputs)
        assert runner.dtype == dtype
        runner.bind(inputs)()


def test_pools_with_a_divisor_of_their_own_stay_in_bfloat16() -> None:
    case = next(case for case in pool_cases() if case[0] == "avg_pool" and case[1]["pad"] == [1, 0, 2, 1])
    graph, inputs = one_node(case)
    shapes = {name: value.shape for name, value in reference.trace(graph, *inputs).items()}
    network = torch_peer.build(graph, shapes, torch.contiguous_format, torch.bfloat16)
    assert network(torch.from_numpy(inputs[0]).bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("peer", QUICK, ids=lambda p: p.name)
def test_what_a_peer_saves_it_loads(peer: Peer, tmp_path) -> None:
    graph = densify(every_op())
    inputs = tuple(np.ones((2, *value.shape[1:]), np.float32) for value in graph.inputs)
    content = _C.parse_artifact(artifact.to_bytes(graph))
    shapes = _C.infer_shapes(content, [list(x.shape) for x in inputs])
    runtime = peer.runtime()
    saved = runtime.save(graph, shapes, tmp_path, 1, "float32", ())
    outputs = runtime.load(saved, shapes, 1, "float32", runtime.ways("float32")[-1]).run(inputs)
    expected = peer.runners(graph, shapes, 1)[-1].run(inputs)
    for got, want in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_an_unknown_peer_lists_those_that_exist() -> None:
    with pytest.raises(Error, match=r"peer: expected one of torch, torch\.compile, onnxruntime, openvino, got 'tensorrt'"):
        find("tensorrt")


def test_what_is_missing_is_named(monkeypatch) -> None:
    absent = Peer("x", "not_installed_anywhere", "cosparse.bench.peers.x", {"float32": ()})
    with pytest.raises(Error, match="pip install not_installed_anywhere, or leave it out of --against"):
        absent.runtime()
    half = Peer("x", "numpy", "cosparse.bench.peers.x", {"float32": (), "int8": ("not_installed_anywhere",)})
    assert half.installed()
    assert not half.installed("int8")
    assert not half.installed("bfloat16")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Error, match="install g\\+\\+, or name another with CXX, or leave it out of --against"):
        find("torch.compile").runtime()


def test_a_dtype_that_a_peer_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="peer onnxruntime: expected a dtype of float32, int8, got bfloat16"):
        find("onnxruntime").runtime("bfloat16")
