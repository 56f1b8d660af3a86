"""Callers' tensors of any strides to planes and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from gpu_values import DTYPES, assert_rounded, exact, image, planes, poisoned

from cosparse.errors import ShapeError, UnsupportedError
from cosparse.kernels.gpu.boundary import read, write

# Functions that overflow on the way to a number that does not, and NaN where a test wants it.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.param]


def strided(n: int, c: int, h: int, w: int) -> dict[str, torch.Tensor]:
    """One shape in many ways to lie in memory."""
    whole = torch.from_numpy(image(n, c, h, w)).float().to(DEVICE)
    return {
        "contiguous": whole,
        "channels_last": whole.to(memory_format=torch.channels_last),
        "columns_first": whole.transpose(2, 3).contiguous().transpose(2, 3),
        "batch_last": whole.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "cut_out": torch.nn.functional.pad(whole, (2, 1, 1, 3))[:, :, 1 : 1 + h, 2 : 2 + w],
        "every_other": whole.repeat_interleave(2, 3)[..., ::2],
        "expanded": whole[:1, :, :, :1].expand(n, c, h, w),
    }


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 5, 7), (3, 65, 2, 5), (2, 3, 1, 67), (2, 2, 9, 1)], ids=str)
@pytest.mark.parametrize("outer", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_boundary(shape: tuple[int, int, int, int], outer: torch.dtype, dtype: torch.dtype) -> None:
    for name, x in strided(*shape).items():
        x = x.to(outer, memory_format=torch.preserve_format) if name != "expanded" else x[:1, :, :, :1].to(outer).expand(shape)
        inner = poisoned(shape, dtype)
        read(x, inner)
        assert_rounded(exact(inner, 4), x.double().cpu().numpy(), dtype, 6e-8)
        if name != "expanded":
            back = torch.full_like(x, torch.nan)
            write(inner, back)
            assert_rounded(back.double().cpu().numpy(), exact(inner, 4), outer, 6e-8)


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (65, 3)], ids=str)
def test_boundary_of_rank_2(shape: tuple[int, int], dtype: torch.dtype) -> None:
    for x in (torch.from_numpy(image(*shape)).float().to(DEVICE), torch.from_numpy(image(*shape[::-1])).float().to(DEVICE).t()):
        inner, back = poisoned(shape, dtype), torch.full_like(x, torch.nan)
        read(x, inner)
        assert_rounded(exact(inner, 2), x.double().cpu().numpy(), dtype, 6e-8)
        write(inner, back)
        np.testing.assert_array_equal(back.double().cpu().numpy(), exact(inner, 2))


def test_writing_leaves_what_lies_around_alone() -> None:
    around = torch.zeros(2, 3, 6, 7, device=DEVICE)
    write(planes(1 + np.abs(image(2, 3, 4, 5)), torch.float16), around[:, :, 1:5, 1:6])
    inner = torch.zeros(6, 7, dtype=torch.bool, device=DEVICE)
    inner[1:5, 1:6] = True
    assert torch.equal(around != 0, inner.expand(2, 3, 6, 7))


def test_boundary_refuses() -> None:
    inner = planes(image(2, 3, 4, 5), torch.float16)
    with pytest.raises(ShapeError, match=r"input: expected a tensor of shape \[2, 3, 4, 5\], got \[2, 3, 4, 6\]"):
        read(torch.zeros(2, 3, 4, 6), inner)
    with pytest.raises(ShapeError, match=r"output: expected a tensor of shape \[2, 3, 4, 5\], got \[60, 2, 1\]"):
        write(inner, torch.zeros(60, 2, 1))
    with pytest.raises(UnsupportedError, match=r"expected float32, float16 or bfloat16, got torch.float64; convert it before"):
        read(torch.zeros(2, 3, 4, 5, dtype=torch.float64), inner)
    with pytest.raises(UnsupportedError, match=rf"expected a tensor on {DEVICE}\S*, got meta; move it before"):
        read(torch.zeros(2, 3, 4, 5, device="meta"), inner)
