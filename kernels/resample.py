"""upsample, depth_to_space, channel_shuffle: pixels and channels change place.

    x  [N, C, H, W]   any float
    y  float64: upsample [N, C, h, w]; depth_to_space [N, C / (bh bw), H bh - top - bottom, W bw - left - right]; channel_shuffle as x

upsample: (h, w) is `size`, or floor(H fh), floor(W fw) with `factor`, or that of the second input. Output pixel i reads position
    nearest                       floor(i q), below H; i q in single precision, as PyTorch has it, since the floor shows the rounding
    bilinear                      max((i + 1/2) q - 1/2, 0), between its two neighbours
    bilinear, align_corners = 1   i (H - 1) / (h - 1)
with q = 1 / factor, or H / h where no factor is given. As in PyTorch an axis whose size stays is copied, and nearest reads floor(i / 2)
where the size doubles, whatever the factor was.
depth_to_space: pixel (y bh + i, x bw + j) comes from channel (c, i, j) (`crd`) or (i, j, c) (`dcr`) of pixel (y, x); then `crop` goes.
channel_shuffle: channel (g, c) of [groups, C / groups] goes to place (c, g).

Refused (ShapeError): rank 2; channels that do not divide; an empty result.
"""

from __future__ import annotations

import numpy as np

from cosparse.kernels.contract import Array, Node, Reference, require


def nearest_index(size: int, target: int, factor: float) -> np.ndarray:
    """The source pixel of each of `target` pixels over `size`; `factor` 0: none was given."""
    if target == size:
        return np.arange(target)
    if target == 2 * size:
        return np.arange(target) // 2
    q = np.float32(1 / factor) if factor else np.float32(size) / np.float32(target)
    return np.minimum(np.floor(np.arange(target, dtype=np.float32) * q).astype(np.int64), size - 1)


def bilinear_weights(size: int, target: int, factor: float, align_corners: bool) -> Array:
    """The interpolation matrix [target, size]: each row has at most two nonzeros, which add up to 1."""
    if target == size:
        return np.eye(size)
    i = np.arange(target, dtype=np.float64)
    if align_corners:
        position = i * ((size - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = np.maximum((i + 0.5) * (1 / factor if factor else size / target) - 0.5, 0)
    low = np.minimum(np.floor(position).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    share = np.clip(position - low, 0, 1)
    weights = np.zeros((target, size))
    np.add.at(weights, (np.arange(target), low), 1 - share)
    np.add.at(weights, (np.arange(target), high), share)
    return weights


def upsample(node: Node, x: Array, like: Array | None = None) -> Array:
    attrs = node.attrs
    require(x.ndim == 4 and (like is None or like.ndim == 4), node, "inputs [N, C, H, W]", x)
    factor = (0.0, 0.0)
    if like is not None:
        target = like.shape[2:]
    elif any(attrs["size"]):
        target = tuple(attrs["size"])
    else:
        factor = tuple(attrs["factor"])
        target = tuple(int(np.floor(x.shape[2 + i] * factor[i])) for i in (0, 1))
    require(min(target) > 0, node, "an input whose upsampled size is at least 1x1", x)
    if attrs["mode"] == "nearest":
        down, right = (nearest_index(x.shape[2 + i], target[i], factor[i]) for i in (0, 1))
        return x[:, :, down[:, None], right]
    vertical, horizontal = (bilinear_weights(x.shape[2 + i], target[i], factor[i], bool(attrs["align_corners"])) for i in (0, 1))
    return vertical @ x @ horizontal.T


def depth_to_space(node: Node, x: Array) -> Array:
    bh, bw = node.attrs["block"]
    top, left, bottom, right = node.attrs["crop"]
    require(x.ndim == 4 and x.shape[1] % (bh * bw) == 0, node, f"an input [N, {bh * bw} c, H, W]", x)
    n, c, h, w = x.shape
    if node.attrs["order"] == "crd":
        y = x.reshape(n, c // (bh * bw), bh, bw, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, bh, bw, c // (bh * bw), h, w).transpose(0, 3, 4, 1, 5, 2)
    y = y.reshape(n, c // (bh * bw), h * bh, w * bw)[:, :, top : h * bh - bottom, left : w * bw - right]
    require(y.size > 0, node, "an input larger than the crop", x)
    return np.ascontiguousarray(y)


def channel_shuffle(node: Node, x: Array) -> Array:
    groups = node.attrs["groups"]
    require(x.ndim == 4 and x.shape[1] % groups == 0, node, f"a channel count that {groups} divides", x)
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(0, 2, 1, 3, 4).reshape(n, c, h, w)


REFERENCES: dict[str, Reference] = {"upsample": upsample, "depth_to_space": depth_to_space, "channel_shuffle": channel_shuffle}
