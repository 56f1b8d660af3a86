"""Convolutions as nodes of the graph: their attributes, and those that only move pixels."""

from __future__ import annotations

from typing import Any

import numpy

from cosparse.compress.importer.draft import Draft


def conv_attrs(values: numpy.ndarray, stride: list[int], pad: list[int], dilation: list[int], groups: int) -> dict[str, Any]:
    """Attributes of a dense convolution with values [O, C/G, R, S]."""
    return {
        "filters": values.shape[0],
        "channels": values.shape[1] * groups,
        "kernel": [*values.shape[2:]],
        "stride": stride,
        "dilation": dilation,
        "pad": pad,
        "groups": groups,
        "transform": "identity",
        "format": "dense",
        "block": 1,
    }


def unshuffled(draft: Draft, source: str, channels: int, i: int, j: int, name: str) -> str:
    """Pixels to channels (c, i, j): a grouped convolution whose filter (i, j) has a one at that tap."""
    values = numpy.tile(numpy.eye(i * j).reshape(-1, 1, i, j), (channels, 1, 1, 1))
    return draft.add(name, "conv", [source], conv_attrs(values, [i, j], [0] * 4, [1, 1], channels), {"values": values})
