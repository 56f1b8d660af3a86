"""Every GPU launch against the float64 reference, run by Triton's interpreter on the CPU: both dtypes, awkward shapes, NaN behind rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from gpu_values import DTYPES, assert_rounded, check, exact, image, planes, poisoned
from nodes import FakeNode, conv, node, normal

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.gpu import pool
from cosparse.kernels.gpu.boundary import read, write
from cosparse.kernels.gpu.depthwise import Depthwise
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.launches import LAUNCHES
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.pointwise import channel_vector
from cosparse.kernels.reference import REFERENCES, run_node

# Functions that overflow on the way to a number that does not, and NaN where a test wants it.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.param]


def test_every_operator_has_a_launch() -> None:
    assert LAUNCHES.keys() == REFERENCES.keys() - {"conv", "linear"}


NO_PARAMETERS = ("relu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "softplus", "mish")
ACTIVATIONS = {"clip": (-0.5, 1.25), "leaky_relu": (0.1, 0.0), "elu": (1.5, 0.0), **dict.fromkeys(NO_PARAMETERS, (0.0, 0.0))}
OF_POSITIVE = {"sqrt": 0.0, "log": 0.0, "pow": 0.7}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind: str, dtype: torch.dtype) -> None:
    alpha, beta = ACTIVATIONS[kind]
    n = node("activation", kind=kind, alpha=alpha, beta=beta)
    x = np.concatenate([image(2, 3, 5, 7, spread=spread, seed=i) for i, spread in enumerate((1e-3, 0.3, 1.0, 30.0))], 3)
    x[0, 0, 0, :3] = np.nan, 0.0, -0.0
    # Mish: float32's log(1 + e^x) loses what e^x has below 2^-24, and x = -30 multiplies it.
    check(n, x, dtype=dtype, slack=4e-6)
    check(n, image(3, 65), dtype=dtype)


@pytest.mark.parametrize("kind", ["abs", "exp", *OF_POSITIVE])
def test_functions(kind: str, dtype: torch.dtype) -> None:
    x = image(2, 3, 5, 7)
    x = 1e-3 + np.abs(x) if kind in OF_POSITIVE else x
    x[0, 0, 0, 0] = np.nan
    check(node("activation", kind=kind, alpha=OF_POSITIVE.get(kind, 0.0), beta=0.0), x, dtype=dtype, slack=4e-6)


def by_channel(channels: int) -> Iterator[FakeNode]:
    rng = np.random.default_rng(0)
    scale, shift = normal(rng, channels), normal(rng, channels)
    yield node("affine", {"scale": scale, "shift": shift})
    yield node("prelu", {"slope": scale})
    yield node("layer_norm", {"scale": scale, "shift": shift}, eps=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 3), (2, 4, 8, 8), (1, 17, 5, 13), (2, 3, 23, 29), (2, 1031), (3, 7)], ids=str)
def test_channel_parameters(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for n in by_channel(shape[1]):
        check(n, image(*shape), dtype=dtype, slack=1e-5)
        for role in n.tensors:  # a captured launch must not upload anything
            first, again = (channel_vector(n, role, shape[1], torch.device(DEVICE)) for _ in range(2))
            assert first is again


OTHERS = [(3, 4, 7, 9), (3, 4, 1, 1), (1, 4, 7, 9), (3, 1, 7, 9), (1, 1, 1, 1), (3, 4, 1, 9), (3, 4, 7, 1)]


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_broadcasting(op: str, other: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = image(3, 4, 7, 9), 1 + np.abs(image(*other, seed=1))
    check(node(op), a, b, dtype=dtype)
    check(node(op), b, 1 + np.abs(a), dtype=dtype)


def test_operands_that_broadcast_each_other(dtype: torch.dtype) -> None:
    check(node("mul"), image(2, 4, 1, 1), image(2, 1, 5, 6), dtype=dtype)
    check(node("sub"), image(2, 1, 1, 6), image(1, 3, 5, 1), dtype=dtype)
    check(node("add"), image(3, 17), image(1, 17), dtype=dtype)


def test_pointwise_refusals() -> None:
    x, other = planes(image(1, 3, 2, 2), torch.float16), planes(image(1, 3, 3, 2), torch.float16)
    with pytest.raises(UnsupportedError, match=r"node a_activation .*kind one of none, relu.*'swoosh'"):
        LAUNCHES["activation"](node("activation", kind="swoosh", alpha=0.0, beta=0.0), [x], x)
    with pytest.raises(ShapeError, match=r"node a_add .*expected sizes 1 or those of \(1, 3, 2, 2\), got \(1, 3, 3, 2\)"):
        LAUNCHES["add"](node("add"), [x, other], x)
    for n in by_channel(4):
        with pytest.raises(ShapeError, match=f"node a_{n.op} .*expected 4 channels.*got 3"):
            LAUNCHES[n.op](n, [x], x)


POOLS = {
    "3x3_stride2": {"kernel": [3, 3], "stride": [2, 2], "pad": [1, 1, 1, 1]},
    "2x2": {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0, 0, 0]},
    "5x2_uneven": {"kernel": [5, 2], "stride": [3, 1], "pad": [2, 1, 1, 0]},
    "3x11_looped": {"kernel": [3, 11], "stride": [4, 5], "pad": [1, 5, 1, 5]},
    "1x1_stride2": {"kernel": [1, 1], "stride": [2, 3], "pad": [0, 0, 0, 0]},
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("ceil", [0, 1])
def test_pools(name: str, ceil: int, dtype: torch.dtype) -> None:
    for batch, height, width in ((3, 7, 9), (1, 29, 33), (2, 8, 16)):
        x = image(batch, 3, height, width) - 5  # below zero: padding must not win a maximum
        check(node("max_pool", **POOLS[name], dilation=[1, 1], ceil=ceil), x, dtype=dtype)
    for count_pad, divisor in ((0, 0), (1, 0), (1, 7)):
        check(node("avg_pool", **POOLS[name], ceil=ceil, count_pad=count_pad, divisor=divisor), x, dtype=dtype, slack=1e-5)


@pytest.mark.parametrize("kernel", [[3, 3], [2, 2], [3, 1], [1, 5], [6, 4]], ids=str)
@pytest.mark.parametrize("left", [0, 1, 2])
def test_pools_by_words(kernel: list[int], left: int, dtype: torch.dtype) -> None:
    """Horizontal stride 2 over rows of even width: windows that begin at even and odd pixels."""
    attrs = {"kernel": kernel, "stride": [kernel[0] % 3 + 1, 2], "pad": [1, min(left, kernel[1] // 2), 0, kernel[1] // 2], "ceil": 1}
    x = image(2, 3, 11, 10) - 5
    check(node("max_pool", **attrs, dilation=[1, 1]), x, dtype=dtype)
    check(node("max_pool", **attrs, dilation=[2, 1]), x, dtype=dtype)
    for count_pad, divisor in ((0, 0), (1, 0), (0, 7)):
        check(node("avg_pool", **attrs, count_pad=count_pad, divisor=divisor), x, dtype=dtype, slack=1e-5)


def test_pools_of_many_outputs(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Larger programs."""
    monkeypatch.setattr(pool, "FULL", 1)
    check(node("max_pool", **POOLS["3x3_stride2"], dilation=[1, 1], ceil=0), image(2, 3, 62, 66), dtype=dtype)


