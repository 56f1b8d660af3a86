"""Small valid graphs that the artifact tests start from."""

import numpy

from cosparse.engine.graph import Attr, Graph, Input, Node
from cosparse.kernels.transform import dct_matrix, walsh_matrix
from cosparse.kernels.view import Axis

RELU = {"kind": "relu", "alpha": 0.0, "beta": 0.0}
CONV = {"stride": [1, 1], "dilation": [1, 1], "pad": [1, 1, 1, 1], "groups": 1}
UPSAMPLE = {"mode": "nearest", "size": [0, 0], "factor": [0, 0], "align_corners": 0}


def _floats(*shape: int) -> numpy.ndarray:
    return numpy.linspace(-1, 1, int(numpy.prod(shape)), dtype=numpy.float32).reshape(shape)


def _block_conv() -> Node:
    """10 filters in blocks of 4: three block rows of 3, 0 and 2 blocks, the last reaching two filters beyond."""
    values = _floats(5, 4)
    values[3:, 2:] = 0
    attrs = {"filters": 10, "channels": 4, "kernel": [3, 3], **CONV, "transform": "dct", "format": "block", "block": 4}
    tensors = {
        "values": values,
        "columns": numpy.array([0, 7, 35, 3, 4], numpy.uint16),
        "rows": numpy.array([0, 3, 3, 5], numpy.uint32),
        "scale": _floats(10),
        "bias": _floats(10),
    }
    return Node("block", "conv", ("x",), attrs, tensors)


def every_op() -> Graph:
    """Each operator of the table at least once; both conv formats, both ranks, two inputs, three outputs, a shared tensor."""
    dense = {"filters": 6, "channels": 10, "kernel": [3, 1], **CONV, "pad": [1, 0, 1, 0], "groups": 2}
    dense |= {"transform": "identity", "format": "dense", "block": 1}
    linear = {"filters": 3, "channels": 6, "transform": "identity", "format": "dense", "block": 1}
    window = {"kernel": [3, 3], "stride": [2, 2], "pad": [1, 1, 1, 1]}
    ten = _floats(10)
    nodes = (
        _block_conv(),
        Node("affine", "affine", ("block",), {}, {"scale": ten, "shift": ten}),
        Node("relu", "activation", ("affine",), RELU),
        Node("clip", "activation", ("relu",), {"kind": "clip", "alpha": 0.0, "beta": 6.0}),
        Node("prelu", "prelu", ("clip",), {}, {"slope": ten}),
        Node("add", "add", ("prelu", "block")),
        Node("sub", "sub", ("add", "relu")),
        Node("mul", "mul", ("sub", "clip")),
        Node("div", "div", ("mul", "mul")),
        Node("dense", "conv", ("add",), dense, {"values": _floats(6, 5, 3, 1)}),
        Node("max", "max_pool", ("dense",), {**window, "dilation": [1, 1], "ceil": 1}),
        Node("avg", "avg_pool", ("dense",), {**window, "ceil": 0, "count_pad": 1, "divisor": 0}),
        Node("adaptive_avg", "adaptive_avg_pool", ("max",), {"size": [3, 2]}),
        Node("adaptive_max", "adaptive_max_pool", ("max",), {"size": [3, 2]}),
        Node("concat", "concat", ("adaptive_avg", "adaptive_max"), {"axis": 1}),
        Node("slice", "slice", ("concat",), {"axis": 1, "start": -8, "stop": 2147483647, "step": 2}),
        Node("pad", "pad", ("slice",), {"before": [0, 1, 0], "after": [0, 0, 1], "mode": "reflect", "value": 0.0}),
        Node("reshape", "reshape", ("pad",), {"shape": [-1, 0, 1]}),
        Node("permute", "permute", ("reshape",), {"order": [0, 3, 2, 1]}),
        Node("shuffle", "channel_shuffle", ("pad",), {"groups": 2}),
        Node("d2s", "depth_to_space", ("shuffle",), {"block": [2, 2], "order": "dcr", "crop": [1, 0, 0, 1]}),
        Node("factor", "upsample", ("d2s",), {**UPSAMPLE, "factor": [2, 3]}),
        Node("size", "upsample", ("factor",), {**UPSAMPLE, "mode": "bilinear", "size": [5, 5], "align_corners": 1}),
        Node("like", "upsample", ("size", "x"), {**UPSAMPLE, "mode": "bilinear"}),
        Node("norm", "layer_norm", ("avg",), {"eps": 1e-5}, {"scale": _floats(6), "shift": _floats(6)}),
        Node("mean", "mean", ("norm",), {"axes": [2, 3], "keep": 0}),
        Node("both", "add", ("mean", "z")),
        Node("linear", "linear", ("both",), linear, {"values": _floats(3, 6), "bias": _floats(3)}),
        Node("softmax", "softmax", ("linear",), {"axis": 1}),
    )
    inputs = (Input("x", (None, 4, 8, 8)), Input("z", (None, 6)))
    return Graph("every_op", inputs, ("softmax", "like", "permute"), nodes, {"mean": [0.5], "channels": "RGB"}, {"seed": 7})


