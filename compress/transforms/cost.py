"""What a transform costs at run time, in multiply-add equivalents, and how many numbers it stores.

Counting rule. An addition counts half a multiply-add, scales are folded into the coefficients.

    taps       dct: the separable scheme (dct.plane_cost); a matrix: R S products for each of R S maps
    channels   dct: line_cost(b) / b a channel; walsh: log2(b) additions a channel; a matrix: b products a channel. The step runs on the
               input, so an output pixel pays it once for each input pixel that it does not share: min(stride, kernel) each way
    filters    the same figures, a filter and output pixel, whichever blocks are kept

A channel is charged where a kept coefficient uses it; where channels are transformed, the whole tile is, and channels left over after the
last whole tile are charged like a tile. So no kept coefficient is ever undercharged.
"""

from __future__ import annotations

from cosparse.compress.transforms import dct, walsh
from cosparse.compress.transforms.transform import MATRIX, Transform


def channel_cost(transform: Transform, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> float:
    """Multiply-add equivalents of the basis step, per input channel and output pixel."""
    taps = kernel[0] * kernel[1]
    cost = 0.0
    if taps > 1 and transform.taps != "identity":
        cost = float(taps * taps) if transform.taps == MATRIX else dct.plane_cost(kernel, stride)
    shared = min(stride[0], kernel[0]) * min(stride[1], kernel[1])
    return cost + shared * _line_cost(transform.channels, transform.channels_tile)


def output_cost(transform: Transform, filters: int) -> float:
    """Multiply-add equivalents of the inverse transform of all the outputs, per output pixel; what is left over costs nothing."""
    if not transform.filters_tile:
        return 0.0
    whole = filters // transform.filters_tile * transform.filters_tile
    return whole * _line_cost(transform.filters, transform.filters_tile)


def stored(transform: Transform) -> int:
    """Numbers in the transform's own matrices, which the artifact keeps."""
    return sum(matrices.size for matrices in (transform.basis, transform.tiles) if matrices is not None)


def _line_cost(kind: str, points: int) -> float:
    """Per point of a tile."""
    costs = {"dct": dct.line_cost, "walsh": walsh.line_cost, MATRIX: lambda n: float(n * n)}
    return costs[kind](points) / points if kind in costs else 0.0