@pytest.mark.parametrize("stride", [[2, 1], [3, 3]], ids=str)
def test_dilated_max_pools(stride: list[int], dtype: torch.dtype) -> None:
    """Also one whose taps step over a plane of one row: what no tap meets is minus infinity."""
    check(node("max_pool", kernel=[3, 2], stride=stride, pad=[1, 1, 1, 1], dilation=[2, 3], ceil=1), image(2, 4, 11, 13), dtype=dtype)
    check(node("max_pool", kernel=[2, 2], stride=stride, pad=[1, 1, 1, 1], dilation=[2, 2], ceil=0), image(1, 2, 1, 5), dtype=dtype)


@pytest.mark.parametrize("size", [[1, 1], [3, 2], [7, 7], [9, 11], [11, 13]], ids=str)
@pytest.mark.parametrize("op", ["adaptive_avg_pool", "adaptive_max_pool"])
def test_adaptive_pools(op: str, size: list[int], dtype: torch.dtype) -> None:
    """Cells of one size, of several, and that overlap."""
    check(node(op, size=size), image(3, 5, 9, 11), dtype=dtype, slack=1e-5)
    check(node(op, size=size), image(2, 2, 7, 10), dtype=dtype, slack=1e-5)


@pytest.mark.parametrize("plane", [(1, 1), (1, 2), (7, 7), (8, 8), (3, 5), (31, 37), (45, 47), (3, 683)], ids=str)
def test_means_of_planes(plane: tuple[int, int], dtype: torch.dtype) -> None:
    """Also planes that begin inside a word, of one word, and of several steps; many images a program."""
    for keep in (0, 1):
        check(node("mean", axes=[2, 3], keep=keep), image(3, 5, *plane), dtype=dtype, slack=1e-5)
    x = image(53 if plane[0] * plane[1] < 64 else 1, 5, *plane) - 9  # above 256 planes a program has two
    x[-1, 1, -1, -1] = x[0, 2, 0, 0] = np.nan
    check(node("mean", axes=[2, 3], keep=1), x, dtype=dtype, slack=2e-5)
    check(node("adaptive_max_pool", size=[1, 1]), x, dtype=dtype)


