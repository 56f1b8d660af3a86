"""Ops that move numbers (upsample, depth_to_space, channel_shuffle, concat, slice, pad, reshape, permute) against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from nodes import FakeNode, node

from cosparse.errors import ShapeError
from cosparse.kernels.reference import run_node

SIZES = [(1, 1), (4, 6), (7, 5)]
END = 2**31 - 1


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape)


def upsample(mode: str, size: tuple = (0, 0), factor: tuple = (0, 0), align_corners: int = 0) -> FakeNode:
    return node("upsample", mode=mode, size=list(size), factor=list(factor), align_corners=align_corners)


def close(got: np.ndarray, want: torch.Tensor, terms: int = 0) -> None:
    assert_close(got, want.numpy(), terms=terms, scale=5)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", [(1, 1), (3, 9), (14, 10), (23, 31)], ids=str)
def test_upsample_to_a_size(size: tuple, target: tuple) -> None:
    x = image(2, 3, *size)
    t, like = torch.from_numpy(x), np.zeros((2, 1, *target))
    want = F.interpolate(t, target, mode="nearest")
    close(run_node(upsample("nearest", target), x), want)
    close(run_node(upsample("nearest"), x, like), want)
    for corners in (0, 1):
        want = F.interpolate(t, target, mode="bilinear", align_corners=bool(corners))
        # Positions up to 23 are rounded before their fraction becomes a weight.
        close(run_node(upsample("bilinear", target, align_corners=corners), x), want, terms=64)
        close(run_node(upsample("bilinear", align_corners=corners), x, like), want, terms=64)


@pytest.mark.parametrize("size", [*SIZES, (10, 31)], ids=str)
@pytest.mark.parametrize("factor", [(1, 1), (2, 2), (3, 1), (1.5, 2.7), (4, 8), (2.05, 1.05)], ids=str)
def test_upsample_by_a_factor(size: tuple, factor: tuple) -> None:
    x = image(1, 2, *size)
    t = torch.from_numpy(x)
    close(run_node(upsample("nearest", factor=factor), x), F.interpolate(t, scale_factor=factor, mode="nearest"))
    for corners in (0, 1):
        want = F.interpolate(t, scale_factor=factor, mode="bilinear", align_corners=bool(corners))
        close(run_node(upsample("bilinear", factor=factor, align_corners=corners), x), want, terms=256)


@pytest.mark.parametrize("size", range(1, 40))
def test_nearest_rounds_positions_as_torch_does(size: int) -> None:
    x = np.arange(size, dtype=float).reshape(1, 1, 1, size)
    for target in range(1, 60):
        close(run_node(upsample("nearest", (1, target)), x), F.interpolate(torch.from_numpy(x), (1, target), mode="nearest"))


def test_upsample_refuses_an_empty_result() -> None:
    with pytest.raises(ShapeError, match=r"node a_upsample .* at least 1x1, got \(1, 2, 1, 4\)"):
        run_node(upsample("nearest", factor=(0.5, 0.5)), image(1, 2, 1, 4))


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 2), (1, 4)], ids=str)
def test_depth_to_space(block: tuple) -> None:
    bh, bw = block
    x = image(2, 3 * bh * bw, 4, 5)
    t = torch.from_numpy(x)
    crd = t.reshape(2, 3, bh, bw, 4, 5).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 4 * bh, 5 * bw)
    if bh == bw:
        assert torch.equal(crd, F.pixel_shuffle(t, bh))
    close(run_node(node("depth_to_space", block=list(block), order="crd", crop=[0] * 4), x), crd)
    dcr = t.reshape(2, bh, bw, 3, 4, 5).permute(0, 3, 4, 1, 5, 2).reshape(2, 3, 4 * bh, 5 * bw)
    close(run_node(node("depth_to_space", block=list(block), order="dcr", crop=[1, 0, 0, 2]), x), dcr[:, :, 1:, :-2])


def test_depth_to_space_makes_a_transposed_convolution() -> None:
    """Kernel = stride: each input pixel becomes one block, which is a 1x1 convolution with filters in (i, j, c) order."""
    x, w = torch.from_numpy(image(2, 4, 3, 5)), torch.from_numpy(image(4, 6, 2, 2))
    phases = F.conv2d(x, w.permute(2, 3, 1, 0).reshape(24, 4, 1, 1))
    got = run_node(node("depth_to_space", block=[2, 2], order="dcr", crop=[0] * 4), phases.numpy())
    close(got, F.conv_transpose2d(x, w, stride=2), terms=4 * 5)


@pytest.mark.parametrize(("channels", "crop"), [(6, [0, 0, 0, 0]), (8, [4, 4, 4, 4])], ids=["channels", "crop"])
def test_depth_to_space_refuses(channels: int, crop: list[int]) -> None:
    with pytest.raises(ShapeError, match="node a_depth_to_space"):
        run_node(node("depth_to_space", block=[2, 2], order="crd", crop=crop), image(1, channels, 4, 4))


@pytest.mark.parametrize("groups", [1, 2, 3, 12])
def test_channel_shuffle(groups: int) -> None:
    x = image(2, 12, 3, 2)
    close(run_node(node("channel_shuffle", groups=groups), x), F.channel_shuffle(torch.from_numpy(x), groups))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_concat(axis: int) -> None:
    parts = []
    for length in (1, 4, 2):
        shape = [2, 3, 4, 5]
        shape[axis] = length
        parts.append(image(*shape))
    close(run_node(node("concat", axis=axis), *parts), torch.cat([torch.from_numpy(p) for p in parts], axis))


def test_concat_refuses_other_sizes() -> None:
    with pytest.raises(ShapeError, match=r"differ only along axis 1, got \(1, 2, 3, 3\) and \(1, 2, 3, 4\)"):
        run_node(node("concat", axis=1), image(1, 2, 3, 3), image(1, 2, 3, 4))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize(("start", "stop", "step"), [(0, END, 1), (0, END, 2), (1, 5, 3), (-3, END, 1), (-4, -1, 2), (2, 100, 1)], ids=str)
def test_slice(axis: int, start: int, stop: int, step: int) -> None:
    x = image(2, 7, 6, 8)
    t = torch.from_numpy(x)
    want = [t[:, start:stop:step], t[:, :, start:stop:step], t[:, :, :, start:stop:step]][axis - 1]
    close(run_node(node("slice", axis=axis, start=start, stop=stop, step=step), x), want)


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (5, 2), (9, END)], ids=str)
def test_slice_refuses_an_empty_result(start: int, stop: int) -> None:
    with pytest.raises(ShapeError, match=rf"pixels in {start}:{stop} of axis 2"):
        run_node(node("slice", axis=2, start=start, stop=stop, step=1), image(1, 2, 6, 6))


@pytest.mark.parametrize("before", [(0, 0, 0), (0, 2, 1), (0, 0, 3)], ids=str)
@pytest.mark.parametrize("after", [(0, 0, 0), (0, 3, 0), (0, 1, 4)], ids=str)
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pad(before: tuple, after: tuple, mode: str) -> None:
    x = image(2, 3, 4, 5)
    value = {"value": -1.5} if mode == "constant" else {}
    want = F.pad(torch.from_numpy(x), (before[2], after[2], before[1], after[1]), mode=mode, **value)
    close(run_node(node("pad", before=list(before), after=list(after), mode=mode, value=value.get("value", 0.0)), x), want)


def test_pad_of_channels_is_the_option_a_shortcut() -> None:
    x = image(2, 4, 3, 3)
    want = F.pad(torch.from_numpy(x), (0, 0, 0, 0, 2, 3))
    close(run_node(node("pad", before=[2, 0, 0], after=[3, 0, 0], mode="constant", value=0.0), x), want)


def test_pad_refuses_a_reflection_wider_than_the_image() -> None:
    with pytest.raises(ShapeError, match=r"larger than the reflected \[0, 4, 0\], got \(1, 2, 4, 4\)"):
        run_node(node("pad", before=[0, 4, 0], after=[0, 0, 0], mode="reflect", value=0.0), image(1, 2, 4, 4))


@pytest.mark.parametrize("shape", [[-1], [72], [0, -1, 3], [2, 0, 9], [-1, 1, 1], [0, 0, 0], [6, 3, 4]], ids=str)
def test_reshape(shape: list[int]) -> None:
    x = image(2, 6, 4, 3)
    sizes = [size or x.shape[1 + i] for i, size in enumerate(shape)]
    close(run_node(node("reshape", shape=shape), x), torch.from_numpy(x).reshape(2, *sizes))


@pytest.mark.parametrize("shape", [[0, 1, 1], [0, 0, 0], [-1], [3, 2, 2], [3, -1, 2]], ids=str)
def test_reshape_of_rank_2(shape: list[int]) -> None:
    x = image(2, 12)
    sizes = [size or (12, 1, 1)[i] for i, size in enumerate(shape)]
    close(run_node(node("reshape", shape=shape), x), torch.from_numpy(x).reshape(2, *sizes))


@pytest.mark.parametrize("shape", [[71], [5, -1, 1], [0, 0, 4]], ids=str)
def test_reshape_refuses_another_count(shape: list[int]) -> None:
    with pytest.raises(ShapeError, match=r"node a_reshape .*reshapes to \[N, .*got \(2, 6, 4, 3\)"):
        run_node(node("reshape", shape=shape), image(2, 6, 4, 3))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3), (0, 3, 2, 1)], ids=str)
def test_permute(order: tuple) -> None:
    x = image(2, 3, 4, 5)
    close(run_node(node("permute", order=list(order)), x), torch.from_numpy(x).permute(order))
