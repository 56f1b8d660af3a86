"""Pooling and mean against PyTorch in float64, over windows that stick out, overlap and skip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from nodes import FakeNode, node

from cosparse.errors import ShapeError
from cosparse.kernels.reference import run_node

SIZES = [(1, 1), (5, 7), (8, 8), (13, 6)]
# (kernel, stride, symmetric pad)
WINDOWS = [((1, 1), (1, 1), (0, 0)), ((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 3), (1, 0)), ((2, 3), (4, 5), (1, 1))]


@pytest.fixture
def x(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(2, 3, *request.param))


def max_pool(kernel: tuple, stride: tuple, pad: tuple, dilation: tuple = (1, 1), ceil: int = 0) -> FakeNode:
    return node("max_pool", kernel=list(kernel), stride=list(stride), dilation=list(dilation), pad=list(pad), ceil=ceil)


def avg_pool(kernel: tuple, stride: tuple, pad: tuple, ceil: int = 0, count_pad: int = 1, divisor: int = 0) -> FakeNode:
    return node("avg_pool", kernel=list(kernel), stride=list(stride), pad=list(pad), ceil=ceil, count_pad=count_pad, divisor=divisor)


def agrees(n: FakeNode, x: np.ndarray, by_torch: object, terms: int) -> None:
    """torch's answer and ours are the same, or both refuse."""
    try:
        want = by_torch(torch.from_numpy(x)).numpy()
    except RuntimeError:
        with pytest.raises(ShapeError, match=f"node a_{n.op} .*expected an input that holds a"):
            run_node(n, x)
        return
    assert_close(run_node(n, x), want, terms=terms, scale=float(np.abs(x).max()))


@pytest.mark.parametrize("x", SIZES, indirect=True, ids=str)
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "pad"), WINDOWS, ids=str)
def test_max_pool(x: np.ndarray, kernel: tuple, stride: tuple, pad: tuple, dilation: tuple, ceil: int) -> None:
    n = max_pool(kernel, stride, pad + pad, dilation, ceil)
    agrees(n, x, lambda t: F.max_pool2d(t, kernel, stride, pad, dilation, bool(ceil)), terms=0)


@pytest.mark.parametrize("x", SIZES, indirect=True, ids=str)
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize(("count_pad", "divisor"), [(1, 0), (0, 0), (1, 5)])
@pytest.mark.parametrize(("kernel", "stride", "pad"), WINDOWS, ids=str)
def test_avg_pool(x: np.ndarray, kernel: tuple, stride: tuple, pad: tuple, ceil: int, count_pad: int, divisor: int) -> None:
    n = avg_pool(kernel, stride, pad + pad, ceil, count_pad, divisor)
    agrees(n, x, lambda t: F.avg_pool2d(t, kernel, stride, pad, bool(ceil), bool(count_pad), divisor or None), terms=kernel[0] * kernel[1])


def test_pools_pad_each_side_as_told() -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 6, 5))
    pads = (0, 1, 1, 0)
    lowest = F.pad(torch.from_numpy(x), (1, 0, 0, 1), value=-np.inf)
    assert_close(run_node(max_pool((3, 3), (2, 2), pads), x), F.max_pool2d(lowest, 3, 2).numpy(), terms=0, scale=1)
    zeros = F.pad(torch.from_numpy(x), (1, 0, 0, 1))
    assert_close(run_node(avg_pool((3, 3), (2, 2), pads), x), F.avg_pool2d(zeros, 3, 2).numpy(), terms=9, scale=5)
    inside = F.avg_pool2d(F.pad(torch.ones_like(torch.from_numpy(x)), (1, 0, 0, 1)), 3, 2)
    want = (F.avg_pool2d(zeros, 3, 2) / inside).numpy()
    assert_close(run_node(avg_pool((3, 3), (2, 2), pads, count_pad=0), x), want, terms=18, scale=5)


def test_max_pool_hands_nan_on() -> None:
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = np.nan
    assert np.isnan(run_node(max_pool((2, 2), (2, 2), (0, 0, 0, 0)), x)).tolist() == [[[[False, True], [False, False]]]]


@pytest.mark.parametrize("x", [*SIZES, (3, 11)], indirect=True, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (5, 1)], ids=str)
def test_adaptive_pools(x: np.ndarray, size: tuple) -> None:
    t, scale = torch.from_numpy(x), float(np.abs(x).max())
    got = run_node(node("adaptive_avg_pool", size=list(size)), x)
    assert_close(got, F.adaptive_avg_pool2d(t, size).numpy(), terms=x.shape[2] * x.shape[3], scale=scale)
    assert_close(run_node(node("adaptive_max_pool", size=list(size)), x), F.adaptive_max_pool2d(t, size).numpy(), terms=0, scale=scale)


@pytest.mark.parametrize("x", SIZES, indirect=True, ids=str)
@pytest.mark.parametrize(("axes", "keep"), [((2, 3), 0), ((2, 3), 1), ((1,), 1), ((1, 2, 3), 1), ((3,), 1)], ids=str)
def test_mean(x: np.ndarray, axes: tuple, keep: int) -> None:
    want = torch.from_numpy(x).mean(axes, keepdim=bool(keep)).numpy()
    assert_close(run_node(node("mean", axes=list(axes), keep=keep), x), want, terms=x[0].size, scale=float(np.abs(x).max()))


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean"])
def test_pools_refuse_rank_2(op: str) -> None:
    attrs = dict(
        kernel=[1, 1], stride=[1, 1], dilation=[1, 1], pad=[0] * 4, ceil=0, count_pad=1, divisor=0, size=[1, 1], axes=[2, 3], keep=0
    )
    with pytest.raises(ShapeError, match=r"expected an input \[N, C, H, W\], got \(2, 3\)"):
        run_node(node(op, **attrs), np.zeros((2, 3)))