@pytest.mark.parametrize("axes", [[1], [2], [3], [1, 3], [1, 2, 3]], ids=str)
def test_other_means(axes: list[int], dtype: torch.dtype) -> None:
    check(node("mean", axes=axes, keep=1), image(3, 5, 6, 7), dtype=dtype, slack=1e-5)


@pytest.mark.parametrize("axes", [[1], [2], [3], [1, 3], [2, 3], [1, 2, 3]], ids=str)
def test_sums_and_largest_numbers(axes: list[int], dtype: torch.dtype) -> None:
    for keep in (0, 1) if axes == [2, 3] else (1,):
        check(node("sum", axes=axes, keep=keep), image(3, 5, 6, 7), dtype=dtype, slack=1e-5)
        check(node("amax", axes=axes, keep=keep), image(3, 5, 6, 7), dtype=dtype)


def test_maxima_hand_nan_on(dtype: torch.dtype) -> None:
    x = image(2, 2, 9, 8)
    x[0, 1, 3, 2] = x[1, 0, 8, 7] = np.nan
    check(node("max_pool", kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], ceil=0), x, dtype=dtype)
    check(node("avg_pool", kernel=[2, 2], stride=[2, 2], pad=[0, 0, 0, 0], ceil=0, count_pad=0, divisor=0), x, dtype=dtype)
    x[0, 0, 3, 7] = np.nan  # beside windows of one pixel, in their words
    for left in (0, 1):
        check(node("max_pool", kernel=[1, 1], stride=[1, 2], pad=[0, left, 0, 0], dilation=[1, 1], ceil=0), x, dtype=dtype)
    for size in ([1, 1], [2, 3]):
        check(node("adaptive_max_pool", size=size), x, dtype=dtype)


MOVES: dict[str, tuple[str, dict[str, Any]]] = {
    "slice_channels": ("slice", {"axis": 1, "start": 1, "stop": -1, "step": 1}),
    "slice_channels_strided": ("slice", {"axis": 1, "start": 0, "stop": 2**31 - 1, "step": 2}),
    "slice_rows": ("slice", {"axis": 2, "start": -4, "stop": 2**31 - 1, "step": 1}),
    "slice_columns_strided": ("slice", {"axis": 3, "start": 1, "stop": 6, "step": 3}),
    "pad": ("pad", {"before": [1, 2, 3], "after": [2, 0, 1], "mode": "constant", "value": -1.5}),
    "reflect": ("pad", {"before": [0, 2, 3], "after": [0, 1, 4], "mode": "reflect", "value": 0.0}),
    "reflect_channels": ("pad", {"before": [11, 0, 0], "after": [2, 0, 0], "mode": "reflect", "value": 0.0}),
    "replicate": ("pad", {"before": [1, 2, 3], "after": [0, 9, 1], "mode": "replicate", "value": 0.0}),
    "flatten": ("reshape", {"shape": [-1]}),
    "reshape": ("reshape", {"shape": [0, -1, 1]}),
    "permute": ("permute", {"order": [0, 2, 3, 1]}),
    "shuffle": ("channel_shuffle", {"groups": 3}),
    "d2s_crd": ("depth_to_space", {"block": [2, 3], "order": "crd", "crop": [0, 0, 0, 0]}),
    "d2s_dcr": ("depth_to_space", {"block": [2, 3], "order": "dcr", "crop": [1, 2, 0, 1]}),
    "nearest_factor": ("upsample", {"mode": "nearest", "size": [0, 0], "factor": [2, 3], "align_corners": 0}),
    "bilinear_factor": ("upsample", {"mode": "bilinear", "size": [0, 0], "factor": [2, 3], "align_corners": 0}),
    "softmax": ("softmax", {"axis": 1}),
    "log_softmax": ("log_softmax", {"axis": 1}),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str, dtype: torch.dtype) -> None:
    op, attrs = MOVES[name]
    check(node(op, **attrs), image(3, 12, 6, 8), dtype=dtype, slack=1e-5 if op in ("upsample", "softmax", "log_softmax") else 0)


