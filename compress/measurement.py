"""Measurement matrices Phi: random projections of a layer's filters, from which step 1 recovers their sparse coefficients.

A signal is the K columns of one filter; the r filters of a block row are the channels of one signal with a common support. Long signals
are cut into segments of n columns (whole input channels, as even as they go), each measured m = round(share n) times:

    y[o, q] = sum over k in segment q of Phi[:, k] w[o, k]        Phi [m, K]: one column a weight, n m / K of the memory of a whole matrix

    gaussian   entries N(0, 1/m)      bernoulli   +-1/sqrt(m), evenly      identity   y = w, no matrix, one segment

so that E ||Phi x||^2 = ||x||^2. A row of Phi has the shape of a filter, hence A = Phi Psi^T, which measures coefficients, is the transform
of the rows. Refused: filters whose taps alone exceed a segment, a share outside (0, 1].
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import nn

from cosparse.compress import transforms
from cosparse.compress.transforms import Transform
from cosparse.errors import Error

MEASUREMENTS = ("identity", "gaussian", "bernoulli")

SEGMENT = 512
"""Most columns of a segment by default: with half as many measurements A takes 4.3 MB for the 4608 columns of a 512-channel 3x3 layer,
where a whole matrix would take 42 MB, and ||A||^2 comes from matrices of at most 256 x 256."""


@dataclass(frozen=True)
class Tiling:
    """A layer's K `columns` in segments of `width` columns, the last perhaps narrower."""

    columns: int
    width: int

    @property
    def segments(self) -> int:
        return -(-self.columns // self.width)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Phi of one layer, [m, columns]; `matrix` None: the identity."""

    matrix: torch.Tensor | None
    tiling: Tiling


def segment_width(channels: int, taps: int, limit: int) -> int:
    """n: columns of a segment, a multiple of `taps`, at most `limit`, the same for all segments but the last."""
    if taps > limit:
        raise Error("segment", f"room for the {taps} taps of a filter", f"{limit} columns", "raise it, or measure with identity")
    count = -(-channels // (limit // taps))
    return -(-channels // count) * taps


def draw(kind: str, channels: int, taps: int, *, share: float, seed: int, name: str = "", limit: int = SEGMENT) -> Measurement:
    """Phi of a layer of `channels` input channels: float64, on the CPU, decided by the seed and the layer's name alone."""
    if kind not in MEASUREMENTS:
        raise Error("measurement", f"one of {', '.join(MEASUREMENTS)}", repr(kind))
    columns = channels * taps
    if kind == "identity":
        return Measurement(None, Tiling(columns, columns))
    if not 0 < share <= 1:
        raise Error("share of measurements", "a number in (0, 1]", repr(share))
    width = segment_width(channels, taps, limit)
    count = max(1, round(share * width))
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    if kind == "gaussian":
        matrix = torch.randn((count, columns), generator=generator, dtype=torch.float64)
    else:
        matrix = torch.randint(0, 2, (count, columns), generator=generator).double() * 2 - 1
    return Measurement(matrix / count**0.5, Tiling(columns, width))


def split(values: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """[J, r, K] as [Q, J, r, n]: by segments, the last padded with zeros."""
    padding = tiling.segments * tiling.width - tiling.columns
    return nn.functional.pad(values, (0, padding)).unflatten(-1, (tiling.segments, tiling.width)).movedim(-2, 0)


def join(segments: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """[Q, J, r, n] as [J, r, K]: what `split` made."""
    return segments.movedim(0, -2).flatten(-2)[..., : tiling.columns]


def of_coefficients(measurement: Measurement, transform: Transform | str, like: torch.Tensor) -> torch.Tensor | None:
    """A = Phi Psi^T as [Q, m, n], for a layer whose weight is `like`, in its dtype and on its device; None for the identity.

    Padded columns are zero, so that nothing is measured there and nothing is found. Where filters are transformed too, the signals are the
    transformed filters. Raises Error where a segment would cut a tile of channels in two.
    """
    if measurement.matrix is None:
        return None
    transform = replace(transforms.resolved(transform), filters="identity", filters_tile=0)
    taps, width = like[0, 0].numel(), measurement.tiling.width
    if measurement.tiling.segments > 1 and width // taps % transform.unit:
        expected = f"room for whole tiles of {transform.unit} channels"
        raise Error("segment", expected, f"{width // taps} channels a segment", "another tile, or measure with identity")
    rows = measurement.matrix.to(like.device).reshape(-1, *like.shape[1:])
    return split(transforms.forward(rows, transform).flatten(1)[None], measurement.tiling)[:, 0].to(like.dtype)


def norm_squared(matrix: torch.Tensor | None) -> float:
    """||A||^2, the largest eigenvalue of A A^T over all segments of A [Q, m, n]; 1 for the identity."""
    if matrix is None:
        return 1.0
    exact = matrix.double()
    gram = exact @ exact.mT if exact.shape[1] <= exact.shape[2] else exact.mT @ exact
    return float(torch.linalg.eigvalsh(gram)[:, -1].max())
