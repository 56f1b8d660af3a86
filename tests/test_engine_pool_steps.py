"""Max pools of int8's steps: between a convolution and what reads its tiles or planes of steps, they are of numbers; elsewhere of floats.

Sources are whole numbers whose steps are 1, and weights are 127 times 1 / 127: what comes out is the reference's to the last rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from chains import layer
from engines import EPS, engine_of, graph_of, isas_of
from nodes import FakeNode
from rounded_conv import assert_within
from test_engine_int8 import source_of

from cosparse.kernels import reference

RNG = np.random.default_rng
STEPS = [isa for isa in isas_of("int8") if isa not in ("scalar", "avx512")]  # the others keep floats between layers
CHANNELS = 6


def pool(
    name: str, source: str, kernel: Sequence[int], stride: Sequence[int], pad: int = 0, dilation: Sequence[int] = (1, 1), ceil: int = 0
) -> FakeNode:
    attrs = {"kernel": list(kernel), "stride": list(stride), "dilation": list(dilation), "pad": [pad] * 4, "ceil": ceil}
    return FakeNode(name, "max_pool", (source,), attrs)


def relu(name: str, source: str) -> FakeNode:
    return FakeNode(name, "activation", (source,), {"kind": "relu", "alpha": 0.0, "beta": 0.0})


def compare(nodes: list[FakeNode], x: np.ndarray, isa: str, outputs: Sequence[str] = (), threads: int = 2, off: float = 0.0) -> list[str]:
    """The kernels of the pools. off: of the largest value, where something on the way has steps that are not 1."""
    graph = graph_of(nodes, {"x": x.shape[1:]}, **({"outputs": tuple(outputs)} if outputs else {}))
    engine = engine_of(graph, isa=isa, dtype="int8", calibration=[x], threads=threads)
    got, want = engine(x), reference.run(graph, x)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        assert_within(g, w, 8 * EPS * (np.abs(w).max() + 257) + off * np.abs(w).max())
    return [row.kernel for row in engine.plan.rows if row.op == "max_pool"]


def whole(size: Sequence[int], batch: int = 1, *, least: int = 0) -> np.ndarray:
    """The largest number of a window is the pool's output; both ends of the range are in the middle of some."""
    x = RNG(size[0] * 100 + size[1]).integers(least, 255 + least, (batch, CHANNELS, *size), endpoint=True).astype(np.float32)
    x[:] = np.where(np.isin(x, (least, 255 + least)), 1 + least, x)
    x[:, 0] = 255 + least if least == 0 else 127  # whatever the pool leaves out, its reader's step is 1
    return x


WINDOWS = {
    "3x3_stride2": {"kernel": (3, 3), "stride": (2, 2), "pad": 1},
    "2x2": {"kernel": (2, 2), "stride": (2, 2)},
    "3x3_stride1": {"kernel": (3, 3), "stride": (1, 1), "pad": 1},
    "ceil": {"kernel": (3, 3), "stride": (2, 2), "ceil": 1},
    "2x5_stride3": {"kernel": (2, 5), "stride": (3, 3), "pad": 1},
    "dilated": {"kernel": (3, 3), "stride": (1, 2), "pad": 1, "dilation": (2, 3)},
    "row": {"kernel": (1, 4), "stride": (2, 1)},
}


