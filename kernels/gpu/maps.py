"""The basis step on its own: the maps that some filter wants, as planes in device memory, for a gathered product to read (product.py).

    dct        maps[row(c,u,v), p] = sum over i,j of D[u,i] D[v,j] x[c, p stride + (i,j) dilation - pad], 3x3, 0 outside the image
               D = (1,1,1), (1,0,-1), (1,-2,1), whose scales are folded into the weights
    identity   maps[row(c,u,v), p] = x[c, p stride + (u,v) dilation - pad], any kernel: the taps themselves

    x      Planes [N, C, H, W]       float16 or bfloat16
    maps   Planes [N, M, Ho, Wo]     the same dtype; M of the C R S columns are wanted
    rows   [E, R S] int32            for each channel of which a map is wanted: the row of each of its maps, or -1; channels [E] int32

A map is at most 16 max |x|: beyond 4094 it may be infinite in float16. It is rounded after each addition, with few pixels once.

Where 64 filters or more share a mask, few of a channel's maps are wanted: 1.8 of 9 by one such group at a density of 0.2, 3.3 by two.
Writing those and reading them back through the product's wide loads costs less than making them in its shared memory (docs/gpu.md).

Kernels: map_kernels.py; the usual windows are read and written as 32-bit words, two pixels each.

Refused (UnsupportedError): several channel groups, transformed channels or filters, dct other than 3x3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.conv import weight_shape
from cosparse.kernels.gpu.compiling import launch, place
from cosparse.kernels.gpu.dependent import begins_early, launch_options
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import Groups
from cosparse.kernels.gpu.map_kernels import any_maps, flat_maps, halved_maps, halved_points, strip_maps
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Product, Tile

SCALES = np.outer([1 / 3, 1 / 2, 1 / 6], [1 / 3, 1 / 2, 1 / 6]).reshape(9).astype(np.float32) ** 0.5
"""What makes the maps of (1,1,1), (1,0,-1), (1,-2,1) orthonormal."""


WORDS = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}

STRIPS = {24: (7, 4, 2, 1), 12: (2, 1), 0: (1,)}
"""Words of an output row -> rows that a lane of strip_maps may make, the most first: its loads serve three rows each. Lanes beside each
other make words beside each other, and go on behind their strip at the end of a row: with short rows tall strips tear memory's lines."""

LEAST = 4096
"""Pixels of a map from which on lanes make several rows, and add two numbers an instruction; with fewer, processors are idle anyway."""


def strip_height(out_height: int, out_words: int, pixels: int) -> int:
    """Rows that a lane of strip_maps makes."""
    fitting = next(rows for words, rows in STRIPS.items() if out_words >= words)
    return next(rows for rows in fitting if out_height % rows == 0 and (rows == 1 or pixels >= LEAST))


def supports(node: Node) -> str:
    """Why the maps of a node cannot be made; empty if they can."""
    attrs = node.attrs
    if node.op != "conv" or attrs.get("groups", 1) != 1:
        return "no convolution of one channel group"
    if any(f"{axis}_tile" in attrs for axis in ("channels", "filters")):
        return "transformed channels or filters"
    if attrs["transform"] == "dct":
        return "" if list(attrs["kernel"]) == [3, 3] else "a DCT of other than 3x3 taps"
    return "" if attrs["transform"] == "identity" else f"transform {attrs['transform']}"


