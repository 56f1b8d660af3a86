"""Two 1x1 layers whose outputs are added, as one product: the last layer of a residual block, and the projection of its shortcut.

    y[o,p] = act(bias[o] + sum over k of S1[o,k] x1[k,p] + sum over k of S2[o,k] x2[k,p'])        p' = p, or every second pixel both ways

The columns of a group are S1's, then S2's (groups.py); one program gathers from both inputs. So the shortcut's output is neither written
nor read. Of a shortcut with stride 2, the pixels that it keeps are copied first, of the channels that some filter wants (maps.py).

    x1, x2, y    Planes of one dtype, float16 or bfloat16; sums in float32, rounded once; bias is the sum of both layers'

Refused (UnsupportedError): what `supports` gives a reason for.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from cosparse.errors import UnsupportedError
from cosparse.kernels.contract import Node
from cosparse.kernels.gpu.compiling import place
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import Groups, weight_groups
from cosparse.kernels.gpu.maps import MapMaker
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import POINT, Product, Tile


def supports(first: Node, second: Node) -> str:
    """Why the two cannot be one; empty if they can. The first reads whole rows, the second may have a stride."""
    for node in (first, second):
        attrs = node.attrs
        if node.op != "conv" or tuple(attrs["kernel"]) != (1, 1) or any(attrs["pad"]) or attrs.get("groups", 1) != 1:
            return f"{node.name} is no 1x1 convolution of one channel group without padding"
        if attrs["transform"] != "identity" or any(f"{axis}_tile" in attrs for axis in ("channels", "filters")):
            return f"{node.name} has a transform"
    if tuple(first.attrs["stride"]) != POINT["stride"]:
        return f"{first.name} has a stride"
    return "" if first.attrs["filters"] == second.attrs["filters"] else "unlike numbers of filters"


def side_by_side(first: Groups, second: Groups) -> Groups:
    """The columns of both, group by group; the second's behind all of the first's."""
    ranges = list(zip(pairwise(first.starts.tolist()), pairwise(second.starts.tolist()), strict=True))
    columns = [part for (a, b), (c, d) in ranges for part in (first.columns[a:b], second.columns[c:d] + np.int32(first.columns_total))]
    values = [part for (a, b), (c, d) in ranges for part in (first.values[a:b], second.values[c:d])]
    total = first.columns_total + second.columns_total
    starts = first.starts + second.starts
    return Groups(first.rows, first.filters, total, starts, np.concatenate(columns), np.concatenate(values))


class Joined:
    """Both layers on the device, ready to launch in any tile."""

    def __init__(self, first: Node, second: Node, rows: int, dtype: torch.dtype, device: torch.device | str, every: bool = False) -> None:
        """`every`: also the weights that are not stored are multiplied by, as zeros."""
        if why := supports(first, second):
            raise UnsupportedError(f"nodes {first.name} and {second.name}", "two 1x1 layers that are added", why)
        groups, other = (weight_groups(node, rows, every) for node in (first, second))  # without a transform the same as coefficients
        self.maker = None if tuple(second.attrs["stride"]) == POINT["stride"] else MapMaker(second, other, dtype, device)
        # What the maker wrote down has one row for each wanted channel, and nothing else.
        self.groups = side_by_side(groups, other if self.maker is None else self.maker.compact)
        self.split, self.columns_total = groups.columns_total, groups.columns_total + other.columns_total
        self.product = Product(first, self.groups, dtype, device)

    @property
    def density(self) -> float:
        """Share of both layers' multiply-adds that the tiles do, as in Groups."""
        return len(self.groups.columns) / max(1, len(self.groups) * self.columns_total)

    @property
    def bytes(self) -> int:
        return self.product.bytes + (self.maker.bytes if self.maker else 0)

    def __call__(self, x1: Planes, x2: Planes, out: Planes, epilogue: Epilogue, tile: Tile, backwards: bool = False) -> None:
        """One launch on the current stream, two where the second layer has a stride; `epilogue` has no residual, `backwards` as in
        Product."""
        if self.maker is not None:
            n, _, ho, wo = out.shape
            taken = Planes.empty((n, max(1, self.maker.count), ho, wo), x2.data.dtype, place(x2.data.device))
            self.maker.make(x2, taken)
            x2 = taken
        self.product(x1, out, replace(epilogue, residual=None), tile, x2, self.split, backwards)
