"""From times at some widths to a layer's grid in the latency table.

    grid = medians, where the samples are all pairs of their widths; else  us = a + b inputs + c filters + d inputs filters,  none negative

by least squares of relative errors, at the quartiles of the widths seen and the full one. The grid is then made monotone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosparse.compress.width_latency import LayerWidths
from cosparse.errors import Error

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class WidthSample:
    """One layer in one network: input channels, filters and the median time in microseconds."""

    inputs: int
    filters: int
    us: float


def layer_widths(name: str, shape: Sequence[int], pixels: float, samples: Sequence[WidthSample]) -> LayerWidths:
    """The grid of the layer `name` through its samples, one of which has the full widths. Raises Error where a time is not positive."""
    if not samples or any(sample.us <= 0 for sample in samples):
        raise Error(f"layer {name!r}", "a step of its own, with a time", f"{len(samples)} samples: {samples!r}"[:200], "a larger example")
    times = defaultdict(list)
    for sample in samples:
        times[sample.inputs, sample.filters].append(sample.us)
    inputs, filters = sorted({i for i, _ in times}), sorted({f for _, f in times})
    if len(times) == len(inputs) * len(filters):
        us = np.array([[np.median(times[i, f]) for f in filters] for i in inputs])
    else:
        inputs, filters = _quantiles(inputs), _quantiles(filters)
        us = _plane(samples, inputs, filters)
    grid = tuple(tuple(map(float, row)) for row in monotone(us))
    layer = LayerWidths(tuple(shape), pixels, tuple(inputs), tuple(filters), grid, 0.0)
    misfit = max(abs(layer.at(sample.inputs, sample.filters) / sample.us - 1) for sample in samples)
    return LayerWidths(layer.shape, pixels, layer.inputs, layer.filters, grid, misfit)


def monotone(us: np.ndarray) -> np.ndarray:
    """[I, F] -> the mean of the least grid above it and the greatest below it that fall along neither axis; a monotone grid stays."""
    above = np.maximum.accumulate(np.maximum.accumulate(us, 0), 1)
    below = np.minimum.accumulate(np.minimum.accumulate(us[::-1, ::-1], 0), 1)[::-1, ::-1]
    return (above + below) / 2


def _plane(samples: Sequence[WidthSample], inputs: Sequence[int], filters: Sequence[int]) -> np.ndarray:
    """[I, F]: a + b inputs + c filters + d inputs filters through the samples."""
    from scipy.optimize import nnls

    def terms(i: np.ndarray, f: np.ndarray) -> np.ndarray:
        i, f = i / inputs[-1], f / filters[-1]
        return np.stack([np.ones_like(i), i, f, i * f], axis=-1)

    us = np.array([sample.us for sample in samples])
    seen = terms(np.array([sample.inputs for sample in samples]), np.array([sample.filters for sample in samples]))
    found, _ = nnls(seen / us[:, None], np.ones(us.size))
    return terms(*np.meshgrid(np.array(inputs), np.array(filters), indexing="ij")) @ found


def _quantiles(widths: Sequence[int]) -> list[int]:
    """Quartiles, least and largest of ascending widths, each of them one of these."""
    return sorted({int(w) for w in np.quantile(np.array(widths), QUANTILES, method="nearest")})