def test_moves_of_rank_2(dtype: torch.dtype) -> None:
    x = image(3, 12)
    check(node("slice", axis=1, start=-5, stop=11, step=2), x, dtype=dtype, slack=0)
    check(node("reshape", shape=[3, 2, -1]), x, dtype=dtype, slack=0)
    check(node("softmax", axis=1), 40 * x, dtype=dtype)
    check(node("concat", axis=1), x, x[:, :5], dtype=dtype, slack=0)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_concat(axis: int, dtype: torch.dtype) -> None:
    x = image(2, 3, 4, 5)
    check(node("concat", axis=axis), x, x.take(range(2), axis), x, dtype=dtype, slack=0)


@pytest.mark.parametrize("shape", [(7,), (1,), (5, 3, 4), (3, 1, 9), (1, 1, 1)], ids=str)
def test_constants(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Of x the batch alone: its NaN go nowhere."""
    values = image(*shape).astype(np.float32)
    for x in (image(3, 2, 6, 8), image(2, 5)):
        check(node("constant", {"values": values}), x * np.nan, dtype=dtype, slack=0)


@pytest.mark.parametrize(("mode", "corners"), [("nearest", 0), ("bilinear", 0), ("bilinear", 1)])
def test_upsampling(mode: str, corners: int, dtype: torch.dtype) -> None:
    """To fewer pixels, as many, one, twice as many, and by ratios that single precision rounds."""
    for columns in (1, 7, 16):
        for height, width in ((1, 33), (5, columns), (23, 2 * columns), (10, columns + 1)):
            n = node("upsample", mode=mode, size=[height, width], factor=[0, 0], align_corners=corners)
            check(n, image(2, 2, 5, columns), dtype=dtype, slack=1e-5)
    n = node("upsample", mode=mode, size=[0, 0], factor=[0, 0], align_corners=corners)
    check(n, image(2, 3, 4, 5), image(2, 1, 11, 7), dtype=dtype, slack=1e-5)  # like the second


def test_nearest_rounds_as_the_reference() -> None:
    """Where i q lies next to a whole number, q in another precision would take the pixel beside."""
    for size, target in ((3, 41), (61, 83), (7, 129)):
        n = node("upsample", mode="nearest", size=[1, target], factor=[0, 0], align_corners=0)
        check(n, np.arange(size).reshape(1, 1, 1, -1) * np.ones((1, 1, 1, 1)), dtype=torch.float16, slack=0)
    for factor in ([3, 7], [2.3, 1.2]):  # the second doubles 3 rows and keeps 4 columns
        n = node("upsample", mode="nearest", size=[0, 0], factor=factor, align_corners=0)
        check(n, image(1, 2, 3, 4), dtype=torch.float16, slack=0)


GROUPED = {
    "depthwise": dict(filters=5, channels=5, kernel=(3, 3), pad=(1, 1, 1, 1), groups=5),
    "depthwise_strided": dict(filters=8, channels=8, kernel=(3, 3), pad=(0, 1, 1, 0), stride=(2, 2), groups=8, transform="dct"),
    "depthwise_large": dict(filters=3, channels=3, kernel=(7, 7), pad=(3, 3, 3, 3), groups=3),
    "depthwise_looped": dict(filters=3, channels=3, kernel=(4, 13), pad=(2, 6, 1, 6), groups=3),
    "multiplied": dict(filters=6, channels=3, kernel=(1, 3), pad=(0, 2, 0, 2), dilation=(1, 2), groups=3),
    "grouped": dict(filters=6, channels=9, kernel=(3, 2), pad=(1, 1, 1, 1), stride=(1, 3), dilation=(2, 1), groups=3),
    "grouped_blocks": dict(filters=16, channels=8, kernel=(3, 3), pad=(1, 1, 1, 1), groups=2, block=4, extras=("scale",)),
}


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_convolutions(name: str, dtype: torch.dtype) -> None:
    n = conv(np.random.default_rng(0), **({"extras": ("bias",)} | GROUPED[name]))  # type: ignore[arg-type]
    layer = Depthwise(n, DEVICE, dtype)
    bias = torch.from_numpy(n.tensors["bias"]).to(DEVICE) if "bias" in n.tensors else None
    for shape in ((1, 7, 9), (3, 5, 8)):
        x = planes(image(shape[0], n.attrs["channels"], *shape[1:]), dtype)
        plain = run_node(n, exact(x, 4))
        out = poisoned(plain.shape, dtype)
        layer(x, out, Epilogue(bias))
        assert_rounded(exact(out, 4), plain, dtype, 5e-5)
        residual = planes(image(*plain.shape, seed=2), dtype)
        layer(x, out, Epilogue(bias, residual, "clip", -0.5, 2.0))
        assert_rounded(exact(out, 4), np.clip(plain + exact(residual, 4), -0.5, 2), dtype, 5e-5)


STRIDE = 2**30
"""From the third channel on, rows begin where a 32-bit number does not reach."""


def spread(x: Planes, file: Path) -> Planes:
    """The same value with rows STRIDE apart; on the CPU in a file, which holds hardly more than what is written to it."""
    channels, length = x.data.shape
    numbers = (channels - 1) * STRIDE + length
    if DEVICE == "cpu":
        memory = torch.from_file(str(file), shared=True, size=numbers, dtype=torch.int16)
    else:
        memory = torch.empty(numbers, dtype=torch.int16, device=DEVICE)
    made = Planes(memory.view(x.data.dtype).as_strided((channels, length), (STRIDE, 1)), x.shape)
    made.data.copy_(x.data)
    return made


FAR: dict[str, dict[str, Any]] = {
    "activation": {"kind": "relu", "alpha": 0.0, "beta": 0.0},
    "affine": {},
    "add": {},
    "mul": {},
    "max_pool": {**POOLS["2x2"], "dilation": [1, 1], "ceil": 0},
    "adaptive_avg_pool": {"size": [2, 2]},
    "mean": {"axes": [2, 3], "keep": 1},
    "upsample": {"mode": "bilinear", "size": [5, 6], "factor": [0, 0], "align_corners": 0},
    "conv": {},
}


@pytest.mark.parametrize("op", FAR)
def test_rows_beyond_32_bits(op: str, tmp_path: Path) -> None:
    """Also read and written: a value is taken from a caller's tensor of such strides, and given back to one."""
    n = node(op, {"scale": np.full(4, 2, np.float32), "shift": np.ones(4, np.float32)}, **FAR[op])
    if op == "conv":
        n = conv(np.random.default_rng(0), 4, 4, (3, 3), pad=(1, 1, 1, 1), groups=4, extras=())
    x = spread(planes(image(2, 4, 4, 3), torch.float16), tmp_path / "x")
    other = planes(image(2, 4, 1 if op == "mul" else 4, 1 if op == "mul" else 3, seed=1), torch.float16)
    inputs = [x, spread(other, tmp_path / "other")] if op in ("add", "mul") else [x]
    want = run_node(n, *(exact(value, 4) for value in inputs))
    out = spread(poisoned(want.shape, torch.float16), tmp_path / "out")
    if op == "conv":
        Depthwise(n, DEVICE, torch.float16)(x, out, Epilogue(residual=None))
    else:
        LAUNCHES[op](n, inputs, out)
    assert_rounded(exact(out, 4), want, torch.float16, 1e-5)
    taken = poisoned(want.shape, torch.float16)
    read(out.nchw, taken)
    write(taken, out.nchw.zero_())
    assert_rounded(exact(out, 4), want, torch.float16, 1e-5)


def test_grouped_convolutions_refuse() -> None:
    n = conv(np.random.default_rng(0), 4, 4, (3, 3), groups=4)
    with pytest.raises(UnsupportedError, match=r"expected dtype one of float16, bfloat16, got torch.float32"):
        Depthwise(n, DEVICE, torch.float32)
    layer, x = Depthwise(n, DEVICE, torch.float16), planes(image(1, 5, 3, 3), torch.float16)
    with pytest.raises(ShapeError, match=r"node a_conv .*expected an input \[N, 4, H, W\], got \(1, 5, 3, 3\)"):
        layer(x, x, Epilogue())
    with pytest.raises(UnsupportedError, match=r"expected planes of torch.float16.*got torch.bfloat16"):
        layer(planes(image(1, 4, 3, 3), torch.bfloat16), x, Epilogue())
