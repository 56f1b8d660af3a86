"""Malformed nodes: rules among attributes and tensors, block formats, shapes that do not fit each other."""

import numpy
from artifact_parts import Parts
from malformed_case import Case, attrs, case, exchange, node, poke, tensors


def block_values(**changes: int) -> numpy.ndarray:
    return numpy.zeros((changes.get("blocks", 5), changes.get("width", 4)), numpy.float32)


def wide(parts: Parts) -> None:
    """K = 70,000, so that the columns should be U32."""
    parts.node("block")["attrs"].update(channels=70000, kernel=[1, 1])


def unused_rows(parts: Parts) -> None:
    parts.node("block")["tensors"].pop("rows")


POOL, UP = "node 'max' (max_pool)", "node 'size' (upsample)"
CASES: list[Case] = [
    case(
        "groups against filters",
        attrs("block", groups=4),
        "node 'block' (conv): expected groups that divide filters and channels, got 4 groups, 10 filters, 4 channels",
    ),
    case("too many weights", attrs("block", filters=2**30, channels=2**30), "node 'block' (conv): expected at most 2147483647 weights"),
    case(
        "dense values of another shape",
        attrs("dense", kernel=[1, 3]),
        "tensor 'dense.values': expected shape [6, 5, 1, 3], got [6, 5, 3, 1]",
    ),
    case("dense with a block", attrs("dense", block=2), "node 'dense' (conv): expected block 1 (format dense), got 2"),
    case(
        "dense with rows",
        tensors("dense", rows="block.rows"),
        "node 'dense' (conv): expected no tensor 'rows' (format dense), got 'block.rows'",
    ),
    case(
        "linear values of rank 4",
        exchange("linear.values", numpy.zeros((3, 6, 1, 1), numpy.float32)),
        "tensor 'linear.values': expected shape [3, 6], got [3, 6, 1, 1]",
    ),
    case("block 3", attrs("block", block=3), "node 'block' (conv): expected block 1, 2, 4, 8, 16, 32 or 64, got 3"),
    case("block 128", attrs("block", block=128), "attribute 'block': expected an integer from 1 to 64, got the integer 128"),
    case(
        "block across groups",
        attrs("block", groups=2),
        "node 'block' (conv): expected a block that divides the 5 filters of a group, got 4",
    ),
    case("rows missing", unused_rows, "node 'block' (conv): expected the tensor 'rows' (format block), got none"),
    case(
        "block values of another width",
        exchange("block.values", block_values(width=8)),
        "tensor 'block.values': expected shape [5, 4], got [5, 8]",
    ),
    case(
        "block values too few", exchange("block.values", block_values(blocks=4)), "tensor 'block.values': expected shape [5, 4], got [4, 4]"
    ),
    case("columns missing", attrs("dense", format="block"), "node 'dense' (conv): expected the tensor 'columns' (format block), got none"),
    case("rows too few", exchange("block.rows", numpy.array([0, 3, 5], numpy.uint32)), "tensor 'block.rows': expected shape [4], got [3]"),
    case("rows start late", poke("block.rows", 0, 1), "tensor 'block.rows': expected a start at 0, got 1"),
    case("rows fall", poke("block.rows", 2, 2), "tensor 'block.rows': expected row pointers that never fall, got 3 then 2 at block row 1"),
    case(
        "rows fall after running away",
        poke("block.rows", 1, 4294967295),
        "tensor 'block.rows': expected row pointers that never fall, got 4294967295 then 3",
    ),
    case("rows end early", poke("block.rows", 3, 4), "tensor 'block.rows': expected an end at the number of blocks, 5, got 4"),
    case("rows end late", poke("block.rows", 3, 2**31), "tensor 'block.rows': expected an end at the number of blocks, 5, got 2147483648"),
    case("column beyond K", poke("block.columns", 2, 36), "tensor 'block.columns': expected columns below 36, got 36 in block row 0"),
    case(
        "columns unsorted", poke("block.columns", 1, 35), "tensor 'block.columns': expected columns that ascend", "35 twice in block row 0"
    ),
    case("columns fall", poke("block.columns", 0, 8), "tensor 'block.columns': expected columns that ascend", "8 then 7 in block row 0"),
    case("columns twice", poke("block.columns", 4, 3), "tensor 'block.columns': expected columns that ascend", "3 twice in block row 2"),
    case(
        "columns as U32",
        exchange("block.columns", numpy.zeros(5, numpy.uint32)),
        "tensor 'block.columns': expected dtype U16 for K = 36 <= 65536, got U32",
    ),
    case("columns as U16", wide, "tensor 'block.columns': expected dtype U32 for K = 70000 > 65536, got U16"),
    case(
        "value beyond the filters",
        poke("block.values", 19, 0.5),
        "tensor 'block.values': expected zeros where the last block row reaches beyond the 10 filters, got 0.5",
        "in block 4",
    ),
    case("scale too short", exchange("block.scale", numpy.zeros(9, numpy.float32)), "tensor 'block.scale': expected shape [10], got [9]"),
    case("bias empty", exchange("block.bias", numpy.zeros(0, numpy.float32)), "tensor 'block.bias': expected shape [10], got [0]"),
    case("conv channels", attrs("dense", groups=1, channels=5), "node 'dense' (conv): expected 5 channels, got input [1, 10, 8, 8]"),
    case("conv of rank 2", node("block", inputs=["z"]), "node 'block' (conv): expected rank 4, got input [1, 6]"),
    case(
        "conv larger than its input",
        attrs("block", dilation=[5, 1]),
        "node 'block' (conv): expected height and width that hold its window [3, 3], got input [1, 4, 8, 8]",
    ),
    case("linear of rank 4", node("linear", inputs=["norm"]), "node 'linear' (linear): expected rank 2, got input [1, 6, 4, 4]"),
    case(
        "affine channels",
        node("affine", inputs=["x"]),
        "node 'affine' (affine): expected 10 channels, the length of its scale, got input [1, 4, 8, 8]",
    ),
    case(
        "prelu channels",
        node("prelu", inputs=["x"]),
        "node 'prelu' (prelu): expected 10 channels, the length of its slope, got input [1, 4, 8, 8]",
    ),
    case("layer_norm channels", node("norm", inputs=["add"]), "node 'norm' (layer_norm): expected 6 channels", "got input [1, 10, 8, 8]"),
    case("relu with alpha", attrs("relu", alpha=0.1), "node 'relu' (activation): expected alpha 0, which relu has no use for, got 0.1"),
    case("relu with beta", attrs("relu", beta=6), "node 'relu' (activation): expected beta 0, which relu has no use for, got 6"),
    case("clip reversed", attrs("clip", alpha=7.0), "node 'clip' (activation): expected alpha (lowest) not above beta (highest), got 7"),
    case(
        "add of ranks",
        node("add", inputs=["prelu", "z"]),
        "node 'add' (add): expected inputs of one rank and batch, got input [1, 10, 8, 8], [1, 6]",
    ),
    case(
        "add of sizes",
        node("sub", inputs=["add", "x"]),
        "node 'sub' (sub): expected sizes that are equal or 1, got input [1, 10, 8, 8], [1, 4, 8, 8]",
    ),
    case(
        "pool pad beyond half",
        attrs("max", pad=[1, 1, 1, 2]),
        POOL,
        "pads of at most half the kernel, got pad [1, 1, 1, 2] with kernel [3, 3]",
    ),
    case(
        "pool larger than its input",
        attrs("avg", kernel=[30, 30]),
        "node 'avg' (avg_pool): expected height and width that hold its window [30, 30], got input [1, 6, 8, 8]",
    ),
    case("pool dilated beyond", attrs("max", dilation=[1, 50]), POOL, "height and width that hold its window"),
    case("mean axes fall", attrs("mean", axes=[3, 2]), "node 'mean' (mean): expected axes that ascend, got [3, 2]"),
    case("mean axes twice", attrs("mean", axes=[2, 2]), "node 'mean' (mean): expected axes that ascend, got [2, 2]"),
    case(
        "mean axes none",
        attrs("mean", axes=[]),
        "node 'mean' (mean): attribute 'axes': expected a list of 1 to 3 integers, got a list of 0",
    ),
    case("mean of C to rank 2", attrs("mean", axes=[1]), "node 'mean' (mean): expected axes [2, 3] with keep 0, got [1]"),
    case(
        "concat of sizes",
        node("concat", inputs=["adaptive_avg", "max"]),
        "node 'concat' (concat): expected inputs that differ only along axis 1",
    ),
    case(
        "concat of ranks",
        node("concat", inputs=["adaptive_avg", "z"]),
        "node 'concat' (concat): expected inputs that differ only along axis 1",
    ),
    case(
        "concat axis beyond the rank",
        node("both", op="concat", attrs={"axis": 2}),
        "node 'both' (concat): expected rank 4 for axis 2, got input [1, 6], [1, 6]",
    ),
    case("slice of nothing", attrs("slice", start=5, stop=-7), "node 'slice' (slice): expected something between 5 and -7 along axis 1"),
    case(
        "reflect beyond the size",
        attrs("pad", before=[0, 3, 0]),
        "node 'pad' (pad): expected sizes above the reflected pads, got input [1, 4, 3, 2]",
    ),
    case("reflect with a value", attrs("pad", value=1.0), "node 'pad' (pad): expected value 0, which mode reflect has no use for, got 1"),
    case("reshape to two sizes", attrs("reshape", shape=[4, 12]), "node 'reshape' (reshape): expected 1 or 3 sizes, got [4, 12]"),
    case(
        "reshape with two open sizes",
        attrs("reshape", shape=[-1, -1, 1]),
        "node 'reshape' (reshape): expected -1 at most once, got [-1, -1, 1]",
    ),
    case(
        "reshape to other elements",
        attrs("reshape", shape=[7, 7, 1]),
        "node 'reshape' (reshape): expected as many elements as [7, 7, 1], got input [1, 4, 4, 3]",
    ),
    case(
        "reshape that does not divide",
        attrs("reshape", shape=[-1, 5, 1]),
        "node 'reshape' (reshape): expected as many elements as [-1, 5, 1]",
    ),
    case("reshape that overflows", attrs("reshape", shape=[2**31 - 1] * 3), "node 'reshape' (reshape): expected as many elements as"),
    case(
        "reshape keeps what is not",
        node("reshape", inputs=["z"]),
        "node 'reshape' (reshape): expected a size to keep at each 0 of [-1, 0, 1], got input [1, 6]",
    ),
    case(
        "permute the batch",
        attrs("permute", order=[1, 0, 2, 3]),
        "node 'permute' (permute): expected a permutation of 0..3 that starts with 0, got [1, 0, 2, 3]",
    ),
    case("permute twice", attrs("permute", order=[0, 1, 1, 3]), "node 'permute' (permute): expected a permutation of 0..3", "[0, 1, 1, 3]"),
    case(
        "upsample both ways",
        attrs("size", factor=[2, 2]),
        UP,
        "one of size, factor and a second input, got size [5, 5], factor [2, 2], inputs 1",
    ),
    case("upsample no way", attrs("size", size=[0, 0]), UP, "one of size, factor and a second input"),
    case("upsample half a size", attrs("size", size=[5, 0]), UP, "both or neither of a pair to be 0, got size [5, 0]"),
    case(
        "upsample size and like",
        attrs("like", size=[5, 5]),
        "node 'like' (upsample): expected one of size, factor and a second input",
        "inputs 2",
    ),
    case("nearest with corners", attrs("size", mode="nearest"), UP, "align_corners 0 with mode nearest, got 1"),
    case(
        "depth_to_space channels",
        attrs("d2s", block=[3, 1]),
        "node 'd2s' (depth_to_space): expected channels that are a multiple of 3, got input [1, 4, 4, 3]",
    ),
    case(
        "depth_to_space crop",
        attrs("d2s", crop=[4, 0, 4, 0]),
        "node 'd2s' (depth_to_space): expected something left after the crop [4, 0, 4, 0]",
    ),
    case(
        "shuffle groups",
        attrs("shuffle", groups=3),
        "node 'shuffle' (channel_shuffle): expected channels that are a multiple of 3, got input [1, 4, 4, 3]",
    ),
]