@pytest.mark.parametrize("isa", STEPS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("reader", ["1x1", "1x1_stride2", "dct"])
def test_pools_of_steps(reader: str, window: str, isa: str) -> None:
    """Widths around a vector of words and of bytes, tiles that begin within a row, and images that begin within a group."""
    last = layer("d", "c", 19, CHANNELS, keep=0.6, stride=(2, 2) if reader == "1x1_stride2" else (1, 1))
    if reader == "dct":  # the sums of all taps alone: maps of whole numbers that 255 * 9 / 9 has room for
        last = layer("d", "c", 19, CHANNELS, 3, keep=0.6)
    for size, batch in (((9, 13), 1), ((8, 16), 2), ((7, 31), 3), ((9, 33), 2), ((11, 63), 1), ((10, 64), 2), ((5, 66), 1), ((12, 129), 1)):
        nodes = [source_of(CHANNELS), relu("a", "hands_on"), pool("c", "a", **WINDOWS[window]), last]
        kernels = compare(nodes, whole(size, batch), isa)
        assert kernels[0].startswith("pool_int8" if reader != "dct" else "pool_"), kernels


@pytest.mark.parametrize("isa", STEPS)
@pytest.mark.parametrize("window", WINDOWS)
def test_steps_of_negative_values(window: str, isa: str) -> None:
    """128 stands for 0, and what lies outside is below all."""
    for size in ((9, 13), (10, 64)):
        x = whole(size, 2, least=-128)
        x[:, 1] = np.minimum(x[:, 1], -1)
        nodes = [source_of(CHANNELS), pool("c", "hands_on", **WINDOWS[window]), layer("d", "c", 8, CHANNELS)]
        assert compare(nodes, x, isa)[0].startswith("pool_int8")


@pytest.mark.parametrize("isa", STEPS)
def test_what_else_reads_the_value_keeps_it_in_floats(isa: str) -> None:
    window = WINDOWS["3x3_stride2"]
    first = [source_of(CHANNELS), relu("a", "hands_on")]
    x = whole((9, 20), 2)
    reads_too = [*first, pool("c", "a", **window), layer("d", "c", 8, CHANNELS), layer("e", "a", 8, CHANNELS, 3, keep=0.3)]
    assert compare(reads_too, x, isa, ("d", "e"))[0].startswith("pool_f32")
    twice = [*first, pool("b", "a", **window), pool("c", "a", (2, 2), (2, 2)), layer("d", "b", 8, CHANNELS), layer("e", "c", 8, CHANNELS)]
    assert all(kernel.startswith("pool_f32") for kernel in compare(twice, x, isa, ("d", "e")))
    output = [*first, pool("c", "a", **window), layer("d", "c", 8, CHANNELS)]
    assert compare(output, x, isa, ("c", "d"))[0].startswith("pool_f32")
    added = [
        *first,
        pool("c", "a", (3, 3), (1, 1), 1),
        layer("b0", "c", CHANNELS, CHANNELS),
        FakeNode("b", "add", ("b0", "a")),
        layer("d", "b", 8, CHANNELS),
    ]
    assert compare(added, x, isa, off=0.05)[0].startswith("pool_f32")
    behind_a_pool = [*first, pool("b", "a", **window), pool("c", "b", (2, 2), (2, 2)), layer("d", "c", 8, CHANNELS)]
    assert compare(behind_a_pool, x, isa)[0].startswith("pool_f32")
    read_on = [
        *first,
        pool("c", "a", **window),
        layer("d", "c", 8, CHANNELS),
        pool("b", "c", (3, 3), (1, 1), 1),
        layer("e", "b", 8, CHANNELS),
    ]
    assert all(kernel.startswith("pool_f32") for kernel in compare(read_on, x, isa, ("d", "e")))
    of_an_input = [pool("c", "x", **window), layer("d", "c", 8, CHANNELS)]
    assert compare(of_an_input, x, isa)[0].startswith("pool_f32")


@pytest.mark.parametrize("isa", STEPS)
def test_what_a_pool_of_steps_makes_may_be_added(isa: str) -> None:
    """Read by a 1x1 layer and added to its result, as in a residual block behind a stem."""
    x = whole((9, 20), 2)
    nodes = [
        source_of(CHANNELS),
        relu("a", "hands_on"),
        pool("c", "a", **WINDOWS["3x3_stride2"]),
        layer("d0", "c", CHANNELS, CHANNELS, keep=0.3),
    ]
    nodes += [FakeNode("d", "add", ("d0", "c"))]
    for threads in (1, 3):
        assert compare(nodes, x, isa, threads=threads)[0].startswith("pool_int8")


@pytest.mark.parametrize("isa", isas_of("int8"))
@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_added_is_not_cut_off(pooled: bool, isa: str) -> None:
    """The 1x1 reader, whose steps a value lies in, leaves out the channel of the largest numbers; the residual does not."""
    x = RNG(0).integers(0, 11, (1, CHANNELS, 9, 20)).astype(np.float32)
    x[:, 5] *= 25
    last = layer("d0", "c" if pooled else "a", CHANNELS, CHANNELS)
    last.tensors["values"][:, 5] = 0
    nodes = [source_of(CHANNELS), relu("a", "hands_on"), *([pool("c", "a", (3, 3), (1, 1), 1)] if pooled else []), last]
    compare([*nodes, FakeNode("d", "add", ("d0", last.inputs[0]))], x, isa, off=0.02)


@pytest.mark.parametrize("isa", STEPS)
def test_pools_of_many_channels_and_few_rows(isa: str) -> None:
    """Units of a part of a plane, and of several planes."""
    for size, threads in (((64, 7), 5), ((2, 200), 5), ((2, 2), 3)):
        x = whole(size, 2)
        nodes = [source_of(CHANNELS), relu("a", "hands_on"), pool("c", "a", (2, 2), (1, 2)), layer("d", "c", 8, CHANNELS)]
        assert compare(nodes, x, isa, threads=threads)[0].startswith("pool_int8")
