"""Shapes that the C++ reader infers, against PyTorch's and against the sizes that the plain references give."""

import itertools

import numpy
import pytest
import torch
import torch.nn.functional as F
from sample_graphs import CONV, RELU, UPSAMPLE, every_op

from cosparse import _C
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.errors import ArtifactError, ShapeError
from cosparse.kernels import reference


def infer(op, shapes, attrs, tensors=None, run=None):
    """Output shape of one node; `run` are other sizes than the example's."""
    names = [f"x{i}" for i in range(len(shapes))]
    node = Node("y", op, tuple(names), attrs, tensors or {})
    graph = Graph("one", tuple(Input(n, (None, *s[1:])) for n, s in zip(names, shapes, strict=True)), ("y",), (node,))
    parsed = _C.parse_artifact(artifact.to_bytes(graph))
    return _C.infer_shapes(parsed, list(run or shapes))["y"]


def torch_shape(function):
    """What torch makes of it; None where it refuses. Meta tensors: shapes without arithmetic."""
    try:
        return tuple(function().shape)
    except RuntimeError:
        return None


def x(*shape):
    return torch.empty(shape, device="meta")


def ours(function):
    try:
        return function()
    except ArtifactError:
        return None


def conv_node(o, c, kernel, groups):
    attrs = {**CONV, "filters": o, "channels": c, "kernel": list(kernel), "groups": groups}
    attrs |= {"transform": "identity", "format": "dense", "block": 1}
    return attrs, {"values": numpy.zeros((o, c // groups, *kernel), numpy.float32)}


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (1, 2, 0, 3)], ids=str)
def test_conv(kernel, stride, dilation, pad):
    attrs, tensors = conv_node(4, 6, kernel, 2)
    attrs |= {"stride": list(stride), "dilation": list(dilation), "pad": list(pad)}
    top, left, bottom, right = pad
    weight = x(4, 3, *kernel)
    for h, w in itertools.product((1, 2, 5, 8, 13), (1, 4, 7, 16)):
        padded = F.pad(x(2, 6, h, w), (left, right, top, bottom))
        wanted = torch_shape(lambda padded=padded: F.conv2d(padded, weight, None, stride, 0, dilation, 2))
        assert ours(lambda h=h, w=w: infer("conv", [(2, 6, h, w)], attrs, tensors)) == wanted


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_pools(ceil, kernel, stride):
    """All pads that PyTorch admits, also where the last window of `ceil` would start in the trailing pad."""
    for pad, dilation, size in itertools.product(range(kernel // 2 + 2), (1, 2, 3), range(1, 14)):
        window = {"kernel": [kernel] * 2, "stride": [stride] * 2, "pad": [pad] * 4, "ceil": ceil}
        wanted = torch_shape(lambda p=pad, d=dilation, s=size: F.max_pool2d(x(2, 3, s, s), kernel, stride, p, d, ceil_mode=bool(ceil)))
        assert ours(lambda w=window, d=dilation, s=size: infer("max_pool", [(2, 3, s, s)], w | {"dilation": [d, d]})) == wanted
        if dilation == 1:
            wanted = torch_shape(lambda p=pad, s=size: F.avg_pool2d(x(2, 3, s, s), kernel, stride, p, bool(ceil)))
            average = window | {"count_pad": 1, "divisor": 0}
            assert ours(lambda a=average, s=size: infer("avg_pool", [(2, 3, s, s)], a)) == wanted


def test_slice_is_pythons():
    ends = [-2147483648, -9, -7, -6, -1, 0, 1, 3, 6, 7, 8, 2147483647]
    for start, stop, step in itertools.product(ends, ends, (1, 2, 5, 2147483647)):
        length = len(range(7)[start:stop:step])
        wanted = (2, 7, length, 5) if length else None
        attrs = {"axis": 2, "start": start, "stop": stop, "step": step}
        assert ours(lambda attrs=attrs: infer("slice", [(2, 7, 7, 5)], attrs)) == wanted, attrs


def test_reshape():
    given = (2, 6, 4, 5)
    for shape in itertools.product((-1, 0, 1, 2, 3, 20, 120), repeat=3):
        kept = [given[1 + i] if size == 0 else size for i, size in enumerate(shape)]
        wanted = torch_shape(lambda kept=kept: x(*given).reshape(2, *kept))
        assert ours(lambda shape=shape: infer("reshape", [given], {"shape": list(shape)})) == wanted, shape
    assert infer("reshape", [given], {"shape": [-1]}) == (2, 120)
    assert infer("reshape", [(2, 120)], {"shape": [6, -1, 5]}) == (2, 6, 4, 5)
    assert infer("reshape", [(2, 120)], {"shape": [0, 1, 1]}) == (2, 120, 1, 1)


def test_upsample():
    for size, factor in itertools.product((1, 2, 7), (1, 2, 5)):
        wanted = tuple(F.interpolate(x(2, 3, size, size + 1), scale_factor=(factor, 2)).shape)
        assert infer("upsample", [(2, 3, size, size + 1)], UPSAMPLE | {"factor": [factor, 2]}) == wanted
    assert infer("upsample", [(2, 3, 5, 5)], UPSAMPLE | {"size": [3, 9]}) == (2, 3, 3, 9)
    assert infer("upsample", [(2, 3, 5, 5), (2, 8, 6, 7)], UPSAMPLE | {"mode": "bilinear"}) == (2, 3, 6, 7)


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=str)
def test_permute(order):
    assert infer("permute", [(2, 3, 4, 5)], {"order": [0, *order]}) == tuple(x(2, 3, 4, 5).permute(0, *order).shape)


@pytest.mark.parametrize("pads", [(0, 0), (0, 3), (4, 4), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pad(mode, pads):
    attrs = {"before": [0, pads[0], 0], "after": [0, pads[1], 1], "mode": mode, "value": 0.0}
    wanted = torch_shape(lambda: F.pad(torch.zeros(2, 3, 5, 5), (0, 1, *pads), mode))
    assert ours(lambda: infer("pad", [(2, 3, 5, 5)], attrs)) == wanted


def test_broadcast():
    for a, b in itertools.product(itertools.product((1, 2, 3), repeat=3), repeat=2):
        wanted = torch_shape(lambda a=a, b=b: x(2, *a) + x(2, *b))
        assert ours(lambda a=a, b=b: infer("div", [(2, *a), (2, *b)], {})) == wanted


def test_every_op_as_the_references_compute_it():
    """At other batches and sizes than the example's too."""
    parsed = _C.parse_artifact(artifact.to_bytes(every_op()))
    graph = every_op()
    for n, h, w in ((1, 8, 8), (3, 8, 8), (2, 9, 8)):
        inputs = numpy.ones((n, 4, h, w)), numpy.ones((n, 6))
        names = [node.name for node in graph.nodes]
        everything = Graph(graph.name, graph.inputs, tuple(names), graph.nodes)
        shapes = _C.infer_shapes(parsed, [a.shape for a in inputs])
        with numpy.errstate(all="ignore"):
            computed = reference.run(everything, *inputs)
        assert {name: value.shape for name, value in zip(names, computed, strict=True)} == {name: shapes[name] for name in names}


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ([(1, 3, 8, 8)], "input 'x0': expected 4 channels, got \\[1, 3, 8, 8\\]"),
        ([(1, 4)], "input 'x0': expected \\[N, C, H, W\\], got \\[1, 4\\]"),
        ([(1, 4, 8)], "input: expected \\[N, C, H, W\\] or \\[N, F\\], got \\[1, 4, 8\\]"),
        ([(0, 4, 8, 8)], "input 'x0': expected 1 to 2147483647 elements, got \\[0, 4, 8, 8\\]"),
        ([(-1, 4, 8, 8)], "input 'x0': expected 1 to 2147483647 elements"),
        ([(2**62, 4, 2**62, 8)], "input 'x0': expected 1 to 2147483647 elements"),
        ([(1, 4, 2, 8)], "node 'y' \\(conv\\): expected height and width that hold its window \\[3, 3\\], got input \\[1, 4, 2, 8\\]"),
        ([(2**21, 4, 8, 8)], "node 'y' \\(conv\\): expected an output of 1 to 2147483647 elements"),
        ([], "inputs: expected 1, got 0"),
    ],
    ids=["channels", "rank 2", "rank 3", "batch 0", "batch -1", "overflow", "too small", "too large", "none"],
)
def test_runs_at_other_sizes_are_shape_errors(run, says):
    attrs, tensors = conv_node(64, 4, (3, 3), 1)
    attrs["pad"] = [0, 0, 0, 0]
    node = Node("y", "conv", ("x0",), attrs, tensors)
    parsed = _C.parse_artifact(artifact.to_bytes(Graph("one", (Input("x0", (None, 4, 8, 8)),), ("y",), (node,))))
    with pytest.raises(ShapeError, match=says):
        _C.infer_shapes(parsed, run)


def test_batches_must_agree():
    graph = Graph(
        "two", (Input("a", (None, 3)), Input("b", (None, 3))), ("y",), (Node("y", "add", ("a", "b")), Node("z", "activation", ("y",), RELU))
    )
    parsed = _C.parse_artifact(artifact.to_bytes(graph))
    assert _C.infer_shapes(parsed, [(5, 3), (5, 3)])["z"] == (5, 3)
    with pytest.raises(ShapeError, match="input 'b': expected the batch of the first input, 5, got"):
        _C.infer_shapes(parsed, [(5, 3), (1, 3)])


def test_the_documented_table_is_the_schema(repository):
    """docs/artifact.md names each operator, and each attribute and tensor role of it."""
    text = (repository / "docs" / "artifact.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.split("## Operators")[1].split("\n\n- ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            for op in cells[0].strip("| ").replace("`", "").split(", "):
                rows[op] = line
    operators = _C.operators()
    assert rows.keys() == operators.keys()
    for op, rule in operators.items():
        for attr in rule["attrs"]:
            assert f"`{attr.rstrip('?')}`" in rows[op], (op, attr)
        roles = [role.rstrip("?") for role in rule["tensors"]]
        assert "as `conv`" in rows[op] or all(f"`{role}`" in rows[op] for role in roles), (op, roles)