class MapMaker:
    """Makes the maps of one layer that some filter wants; `groups` are of the coefficients as they are stored.

    `compact`: the same groups, whose columns name the maps that are made, with the basis' scales folded in.
    """

    def __init__(self, node: Node, groups: Groups, dtype: torch.dtype, device: torch.device | str) -> None:
        if why := supports(node):
            raise UnsupportedError(f"node {node.name} ({node.op})", "a layer whose maps can be made", why)
        self.node, self.dct = node, node.attrs["transform"] == "dct"
        taps = int(np.prod(weight_shape(node)[2:]))
        used, columns = np.unique(groups.columns, return_inverse=True)
        channels, entry = np.unique(used // taps, return_inverse=True)
        rows = np.full((len(channels), taps), -1, np.int32)
        rows[entry, used % taps] = np.arange(len(used))
        self.channels, self.rows = (torch.from_numpy(array.astype(np.int32)).to(device) for array in (channels, rows))
        self.count = len(used)
        values = groups.values * SCALES[groups.columns % 9, None] if self.dct else groups.values
        self.compact = Groups(groups.rows, groups.filters, max(1, len(used)), groups.starts, columns.astype(np.int32), values)
        self.early = begins_early(torch.device(device))
        # Two numbers an instruction: float16 since 5.3, bfloat16 since 9.0; the interpreter knows no assembly.
        self.packed = torch.device(device).type == "cuda" and (dtype == torch.float16 or self.early)

    @property
    def bytes(self) -> int:
        return 4 * (self.channels.numel() + self.rows.numel())

    def way(self, x: Planes, size: tuple[int, int]) -> str:
        """Which of map_kernels.py's kernels makes maps of images of `size`."""
        attrs, (_, _, h, w), (ho, wo) = self.node.attrs, x.shape, size
        stride, pad = tuple(attrs["stride"]), tuple(attrs["pad"][:2])
        # With sizes that are whole multiples no tap of a last pixel lies beyond the words that have its others.
        whole = (h, w) == (stride[0] * ho, stride[1] * wo)
        near = whole and (tuple(attrs["kernel"]), tuple(attrs["dilation"]), pad) == ((3, 3), (1, 1), (1, 1))
        if near and stride in ((1, 1), (2, 2)) and wo % 2 == 0:
            return "strips"
        if near and stride == (1, 1):
            return "flat"
        if near and stride == (2, 2):
            return "halved"
        return "points" if tuple(attrs["kernel"]) == (1, 1) and stride == (2, 2) and pad == (0, 0) and w % 2 == 0 else "any"

    def make(self, x: Planes, maps: Planes) -> None:
        """The basis step, on the current stream; nothing where no map is wanted."""
        if not self.count:
            return
        attrs, (_, _, h, w), (_, _, ho, wo) = self.node.attrs, x.shape, maps.shape
        way, stride = self.way(x, (ho, wo)), attrs["stride"]
        lists, words, dtype = (self.channels, self.rows), -(-maps.pixels // 2), WORDS[x.data.dtype]
        if way == "any":
            grid, across, block, options = self._cut(maps.pixels)
            window = (*attrs["kernel"], *stride, *attrs["dilation"], *attrs["pad"][:2], self.dct)
            sizes = (x.stride, maps.stride, maps.pixels, across, h, w, ho, wo)
            launch(any_maps, grid, x.data, maps.data, *lists, *sizes, *window, block, **options)
            return
        given = (x.data.view(torch.int32), maps.data.view(torch.int32), *lists, x.stride // 2, maps.stride // 2)
        high = strip_height(ho, wo // 2, maps.pixels) if way == "strips" else 1
        grid, across, block, options = self._cut(words // high, 8 if way == "points" else 2)
        # Adding in float32 takes more instructions and makes smaller errors; with few pixels nobody waits for instructions.
        kind = (block, self.dct, dtype, self.packed and maps.pixels >= LEAST)
        if way == "strips":
            launch(strip_maps, grid, *given, words // high, across, h, w // 2, stride[0], high, *kind, **options)
        elif way == "flat":
            launch(flat_maps, grid, *given, words, across, h, w, *kind, **options)
        elif way == "halved":
            launch(halved_maps, grid, *given, words, across, maps.pixels, h, w // 2, ho, wo, *kind, **options)
        else:
            launch(halved_points, grid, *given, words, across, maps.pixels, h, w // 2, ho, wo, block, **options)

    def _cut(self, lanes: int, each: int = 2) -> tuple[tuple[int], int, int, dict[str, Any]]:
        """Grid, programs of an entry, lanes of a program, of which a thread has `each`, and how it is launched."""
        block = min(128 * each, max(32, triton.next_power_of_2(lanes)))
        options = {"num_warps": max(1, min(4, block // 64)), **launch_options(self.early)}
        across = triton.cdiv(lanes, block)
        return (len(self.channels) * across,), across, block, options


class Maps:
    """The maps of one layer, and the product that reads them."""

    def __init__(self, node: Node, groups: Groups, dtype: torch.dtype, device: torch.device | str) -> None:
        self.maker = MapMaker(node, groups, dtype, device)
        self.product = Product(node, self.maker.compact, dtype, device, pointwise=True)

    @property
    def bytes(self) -> int:
        return self.product.bytes + self.maker.bytes

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue, tile: Tile, backwards: bool = False, pooled: bool = False) -> None:
        """Two launches on the current stream; the maps' memory is torch's, and free again afterwards. The rest as in Product."""
        n, _, ho, wo = out.shape
        ho, wo = (2 * ho, 2 * wo) if pooled else (ho, wo)
        maps = Planes.empty((n, max(1, self.maker.count), ho, wo), x.data.dtype, place(x.data.device))
        self.maker.make(x, maps)
        self.product(maps, out, epilogue, tile, backwards=backwards, pooled=pooled)
