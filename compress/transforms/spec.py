"""How a user asks for a transform, and what becomes of it in one layer.

    identity              the taps themselves
    dct                   the two-dimensional DCT of the taps of k x k layers
    walsh:B, dct-channels:B         along tiles of B input channels, 1x1 layers included
    walsh-filters:B, dct-filters:B  along tiles of B filters
    two-sided-walsh:B, two-sided-dct:B  along both
    klt, klt:B            a basis fitted to the layer: of the taps in k x k layers, of tiles of B channels (16 if not said) in 1x1 layers
    random:SEED, random:SEED:B      the same shapes, drawn at random: a control

Parts are joined by "+", one an axis: "dct+walsh:16". A "!" at the end forces the transform on every layer that can be masked, whatever it
costs. B goes from 4 to 64; for walsh it is a power of two. An axis that is too short for one tile is left as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import torch

from cosparse.compress.transforms import gaussian, klt
from cosparse.compress.transforms.transform import IDENTITY, MATRIX, Transform
from cosparse.errors import Error

TILE = 16
"""Channels of a fitted or random tile where the user names no number."""

TILES = (4, 64)

NAMES = (
    "identity, dct, walsh:B, dct-channels:B, walsh-filters:B, dct-filters:B, two-sided-walsh:B, two-sided-dct:B, klt[:B], random:SEED[:B]"
)

FIXED = re.compile(r"(two-sided-)?(walsh|dct-channels|dct|walsh-filters|dct-filters):(\d+)")
DRAWN = re.compile(r"(klt|random:(\d+))(?::(\d+))?")

Weight = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Spec:
    """What was asked for. `fixed` holds the axes that follow a formula; `source` is "klt" or "random:SEED" where matrices are wanted, for
    tiles of `tile` channels in 1x1 layers. `forced`: the price of the basis step does not matter."""

    fixed: Transform = IDENTITY
    source: str = ""
    tile: int = 0
    forced: bool = False

    def fitted(self, weight: Weight, about: str = "weight") -> Transform:
        """The transform of one layer's weight [O, C, R, S] or [O, F]: axes that do not apply left out, matrices fitted or drawn."""
        filters, channels, taps = weight.shape[0], weight.shape[1], int(np.prod(weight.shape[2:]))
        if self.source:
            if taps > 1:
                return Transform(taps=MATRIX, source=self.source, basis=self._matrices(weight, 1, taps, about)[0])
            if channels < self.tile:
                return IDENTITY
            tiles = self._matrices(weight, channels // self.tile, self.tile, about)
            return Transform(channels=MATRIX, channels_tile=self.tile, source=self.source, tiles=tiles)
        kept = self.fixed
        if taps == 1:
            kept = replace(kept, taps="identity")
        if channels < kept.channels_tile:
            kept = replace(kept, channels="identity", channels_tile=0)
        if filters < kept.filters_tile:
            kept = replace(kept, filters="identity", filters_tile=0)
        return kept

    def too_short(self, weight: Weight) -> str:
        """Which axes have no whole tile, or the empty string."""
        filters, channels = weight.shape[:2]
        tile = self.fixed.channels_tile or (self.tile if self.source and int(np.prod(weight.shape[2:])) == 1 else 0)
        short = [f"{channels} channels have no tile of {tile}"] if channels < tile else []
        short += [f"{filters} filters have no tile of {self.fixed.filters_tile}"] if filters < self.fixed.filters_tile else []
        return ", ".join(short)

    def _matrices(self, weight: Weight, count: int, points: int, about: str) -> np.ndarray:
        if self.source != "klt":
            return gaussian.random_basis(int(self.source.partition(":")[2]), count, points)
        values = weight.detach().double().cpu().numpy() if isinstance(weight, torch.Tensor) else weight.astype(np.float64)
        return klt.taps_basis(values, about)[None] if values[0, 0].size > 1 else klt.tile_bases(values, points, about)


def parse(text: str) -> Spec:
    """The one place where a transform's name is read. Raises Error for what is none."""
    body = text.removesuffix("!")
    forced = body != text
    if drawn := DRAWN.fullmatch(body):
        source, _, tile = drawn.groups()
        return Spec(source=source, tile=_tile(text, source, tile or str(TILE)), forced=forced)
    fixed = IDENTITY
    for part in body.split("+"):
        fields = _fields(text, part)
        if any(getattr(fixed, axis) != "identity" for axis in ("taps", "channels", "filters") if axis in fields):
            raise Error("transform", "one part an axis", repr(text))
        fixed = replace(fixed, **fields)  # type: ignore[arg-type]
    return Spec(fixed=fixed, forced=forced)


def restored(name: str, basis: np.ndarray | None, tiles: np.ndarray | None) -> Transform:
    """The transform of this name (as `Transform.name` gives it) with the matrices that it had."""
    spec = parse(name)
    if not spec.source:
        return spec.fixed
    if basis is not None:
        return Transform(taps=MATRIX, source=spec.source, basis=basis)
    return Transform(channels=MATRIX, channels_tile=spec.tile, source=spec.source, tiles=tiles)


def _fields(text: str, part: str) -> dict[str, str | int]:
    """The fields of a Transform that one part of the text sets."""
    if part == "identity":
        return {}
    if part == "dct":
        return {"taps": "dct"}
    found = FIXED.fullmatch(part)
    both, word, tile = found.groups() if found else ("", "", "")
    if not found or (both and word not in ("dct", "walsh")) or (word == "dct" and not both):
        raise Error("transform", f"one of {NAMES}", repr(text))
    kind, points = word.partition("-")[0], _tile(text, word, tile)
    axes = ("channels", "filters") if both else ("filters",) if word.endswith("filters") else ("channels",)
    return {key: value for axis in axes for key, value in ((axis, kind), (f"{axis}_tile", points))}


def _tile(text: str, word: str, digits: str) -> int:
    points = int(digits)
    walsh = word.startswith("walsh")
    if not TILES[0] <= points <= TILES[1] or (walsh and points & (points - 1)):
        raise Error("transform", f"tiles of {TILES[0]} to {TILES[1]}" + (", a power of two" if walsh else ""), repr(text))
    return points