def version_three() -> Graph:
    """What version 3 of the artifact adds: sizes that an input takes (another takes any), views of outputs, operators, activations."""
    sized = Input("x", (None, 3, 8, 8), sizes=((4, 16), (8, 8)))
    tensors = {"scale": 2 + _floats(3), "shift": _floats(3)}
    nodes = (
        Node("norm", "group_norm", ("x",), {"groups": 3, "eps": 1e-5}, tensors),
        Node("most", "amax", ("norm",), {"axes": [2, 3], "keep": 1}),
        Node("sums", "sum", ("x",), {"axes": [1, 3], "keep": 1}),
        Node("max", "maximum", ("norm", "most")),
        Node("min", "minimum", ("max", "sums")),
        Node("abs", "activation", ("min",), {"kind": "abs", "alpha": 0.0, "beta": 0.0}),
        Node("sqrt", "activation", ("abs",), {"kind": "sqrt", "alpha": 0.0, "beta": 0.0}),
        Node("pow", "activation", ("sqrt",), {"kind": "pow", "alpha": 1.5, "beta": 0.0}),
        Node("exp", "activation", ("y",), {"kind": "exp", "alpha": 0.0, "beta": 0.0}),
        Node("add", "add", ("pow", "exp")),
        Node("grid", "constant", ("y",), {}, {"values": 2 + _floats(3, 8, 8)}),
        Node("moved", "add", ("add", "grid")),
        Node("log", "activation", ("moved",), {"kind": "log", "alpha": 0.0, "beta": 0.0}),
        Node("probabilities", "log_softmax", ("log",), {"axis": 1}),
    )
    inputs = (sized, Input("y", (None, 3, 1, 1)))
    views = ((3, Axis(2), 2, 4), None, (None,))
    return Graph("three", inputs, ("probabilities", "most", "probabilities"), nodes, views=views)


def every_transform() -> Graph:
    """What version 2 of the artifact adds, on awkward sizes: matrices along taps and channels, channels and filters left over."""

    def conv(name: str, x: str, channels: int, filters: int, kernel: tuple[int, int], transform: str, **tiles: Attr) -> Node:
        pad = [kernel[0] // 2, kernel[1] // 2] * 2
        attrs: dict[str, Attr] = {"filters": filters, "channels": channels, "kernel": [*kernel], **CONV, "pad": pad}
        attrs |= {"transform": transform, "format": "dense", "block": 1, **tiles}
        return Node(name, "conv", (x,), attrs, {"values": _floats(filters, channels, *kernel), "bias": _floats(filters)})

    walsh = {"channels_transform": "walsh", "channels_tile": 4}
    nodes = [
        conv("taps", "x", 6, 10, (3, 1), "matrix"),
        conv("channels", "taps", 10, 9, (1, 1), "identity", channels_transform="matrix", channels_tile=4),
        conv("both", "channels", 9, 13, (3, 3), "dct", **walsh, filters_transform="walsh", filters_tile=4),
        conv("filters", "both", 13, 6, (1, 1), "identity", filters_transform="dct", filters_tile=5),
        Node("mean", "mean", ("filters",), {"axes": [2, 3], "keep": 0}),
    ]
    nodes[0].tensors["basis"] = dct_matrix(3)[::-1].astype(numpy.float32)
    nodes[1].tensors["tiles"] = numpy.stack([dct_matrix(4), walsh_matrix(4)[::-1]]).astype(numpy.float32)
    nodes[3].tensors["scale"] = _floats(6)
    linear = {"filters": 3, "channels": 6, "transform": "identity", "format": "block", "block": 2, **walsh}
    blocks = {"values": _floats(3, 2), "columns": numpy.array([0, 5, 2], numpy.uint16), "rows": numpy.array([0, 2, 3], numpy.uint32)}
    blocks["values"][2, 1] = 0
    nodes.append(Node("linear", "linear", ("mean",), linear, blocks))
    return Graph("every_transform", (Input("x", (None, 6, 5, 4)),), ("linear",), tuple(nodes))
