"""Malformed transforms of version 2: matrices that are none, tiles that do not fit, and words that version 1 does not have."""

from __future__ import annotations

import numpy
from malformed_case import Case, Mutation, attrs, both, case, exchange, network, poke, tensors
from sample_graphs import every_transform


def bent(id: str, mutate: Mutation, *says: str) -> Case:
    return Case(id, mutate, says, graph=every_transform)


VALUES = "attribute 'channels_transform': expected one of dct, walsh, matrix"
FIRST = network(version=1)
CASES: list[Case] = [
    bent(
        "matrix in version 1",
        FIRST,
        "node 'taps' (conv): attribute 'transform': expected one of identity, dct, got the string 'matrix'",
    ),
    bent("tiles in version 1", both(FIRST, attrs("taps", transform="dct"), tensors("taps", basis=None)), "got 'channels_t"),
    bent("basis in version 1", both(FIRST, attrs("taps", transform="dct")), "node 'taps' (conv): expected no tensor but values", "'basis'"),
    case(
        "tile of version 2 in version 1",
        attrs("block", channels_tile=4),
        "node 'block' (conv): expected no attribute but",
        "'channels_tile'",
    ),
    bent("transform unknown", attrs("filters", filters_transform="matrix"), "'filters_transform': expected one of dct, walsh, got"),
    bent(
        "transform of channels unknown",
        attrs("both", channels_transform="fft"),
        VALUES,
        "got the string 'fft'",
    ),
    bent(
        "matrix for linear",
        attrs("linear", transform="matrix"),
        "node 'linear' (linear): attribute 'transform': expected one of identity",
    ),
    bent("tile too small", attrs("both", channels_tile=3), "'channels_tile': expected an integer from 4 to 64, got the integer 3"),
    bent("tile too large", attrs("both", channels_tile=65), "'channels_tile': expected an integer from 4 to 64, got the integer 65"),
    bent("tile a list", attrs("both", filters_tile=[4]), "'filters_tile': expected an integer from 4 to 64, got a list of 1"),
    bent(
        "tile missing",
        attrs("both", channels_tile=None),
        "node 'both' (conv): expected both or neither of 'channels_transform' and 'channels_tile', got only 'channels_transform'",
    ),
    bent(
        "transform missing",
        attrs("filters", filters_transform=None),
        "node 'filters' (conv): expected both or neither of 'filters_transform' and 'filters_tile', got only 'filters_tile'",
    ),
    bent(
        "tile beyond the channels",
        attrs("both", channels_tile=16),
        "node 'both' (conv): expected 'channels_tile' of at most the 9 channels, got 16",
    ),
    bent(
        "tile beyond the filters",
        attrs("filters", filters_tile=7),
        "node 'filters' (conv): expected 'filters_tile' of at most the 6 filters, got 7",
    ),
    bent(
        "walsh of six",
        attrs("both", filters_tile=6),
        "node 'both' (conv): expected 'filters_tile' that is a power of two (walsh), got 6",
    ),
    bent(
        "tiles across groups",
        both(
            attrs("taps", groups=2, channels_transform="walsh", channels_tile=4),
            exchange("taps.values", numpy.zeros((10, 3, 3, 1), numpy.float32)),
        ),
        "node 'taps' (conv): expected 1 group where channels are transformed, got 2",
    ),
    bent("basis missing", tensors("taps", basis=None), "node 'taps' (conv): expected the tensor 'basis' (transform matrix), got none"),
    bent("tiles missing", tensors("channels", tiles=None), "expected the tensor 'tiles' (channels_transform matrix), got none"),
    bent(
        "basis without matrix",
        attrs("taps", transform="dct"),
        "node 'taps' (conv): expected no tensor 'basis' (transform without a matrix), got 'taps.basis'",
    ),
    bent("tiles without matrix", attrs("channels", channels_transform="walsh"), "expected no tensor 'tiles' (channels_transform without"),
    bent("basis for linear", tensors("linear", basis="taps.basis"), "node 'linear' (linear): expected no tensor but", "'basis'"),
    bent("basis of another size", exchange("taps.basis", numpy.eye(4, dtype=numpy.float32)), "expected shape [3, 3], got [4, 4]"),
    bent("basis of rank 3", exchange("taps.basis", numpy.eye(3, dtype=numpy.float32)[None]), "expected rank 2, got shape [1, 3, 3]"),
    bent("basis of whole numbers", exchange("taps.basis", numpy.eye(3, dtype=numpy.uint32)), "expected dtype F32, got U32"),
    bent("tiles too few", exchange("channels.tiles", numpy.eye(4, dtype=numpy.float32)[None]), "expected shape [2, 4, 4], got [1, 4, 4]"),
    bent("tiles of another size", attrs("channels", channels_tile=5), "tensor 'channels.tiles': expected shape [2, 5, 5], got [2, 4, 4]"),
    bent("basis with NaN", poke("taps.basis", 4, float("nan")), "tensor 'taps.basis': expected finite values, got NaN at element 4"),
    bent("tiles with infinity", poke("channels.tiles", 17, float("inf")), "tensor 'channels.tiles': expected finite values, got infinity"),
    bent(
        "basis not of unit length",
        exchange("taps.basis", numpy.diag(numpy.float32([1, 1.0002, 1]))),
        "tensor 'taps.basis': expected orthonormal rows, within 0.0001, got the product 1.0004",
        "of rows 1 and 1 of matrix 0",
    ),
    bent(
        "basis not orthogonal",
        exchange("taps.basis", numpy.float32([[1, 0, 0], [2**-12, 1, 0], [0, 0, 1]])),
        "tensor 'taps.basis': expected orthonormal rows, within 0.0001, got the product 0.000244140625 of rows 0 and 1 of matrix 0",
    ),
    bent("basis of huge numbers", exchange("taps.basis", numpy.full((3, 3), 3e38, numpy.float32)), "expected orthonormal rows"),
    bent("second tile not orthonormal", poke("channels.tiles", 31, 2.0), "expected orthonormal rows", "rows 0 and 3 of matrix 1"),
    bent(
        "basis of too many taps",
        both(
            attrs("taps", kernel=[257, 1], pad=[128, 0, 128, 0]),
            exchange("taps.values", numpy.zeros((10, 6, 257, 1), numpy.float32)),
            exchange("taps.basis", numpy.eye(257, dtype=numpy.float32)),
        ),
        "node 'taps' (conv): expected at most 256 taps (transform matrix), got 257",
    ),
]
