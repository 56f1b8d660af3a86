"""Transforms of version 2 in the interpreter and the engine: against full matrices written out, in every format, group and dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from closeness import assert_close
from engines import ISAS, check, engine_of, graph_of
from nodes import FakeNode, conv, node, normal, random_blocks
from scipy.fft import dct
from scipy.linalg import hadamard

from cosparse.kernels import reference
from cosparse.kernels.basis import conv_by_basis
from cosparse.kernels.conv import scatter_blocks, unpack
from cosparse.kernels.reference import run_node

WALSH8 = {"channels_transform": "walsh", "channels_tile": 8}
AXES: dict[str, dict[str, Any]] = {
    "channels": WALSH8,
    "channels_dct": {"channels_transform": "dct", "channels_tile": 5},
    "channels_matrix": {"channels_transform": "matrix", "channels_tile": 6},
    "filters": {"filters_transform": "dct", "filters_tile": 5},
    "two_sided": {**WALSH8, "filters_transform": "walsh", "filters_tile": 4},
    "taps_matrix": {"transform": "matrix"},
    "dct_and_channels": {"transform": "dct", **WALSH8},
    "all": {"transform": "matrix", "channels_transform": "matrix", "channels_tile": 4, "filters_transform": "dct", "filters_tile": 7},
}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "1x1": {"kernel": (1, 1)},
    "3x3": {"kernel": (3, 3), "pad": (1, 1, 1, 1)},
    "3x5_stride": {"kernel": (3, 5), "stride": (2, 1), "pad": (0, 2, 1, 1)},
    "2x2_dilation": {"kernel": (2, 2), "dilation": (2, 3)},
}


def orthonormal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=shape))[0].astype(np.float32)


def transformed(rng: np.random.Generator, filters: int, channels: int, axes: dict[str, Any], block: int = 0, **options: Any) -> FakeNode:
    """A conv of random coefficients in these transforms, with scale and bias."""
    taps = math.prod(options["kernel"])
    n = conv(rng, filters, channels, block=block, density=0.5, extras=("scale", "bias"), **options)
    n.attrs.update(axes)
    if axes.get("transform") == "matrix":
        n.tensors["basis"] = orthonormal(rng, taps, taps)
    if axes.get("channels_transform") == "matrix":
        points = axes["channels_tile"]
        n.tensors["tiles"] = orthonormal(rng, channels // points, points, points)
    return n


def axis_matrix(n: FakeNode, axis: str) -> np.ndarray:
    """The matrix along the whole axis, tile after tile on its diagonal: scipy's DCT and Hadamard matrices, or the node's own."""
    size, kind, points = (n.attrs.get(f"{axis}{key}") for key in ("", "_transform", "_tile"))
    matrix = np.eye(size)
    for tile in range(size // points if points else 0):
        part = slice(tile * points, (tile + 1) * points)
        own = {"dct": lambda: dct(np.eye(points), axis=0, norm="ortho"), "walsh": lambda: hadamard(points) / math.sqrt(points)}
        matrix[part, part] = own[kind]() if kind in own else n.tensors["tiles"][tile]
    return matrix


def written_out(n: FakeNode) -> np.ndarray:
    """W = scale F^T S C B, each matrix of its whole axis, [O, C/G, R, S]."""
    rows, columns = n.attrs["kernel"]
    shape = (n.attrs["filters"], n.attrs["channels"] // n.attrs["groups"], rows * columns)
    s = n.tensors["values"].astype(np.float64)
    if n.attrs["format"] == "block":
        s = scatter_blocks(s, n.tensors["columns"], n.tensors["rows"], shape[1] * shape[2])[: shape[0]]
    taps = {
        "identity": np.eye(shape[2]),
        "dct": np.kron(*(dct(np.eye(size), axis=0, norm="ortho") for size in (rows, columns))),
        "matrix": n.tensors.get("basis"),
    }[n.attrs["transform"]]
    along_channels = axis_matrix(n, "channels") if n.attrs["groups"] == 1 else np.eye(shape[1])
    w = np.einsum("uo,uct,cd,ti->odi", axis_matrix(n, "filters"), s.reshape(shape), along_channels, taps, optimize=True)
    return (w * n.tensors["scale"][:, None, None]).reshape(*shape[:2], rows, columns)


def gain(n: FakeNode) -> float:
    """The largest sum of |weights| over the inputs of an output."""
    return float(np.abs(written_out(n)).reshape(n.attrs["filters"], -1).sum(1).max()) + 4


@pytest.mark.parametrize("block", [0, 8])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_interpreter_means_what_the_page_says(axes: dict[str, Any], geometry: dict[str, Any], block: int) -> None:
    """Both ways: weights transformed back, and activations transformed on the way."""
    rng = np.random.default_rng(3)
    n = transformed(rng, 13, 19, axes, block, **geometry)
    terms = 20 * (math.prod(geometry["kernel"]) + 64)
    scale = 8 * float(np.abs(written_out(n)).max())
    assert_close(unpack(n), written_out(n), terms=terms, scale=scale)
    plain = {key: n.attrs[key] for key in ("filters", "channels", "kernel", "stride", "dilation", "pad", "groups")}
    w = FakeNode("w", "conv", ("x",), {**plain, "transform": "identity", "format": "dense", "block": 1}, {"values": written_out(n)})
    w.tensors["bias"] = n.tensors["bias"]
    x = rng.normal(size=(2, 19, 8, 7))
    wanted = run_node(w, x)
    assert_close(run_node(n, x), wanted, terms=terms, scale=4 * gain(n))
    # float32 matrices are orthonormal to their own rounding only, so the two ways differ by as much
    eps = float(np.finfo(np.float32 if "matrix" in axes.values() else np.float64).eps)
    assert_close(conv_by_basis(n, x), wanted, terms=terms, scale=4 * gain(n), eps=eps)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("block", [0, 1, 64])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_engine_transforms_back(axes: dict[str, Any], block: int, isa: str) -> None:
    """Filter tiles that no block row of a kernel divides, channels and filters left over."""
    rng = np.random.default_rng(4)
    for name in ("1x1", "3x5_stride"):
        n = transformed(rng, 23, 19, axes, block, **GEOMETRIES[name])
        graph = graph_of([n], {"x": (19, 8, 9)})
        check(graph, [normal(rng, 2, 19, 8, 9)], terms=19 * 15 + 5, gain=gain(n), isa=isa)
        why = engine_of(graph, isa=isa).plan.rows[0].why
        assert why.startswith("no kernel for ") or (axes.get("transform") == "matrix") == ("matrix" in why)


@pytest.mark.parametrize(
    ("filters", "groups", "why"), [(12, 3, "no kernel for a matrix along taps"), (12, 6, "depthwise: transformed back")]
)
def test_matrix_along_the_taps_of_groups(filters: int, groups: int, why: str) -> None:
    rng = np.random.default_rng(5)
    n = transformed(rng, filters, 6, {"transform": "matrix"}, kernel=(3, 3), pad=(1, 1, 1, 1), groups=groups)
    assert_close(unpack(n), written_out(n), terms=9, scale=8.0)
    graph = graph_of([n], {"x": (6, 7, 7)})
    check(graph, [normal(rng, 2, 6, 7, 7)], terms=9 * 6, gain=gain(n))
    assert engine_of(graph).plan.rows[0].why.startswith(why)


@pytest.mark.parametrize("block", [0, 4])
def test_linear_with_both_sides(block: int) -> None:
    rng = np.random.default_rng(6)
    tensors = random_blocks(rng, 11, 21, block, 0.5) if block else {"values": normal(rng, 11, 21)}
    attrs = {"filters": 11, "channels": 21, "transform": "identity", "format": "block" if block else "dense", "block": block or 1}
    attrs |= {**WALSH8, "filters_transform": "dct", "filters_tile": 4}
    n = node("linear", tensors | {"bias": normal(rng, 11), "scale": normal(rng, 11)}, **attrs)
    as_conv = FakeNode("c", "conv", ("x",), {**attrs, "kernel": [1, 1], "groups": 1}, n.tensors)
    assert_close(unpack(n), written_out(as_conv), terms=32, scale=16.0)
    check(graph_of([n], {"x": (21,)}), [normal(rng, 3, 21)], terms=40, gain=gain(as_conv))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_short_numbers_round_what_was_transformed_back(dtype: str) -> None:
    """The engine on coefficients and on the taps that they stand for: the same bits."""
    rng = np.random.default_rng(7)
    n = transformed(rng, 16, 19, AXES["all"], 8, kernel=(3, 3), pad=(1, 1, 1, 1))
    taps = {"values": unpack(n).astype(np.float32), "bias": n.tensors["bias"]}
    kept = {key: n.attrs[key] for key in ("filters", "channels", "kernel", "stride", "dilation", "pad", "groups")}
    plain = FakeNode(n.name, "conv", ("x",), {**kept, "transform": "identity", "format": "dense", "block": 1}, taps)
    x = normal(rng, 2, 19, 6, 6)
    options: dict[str, Any] = {"dtype": dtype, "calibration": [x] if dtype == "int8" else ()}
    ours, theirs = (engine_of(graph_of([one], {"x": (19, 6, 6)}), **options)(x) for one in (n, plain))
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert difference <= 2**-7  # where a float32 rounds the other way, a short weight may
    wanted = reference.run(graph_of([n], {"x": (19, 6, 6)}), x)[0]
    assert np.abs(ours - wanted).max() <= 0.05 * np.abs(wanted).max()


def test_several_threads_and_shared_matrices() -> None:
    """Two layers that share one tensor of matrices, loaded by an engine that takes the artifact over."""
    rng = np.random.default_rng(8)
    first = transformed(rng, 19, 19, AXES["channels_matrix"], kernel=(1, 1))
    second = FakeNode("second", "conv", (first.name,), first.attrs, first.tensors)
    check(graph_of([first, second], {"x": (19, 4, 4)}), [normal(rng, 1, 19, 4, 4)], terms=40, gain=gain(first) ** 2, threads=2)
