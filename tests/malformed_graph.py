"""Malformed networks: version, fields, names, references, nodes against the operator table."""

import copy

import numpy
from artifact_parts import Parts
from malformed_case import Case, Mutation, attrs, both, case, exchange, first_input, network, node, tensors

from cosparse.errors import UnsupportedError


def add_node(**fields: object) -> Mutation:
    def mutate(parts: Parts) -> None:
        extra = {"name": "extra", "op": "softmax", "inputs": ["z"], "attrs": {"axis": 1}, "tensors": {}}
        parts.network["nodes"].append(extra | fields)

    return mutate


def sized(sizes: object) -> Mutation:
    """Heights and widths that the first input takes, as version 3 has them."""
    return both(network(version=3), first_input(sizes=sizes))


def viewed(*views: object) -> Mutation:
    """Views of the outputs, as version 3 has them; each is of `softmax`, which has 3 numbers an image at the example's size."""
    return network(version=3, outputs=["softmax"] * len(views), views=list(views))


def many_nodes(parts: Parts) -> None:
    last = parts.network["nodes"][-1]
    parts.network["nodes"] = [dict(last, name=f"n{i}") for i in range(65537)]


def upsampled_often(parts: Parts) -> None:
    """Nine values of 7.8 GiB each."""
    for i in range(9):
        parts.network["nodes"].append(dict(copy.deepcopy(parts.node("size")), name=f"big{i}"))
        parts.network["nodes"][-1]["attrs"]["size"] = [45000, 46000]


def one_long_cycle(parts: Parts) -> None:
    """add -> sub -> mul -> add: `add` reads `mul`, which reads `sub`, which reads `add`."""
    parts.node("add")["inputs"] = ["prelu", "mul"]


def swapped(parts: Parts) -> None:
    nodes = parts.network["nodes"]
    nodes[1], nodes[2] = nodes[2], nodes[1]


def _batch(*sizes: object) -> list[object]:
    return [None, *sizes]


