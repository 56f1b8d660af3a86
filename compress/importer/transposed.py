"""Transposed convolution as an ordinary convolution on the input grid and a rearrangement of channels into pixels.

Along one axis, with stride s, padding p, output padding e, dilation d and K taps W, torch computes

    y[Y - p] = sum over i, k with i s + k d = Y of W[k] x[i],   0 <= Y - p < L,   L = (H - 1) s - 2 p + (K - 1) d + 1 + e

Write Y = q s + f with phase 0 <= f < s. Then k d - f must be a multiple j s of s, j >= 0, and i = q - j. So phase f is the filter with tap
W[k] at j = (k d - f) / s, gliding over x by one pixel a step. With T = max j + 1 taps in the order t = T - 1 - j this is a correlation
whose window for q starts at pixel q - (T - 1), i.e. a convolution with T - 1 pixels of padding in front, and the s phases are s times as
many filters. Interleaving the phases gives Y = 0, 1, ...; the first p of them are cropped.

Cropping whole steps is the same as padding less: c = floor(p / s) of the T - 1 pixels in front are left out (as far as there are so
many), and behind, padding reaches just so far that the last step holds y's last element. For s = 1 there is one phase, and the dilation
stays one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Axis:
    """One axis of the equivalent: `taps[f][t]` is the index k of the transposed kernel's tap, or -1 where the tap is zero."""

    taps: list[list[int]]
    dilation: int
    pad: tuple[int, int]
    crop: tuple[int, int]


def plan_axis(kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> Axis:
    """The equivalent of one axis; see the module's text."""
    if stride == 1:
        taps, step = [list(range(kernel))[::-1]], dilation
    else:
        count, step = (kernel - 1) * dilation // stride + 1, 1
        taps = [[-1] * count for _ in range(stride)]
        for k in range(kernel):
            taps[k * dilation % stride][count - 1 - k * dilation // stride] = k
    reach = (len(taps[0]) - 1) * step
    before = max(0, reach - padding // stride)
    crop_before = padding - (reach - before) * stride
    # y without the input's own (H - 1) s: what the last input pixel reaches.
    tail = (kernel - 1) * dilation + 1 + output_padding - 2 * padding
    steps = -(-(crop_before + tail) // stride)
    after = max(0, steps - 1 - before + reach)
    crop_after = (before + after - reach + 1) * stride - crop_before - tail
    return Axis(taps, step, (before, after), (crop_before, crop_after))


def phase_filters(weight: numpy.ndarray, groups: int, vertical: Axis, horizontal: Axis) -> numpy.ndarray:
    """Weight [C, O/G, R, S] of a transposed convolution as filters [O', C/G, T, U] of the convolution, O' = O x phases.

    Phase major (channel = (i, j, o), order `dcr`) for one group. With several, a group's filters must lie together: (o, i, j), order `crd`.
    """
    channels, per_group = weight.shape[:2]
    padded = numpy.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))
    rows, columns = numpy.array(vertical.taps), numpy.array(horizontal.taps)
    # [C, O/G, i, T, j, U]; index -1 picks the zero row or column.
    phases = padded[:, :, rows][..., columns].reshape(groups, channels // groups, per_group, *rows.shape, *columns.shape)
    g, c, o, i, t, j, u = range(7)
    ordered = phases.transpose((i, j, g, o, c, t, u) if groups == 1 else (g, o, i, j, c, t, u))
    return ordered.reshape(-1, channels // groups, rows.shape[1], columns.shape[1])