def with_constant(*shape: int, version: int = 3) -> Mutation:
    """A node `constant` whose values have that shape and stand before all other tensors."""

    def mutate(parts: Parts) -> None:
        parts.header["extra.values"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        parts.exchange("extra.values", numpy.zeros(shape, numpy.float32))
        parts.network["version"] = version
        add_node(op="constant", attrs={}, tensors={"values": "extra.values"})(parts)

    return mutate


TEN = {"scale": "affine.scale", "shift": "affine.scale"}
GROUPS = {"op": "group_norm", "inputs": ["relu"], "attrs": {"groups": 3, "eps": 0.001}, "tensors": TEN}
SUPPORTED = "conv, linear, affine, activation, prelu, add"
CASES: list[Case] = [
    case("format missing", network(format=None), "graph: format: expected 'cosparse', got none"),
    case("format of another", network(format="onnx"), "graph: format: expected 'cosparse', got the string 'onnx'"),
    case("version 4", network(version=4), "graph: version: expected at most 3, got 4", "update cosparse", error=UnsupportedError),
    case(
        "version 4 with other fields",
        both(network(version=4), network(nodes=None)),
        "graph: version: expected at most 3, got 4",
        error=UnsupportedError,
    ),
    case("version 0", network(version=0), "graph: version: expected an integer of at least 1, got the integer 0"),
    case("version a string", network(version="1"), "graph: version", "the string '1'"),
    case("version missing", network(version=None), "graph: version: expected an integer of at least 1, got none"),
    case("field missing", network(provenance=None), "graph: expected the field 'provenance', got none"),
    case("field unknown", network(extra=1), "graph: expected no field but format, version", "got 'extra'"),
    case("name empty", network(name=""), "graph: name: expected a name of 1 to 512 bytes, got 0 bytes"),
    case("name a number", network(name=3), "graph: expected a name, got the integer 3"),
    case("preprocessing a list", network(preprocessing=[]), "graph: preprocessing: expected an object, got a list of 0"),
    case("provenance a string", network(provenance="me"), "graph: provenance: expected an object, got the string 'me'"),
    case("inputs empty", network(inputs=[]), "graph: inputs: expected at least one, got none"),
    case("inputs an object", network(inputs={}), "graph: inputs: expected a list, got an object of 0"),
    case("input a string", network(inputs=["x"]), "graph: inputs: expected objects, got the string 'x'"),
    case("input field missing", first_input(dtype=None), "graph: inputs: expected the field 'dtype', got none"),
    case("input field unknown", first_input(layout="NHWC"), "graph: inputs: expected no field but name, shape, dtype, got 'layout'"),
    case("input dtype", first_input(dtype="float16"), "input 'x': expected dtype 'float32', got 'float16'"),
    case("input rank 3", first_input(shape=[4, 8, 8]), "input 'x': expected shape [null, C, H, W] or [null, F], got rank 3"),
    case("input batch fixed", first_input(shape=[1, 4, 8, 8]), "input 'x': expected null (the batch) as the first size, got the integer 1"),
    case("input height free", first_input(shape=[[], 4, [], 8]), "input 'x': expected null"),
    case("input sizes in version 2", first_input(sizes=[[8, 8], [8, 8]]), "no field but name, shape, dtype, got 'sizes'"),
    case("input sizes a number", sized(8), "input 'x': expected sizes as two pairs, got the integer 8"),
    case("input sizes one pair", sized([[8, 8]]), "input 'x': expected sizes as two pairs, of a shape of rank 4, got 1, of rank 4"),
    case("input sizes no pair", sized([[8, 8], [8]]), "input 'x': expected sizes as two pairs, got 1 numbers"),
    case("input sizes 0", sized([[0, 8], [8, 8]]), "input 'x': expected sizes from 1 to 2147483647, got 0"),
    case("input sizes without the example's", sized([[8, 8], [9, 20]]), "input 'x': expected sizes from 9 to 20, got 8, the example's"),
    case("input sizes of rank 2", both(sized([[1, 1], [1, 1]]), first_input(shape=[None, 4])), "of a shape of rank 4, got 2, of rank 2"),
    case("65,537 outputs", network(outputs=["x"] * 65537), "graph: expected at most 65536 outputs, got 65537"),
    case("65,537 inputs", network(inputs=[{}] * 65537), "graph: expected at most 65536 inputs, got 65537"),
    case("input size 0", first_input(shape=_batch(0, 8, 8)), "input 'x': expected sizes from 1 to 2147483647, got 0"),
    case("input size a string", first_input(shape=_batch("4", 8, 8)), "input 'x': expected integers", "the string '4'"),
    case(
        "input exhausts memory",
        first_input(shape=_batch(4, 2**20, 2**20)),
        "input 'x': expected 1 to 2147483647 elements, got [1, 4, 1048576, 1048576]",
    ),
    case("input name twice", first_input(name="z"), "graph: inputs: expected a name of its own, got the name 'z' twice"),
    case("input name of a node", first_input(name="mean"), "node 25 of the list: expected a name of its own, got the name 'mean' twice"),
    case("outputs empty", network(outputs=[]), "graph: outputs: expected at least one, got none"),
    case("output dangling", network(outputs=["y"]), "graph: expected outputs that name graph inputs or nodes, got 'y'"),
    case("output a number", network(outputs=[3]), "graph: expected outputs as a list of names, got the integer 3"),
    case("views in version 2", network(version=2, views=[None]), "graph: expected no field but format, version", "got 'views'"),
    case("views an object", network(version=3, views={}), "graph: views: expected a list, got an object of 0"),
    case("views too few", network(version=3, views=[]), "graph: views: expected one for each of the ", "outputs, got 0"),
    case("view a number", viewed(None, 10), "output 'softmax': expected a view as a list, or null, got the integer 10"),
    case("view of 8 axes", viewed([10, *[1] * 7]), "output 'softmax': expected a view of at most 7 axes behind the batch, got 8"),
    case("view of two nulls", viewed([None, 10, None]), "output 'softmax': expected a view of sizes", "got 2 of null"),
    case("view of size 0", viewed([0, None]), "output 'softmax': expected a view of sizes from 1 to 2147483647", "got 0"),
    case("view of a negative size", viewed([-1, 10]), "output 'softmax': expected a view of sizes from 1 to 2147483647", "got -1"),
    case("view of a large size", viewed([2**31]), "output 'softmax': expected a view of sizes from 1 to 2147483647", "got 2147483648"),
    case("view of a truth", viewed([True]), "output 'softmax': expected a view of sizes", "got true"),
    case("view of a list", viewed([[10]]), "output 'softmax': expected a view of sizes", "got a list of 1"),
    case("view of axis 0", viewed([{"axis": 0}]), "output 'softmax': expected a view of sizes", "got axis 0"),
    case("view of axis 4", viewed([{"axis": 4}]), "output 'softmax': expected a view of sizes", "got axis 4"),
    case("view of a word", viewed([{"axis": "H"}]), "output 'softmax': expected a view of sizes", "got the string 'H'"),
    case("view of another field", viewed([{"axes": 1}]), "output 'softmax': view: expected the field 'axis', got none"),
    case("view of two fields", viewed([{"axis": 1, "of": "x"}]), "output 'softmax': view: expected no field but axis, got 'of'"),
    case("view of an axis that is none", viewed([{"axis": 2}, None]), "output 'softmax': expected a value that has axis 2", "[1, 3]"),
    case("view of more numbers", viewed([3, 4]), "output 'softmax': expected as many numbers as the view [N, 3, 4] has, got [1, 3]"),
    case("view of fewer numbers", viewed([]), "output 'softmax': expected as many numbers as the view [N] has, got [1, 3]"),
    case("view that does not divide", viewed([2, None]), "output 'softmax': expected as many numbers as the view [N, 2, null] has"),
    case("view beyond 64 bits", viewed([2**31 - 1] * 7), "output 'softmax': expected as many numbers as the view [N, 2147483647, "),
    case("nodes an object", network(nodes={}), "graph: nodes: expected a list, got an object of 0"),
    case("nodes too many", many_nodes, "graph: nodes: expected at most 65536 nodes, got 65537"),
    case("node a string", network(nodes=["conv"]), "node 0 of the list: expected an object, got the string 'conv'"),
    case("node field missing", node("relu", attrs=None), "node 2 of the list: expected the field 'attrs', got none"),
    case("node field unknown", node("relu", outputs=["a"]), "node 2 of the list: expected no field but name, op", "got 'outputs'"),
    case("node name twice", node("relu", name="affine"), "node 2 of the list: expected a name of its own, got the name 'affine' twice"),
    case("node name long", node("relu", name="r" * 513), "node 2 of the list: expected a name of 1 to 512 bytes, got 513 bytes"),
    case(
        "node name with DEL",
        node("relu", name="a\x7f"),
        "node 2 of the list: expected a name without control characters, got one at byte 1",
    ),
    case("node name a list", node("relu", name=["a"]), "node 2 of the list: expected a name, got a list of 1"),
    case(
        "op unknown",
        node("relu", op="lstm"),
        "node 'relu': expected one of the operators " + SUPPORTED,
        "got 'lstm'",
        error=UnsupportedError,
    ),
    case("op unknown and huge", node("relu", op="x" * 10**6), "node 'relu'", "xxx...'", error=UnsupportedError),
    case("op a number", node("relu", op=1), "node 'relu': expected an operator's name, got the integer 1"),
    case(
        "input dangling",
        node("relu", inputs=["afine"]),
        "node 'relu' (activation): expected inputs that name graph inputs or nodes, got 'afine', which there is not",
    ),
    case(
        "inputs a string",
        node("relu", inputs="affine"),
        "node 'relu' (activation): expected inputs as a list of names, got the string 'affine'",
    ),
    case(
        "reads itself",
        node("relu", inputs=["relu"]),
        "node 'relu' (activation): expected a graph without cycles, got the cycle 'relu' -> 'relu'",
    ),
    case(
        "cycle of three",
        one_long_cycle,
        "node 'add' (add): expected a graph without cycles, got the cycle 'add' -> 'mul' -> 'sub' -> 'add'",
    ),
    case(
        "order wrong", swapped, "node 'relu' (activation): expected inputs that stand earlier in the list, got 'affine', which stands later"
    ),
    case("inputs too few", node("add", inputs=["prelu"]), "node 'add' (add): expected 2 inputs, got 1"),
    case("inputs too many", node("size", inputs=["factor", "x", "x"]), "node 'size' (upsample): expected 1 to 2 inputs, got 3"),
    case("inputs none", node("concat", inputs=[]), "node 'concat' (concat): expected 2 to 65536 inputs, got 0"),
    case("attributes a list", node("relu", attrs=[]), "node 'relu' (activation): expected 'attrs' as an object, got a list of 0"),
    case("attribute missing", attrs("clip", beta=None), "node 'clip' (activation): expected the attribute 'beta', got none"),
    case(
        "attribute unknown", attrs("clip", gamma=1.0), "node 'clip' (activation): expected no attribute but kind, alpha, beta, got 'gamma'"
    ),
    case(
        "integer a real",
        attrs("block", filters=10.0),
        "node 'block' (conv): attribute 'filters': expected an integer from 1 to 2147483647, got the number 10",
    ),
    case("integer a truth", attrs("mean", keep=False), "node 'mean' (mean): attribute 'keep': expected an integer from 0 to 1, got false"),
    case(
        "integer too low", attrs("slice", step=0), "node 'slice' (slice): attribute 'step': expected an integer from 1", "got the integer 0"
    ),
    case(
        "integer too high",
        attrs("shuffle", groups=2**63 - 1),
        "attribute 'groups': expected an integer from 1 to 2147483647, got the integer 9223372036854775807",
    ),
    case("number a string", attrs("clip", alpha="0"), "attribute 'alpha': expected a float32, got the string '0'"),
    case("number no float32", attrs("clip", beta=1e39), "attribute 'beta': expected a float32, got the number 1e+39"),
    case(
        "number too low",
        attrs("norm", eps=-1.0),
        "node 'norm' (layer_norm): attribute 'eps': expected a float32 of at least 0",
        "got the number -1",
    ),
    case("choice unknown", attrs("block", transform="fft"), "attribute 'transform': expected one of identity, dct, got the string 'fft'"),
    case(
        "linear in the DCT",
        attrs("linear", transform="dct"),
        "node 'linear' (linear): attribute 'transform': expected one of identity, got the string 'dct'",
    ),
    case("list too short", attrs("block", pad=[1, 1]), "attribute 'pad': expected a list of 4 integers, got a list of 2"),
    case("list of reals", attrs("block", stride=[1.5, 1]), "attribute 'stride': expected an integer from 1 to 65535, got the number 1.5"),
    case("list a number", attrs("block", stride=1), "attribute 'stride': expected a list of 2 integers, got the integer 1"),
    case("stride 0", attrs("block", stride=[0, 1]), "attribute 'stride': expected an integer from 1 to 65535, got the integer 0"),
    case(
        "kernel beyond its limit",
        attrs("block", kernel=[2048, 1]),
        "attribute 'kernel': expected an integer from 1 to 1024, got the integer 2048",
    ),
    case("pad negative", attrs("block", pad=[0, 0, -1, 0]), "attribute 'pad': expected an integer from 0 to 65535, got the integer -1"),
    case(
        "axis of the batch",
        attrs("concat", axis=0),
        "node 'concat' (concat): attribute 'axis': expected an integer from 1 to 3, got the integer 0",
    ),
    case(
        "softmax along H",
        attrs("softmax", axis=2),
        "node 'softmax' (softmax): attribute 'axis': expected an integer from 1 to 1, got the integer 2",
    ),
    case(
        "an operator of version 3",
        add_node(op="log_softmax"),
        "node 'extra': expected one of the operators conv",
        "'log_softmax'",
        error=UnsupportedError,
    ),
    case(
        "groups that do not divide",
        both(network(version=3), add_node(**GROUPS)),
        "node 'extra' (group_norm): expected groups that divide its 10 channels, got 3",
    ),
    *(
        case(
            f"constant of shape {list(shape)}",
            with_constant(*shape),
            f"node 'extra' (constant): expected values [F] or [C, H, W], at least one, got shape {list(shape)}",
        )
        for shape in ((0,), (2, 3), (2, 0, 3), (1, 2, 3, 4))
    ),
    case("constant of version 2", with_constant(2, version=2), "node 'extra': expected one of", "'constant'", error=UnsupportedError),
    case("tensors a list", node("affine", tensors=[]), "node 'affine' (affine): expected 'tensors' as an object, got a list of 0"),
    case("tensor missing", tensors("affine", shift=None), "node 'affine' (affine): expected the tensor 'shift', got none"),
    case("tensor role unknown", tensors("relu", bias="block.bias"), "node 'relu' (activation): expected no tensor, got 'bias'"),
    case(
        "tensor dangling",
        tensors("affine", shift="affine.shfit"),
        "node 'affine' (affine): expected the tensor 'affine.shfit' in the file, got none",
    ),
    case(
        "tensor name a number",
        tensors("affine", shift=1),
        "node 'affine' (affine): tensor 'shift': expected the name of a tensor, got the integer 1",
    ),
    case(
        "tensor dtype",
        tensors("affine", shift="block.columns"),
        "node 'affine' (affine): tensor 'block.columns': expected dtype F32, got U16",
    ),
    case(
        "tensor rank",
        tensors("affine", shift="dense.values"),
        "node 'affine' (affine): tensor 'dense.values': expected rank 1, got shape [6, 5, 3, 1]",
    ),
    case("rows as F32", exchange("block.rows", numpy.zeros(4, numpy.float32)), "tensor 'block.rows': expected dtype U32, got F32"),
    case(
        "value exhausts memory",
        attrs("factor", factor=[65535, 65535]),
        "node 'factor' (upsample): expected an output of 1 to 2147483647 elements",
    ),
    case("values exhaust memory", upsampled_often, "graph: expected values of at most 64 GiB at the example's size"),
]
