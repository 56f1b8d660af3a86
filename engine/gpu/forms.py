"""The ways in which the GPU can run one convolution; the planner times them (measure.py) and takes the fastest.

joined         two 1x1 layers that are added, as one gathered product: kernels/gpu/joined.py
stem           a dense 7x7 layer with stride 2 and the max pool behind it: kernels/gpu/stem.py, in CUDA C++
rows, taps     the gathered product of kernels/gpu/product.py, in groups of 16 to 128 filters
maps           the basis step of kernels/gpu/maps.py, then the gathered product on what it wrote
pooled         before one of these: with the 2x2 max pool behind the layer in the product's tiles
basis          both in one kernel: kernels/gpu/conv_basis.py, in CUDA C++
shared         the same with maps that up to four groups of filters share: kernels/gpu/conv_shared.py, in CUDA C++
pairs          kernels/gpu/pairs.py, for dense layers with stride 2
depthwise      kernels/gpu/depthwise.py, for several channel groups
library        the dense layer by torch's own convolution (cuDNN), with the planes turned into its layout and back
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from cosparse.engine.gpu.fuse import Step
from cosparse.engine.graph import Node
from cosparse.kernels.conv import unpack, weight_shape
from cosparse.kernels.gpu import boundary, conv_basis, conv_shared, cuda_library, joined, maps, pairs, stem
from cosparse.kernels.gpu.compiling import place
from cosparse.kernels.gpu.depthwise import Depthwise
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import coefficient_groups, weight_groups
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.pool import is_halving, max_pool
from cosparse.kernels.gpu.product import MOST_SUMS, POINT, ROWS, TAP_TILES, TILES, Product, Tile, sums_fit

LEAST_SHARED = 16384
"""Pixels from which on a block for each 128 of them is enough for as many processors."""

MOST_TAPS = 32 << 20
"""Numbers that are written down where every tap of a dense layer is: more would leave the L2 cache."""


class Run(Protocol):
    """Launches a form; `backwards`: the last pixels first, where the form's kernels take them in an order (plan.py)."""

    def __call__(self, inputs: Sequence[Planes], out: Planes, epilogue: Epilogue, backwards: bool = False) -> None: ...


@dataclass(frozen=True, eq=False)
class Form:
    """`run` launches it. `density`: share of the dense multiply-adds that it does, zeros in its tiles counted; `bytes` of its weights;
    `pixels` of its tile, 0 where it has none or is tried at any number; `even`: only for images of even width, `widest` only up to this
    one, if any; `least`, `most`: only for so many pixels of output, if any; `triton`: all its launches are Triton's, so that they can be
    compiled beforehand; `halved`: the same with a 2x2 max pool in its tiles, which then are `paired`: whole pairs of rows."""

    name: str
    run: Run
    density: float
    bytes: int
    pixels: int = 0
    even: bool = False
    widest: int = 0
    least: int = 0
    most: int = 0
    triton: bool = True
    halved: Run | None = None
    paired: bool = False


def forms(step: Step, dtype: torch.dtype, device: torch.device, dense: bool = False) -> Iterator[Form]:
    """Every form that can run the step's node, the likeliest first. `dense`: only those that multiply by every weight."""
    node = step.node
    if step.shortcut is not None:
        yield from _joined(node, step.shortcut, dtype, device, dense)
        return
    if step.pool is not None:
        yield from _halved(step, step.pool, dtype, device, dense) if is_halving(step.pool) else _stem(node, dtype, device)
        return
    if node.attrs.get("groups", 1) != 1:
        layer = Depthwise(node, device, dtype)
        yield Form("depthwise", _alone(layer), 1.0, layer.bytes, triton=False)
        return
    if not dense and not maps.supports(node):
        yield from _mapped(step, dtype, device)
    if not dense and not conv_basis.supports(node) and cuda_library.available()[0] and step.act in cuda_library.ACTIVATIONS:
        yield from _fused(step, dtype, device)
    if pairs.supports(node, 2) and (dense or node.attrs["format"] == "dense"):
        pair = pairs.Pairs(node, dtype, device)
        for tile in pairs.TILES:
            yield Form(f"pairs64/{tile}", _of_pairs(pair, tile), 1.0, pair.bytes, tile.pixels, even=True)
    yield from _products(step, dtype, device, dense or not _identity(node))
    if node.op == "conv" and step.act in ("none", "relu") and device.type == "cuda":
        layer_ = Library(step, dtype, device)
        yield Form("library", _alone(layer_), 1.0, layer_.bytes, triton=False)


def _joined(first: Node, second: Node, dtype: torch.dtype, device: torch.device, dense: bool) -> Iterator[Form]:
    blocks = [1 if dense else _block(node) for node in (first, second)]
    for rows in _group_sizes(weight_shape(first)[0], min(blocks)):
        layer = joined.Joined(first, second, rows, dtype, device, every=dense)
        for tile in TILES:
            if sums_fit(rows, tile):
                run = _of_two(layer, tile)
                yield Form(f"joined{rows}/{tile}", run, layer.density, layer.bytes, tile.pixels)


def _stem(node: Node, dtype: torch.dtype, device: torch.device) -> Iterator[Form]:
    layer = stem.Stem.of(node, dtype, device)
    for rows in stem.ROWS:
        widest = stem.widest(layer.channels, rows, device)
        if widest:
            yield Form(f"stem{stem.GROUP}/{rows} rows", _of_rows(layer, rows), 1.0, layer.bytes, widest=widest, triton=False)


def _halved(step: Step, pool: Node, dtype: torch.dtype, device: torch.device, dense: bool) -> Iterator[Form]:
    """With the 2x2 max pool behind the layer: in a product's own tiles, or any form of the layer alone and then the pool."""
    for form in forms(replace(step, pool=None), dtype, device, dense):
        if form.halved is not None:
            yield replace(form, name=f"pooled {form.name}", run=form.halved, halved=None, paired=True)
        yield replace(form, run=_then_pooled(form.run, pool), halved=None)


def _fused(step: Step, dtype: torch.dtype, device: torch.device) -> Iterator[Form]:
    """Every tile at any number of pixels: they are compiled already, and as a block goes on from tile to tile and group to group,
    large tiles may pay where there are few (256 channels, 8x8 pixels, batch 256: 27 us with tiles of 512 pixels, 39 with 128)."""
    groups = coefficient_groups(step.node, conv_basis.ROWS)
    packed = conv_basis.pack(groups, weight_shape(step.node)[1], dtype, device)
    for variant in conv_basis.VARIANTS:
        run = _basis(packed, variant)
        yield Form(f"basis64/{variant.name}", run, groups.density, packed.bytes, least=maps.LEAST, triton=False)
    if len(groups) > 1:  # one alone shares nothing
        team = 2 if len(groups) == 2 else 4
        shared = conv_shared.pack(groups, weight_shape(step.node)[1], dtype, device, team)
        yield Form(f"shared{conv_shared.name(team)}", _shared(shared), groups.density, shared.bytes, least=LEAST_SHARED, triton=False)


def _mapped(step: Step, dtype: torch.dtype, device: torch.device) -> Iterator[Form]:
    node = step.node
    points = list(node.attrs["kernel"]) == [1, 1]  # type: ignore[arg-type]
    if node.attrs["transform"] == "identity" and _whole_rows(node):
        return  # the gathered product reads rows as they are
    whole = node.attrs["format"] == "dense" and not points
    for rows in _group_sizes(weight_shape(node)[0], _block(node)):
        groups = coefficient_groups(node, rows)
        layer = maps.Maps(node, groups, dtype, device)
        most = MOST_TAPS // max(1, layer.maker.count) if whole else 0
        for tile in TILES:
            if sums_fit(rows, tile):
                run, halved = _tiled(layer, tile), _tiled(layer, tile, pooled=True)
                yield Form(f"maps{rows}/{tile}", run, groups.density, layer.bytes, tile.pixels, most=most, halved=halved)


def _block(node: Node) -> int:
    return 1 if node.attrs["format"] == "dense" else int(node.attrs["block"])  # type: ignore[arg-type]


def _whole_rows(node: Node) -> bool:
    return node.op == "linear" or all(tuple(node.attrs[key]) == POINT[key] for key in ("kernel", "stride", "pad"))  # type: ignore[arg-type]


def _products(step: Step, dtype: torch.dtype, device: torch.device, dense: bool) -> Iterator[Form]:
    node = step.node
    for rows in _group_sizes(weight_shape(node)[0], 1 if dense else _block(node)):
        groups = weight_groups(node, rows, every=dense)
        product = Product(node, groups, dtype, device)
        for tile in TILES if product.whole_rows else TAP_TILES:
            if sums_fit(rows, tile) and (product.whole_rows or rows * tile.pixels <= MOST_SUMS // 2):  # taps hold addresses too
                kind = "rows" if product.whole_rows else "taps"
                halved = _tiled(product, tile, pooled=True) if product.whole_rows else None
                yield Form(f"{kind}{rows}/{tile}", _tiled(product, tile), groups.density, product.bytes, tile.pixels, halved=halved)


def _group_sizes(filters: int, block: int) -> list[int]:
    """The artifact's own where it is large; else several, as merging small block rows costs zeros and keeping them costs reads."""
    if block >= 64:
        return [block]
    sizes = [rows for rows in ROWS if rows < 2 * filters] or [ROWS[0]]
    wanted = (64, 32, 16) if block > 1 else (64, 128)
    return [rows for rows in wanted if rows in sizes] or sizes[-1:]


def _tiled(layer: Product | maps.Maps, tile: Tile, pooled: bool = False) -> Run:
    return lambda inputs, out, epilogue, backwards=False: layer(inputs[0], out, epilogue, tile, backwards=backwards, pooled=pooled)


def _then_pooled(run: Run, pool: Node) -> Run:
    """The form, its output in memory of torch's, and the pool."""

    def launch(inputs: Sequence[Planes], out: Planes, epilogue: Epilogue, backwards: bool = False) -> None:
        n, c, h, w = out.shape
        whole = Planes.empty((n, c, 2 * h, 2 * w), out.data.dtype, place(out.data.device))
        run(inputs, whole, epilogue, backwards)
        max_pool(pool, [whole], out)

    return launch


def _of_pairs(layer: pairs.Pairs, tile: Tile) -> Run:
    return lambda inputs, out, epilogue, backwards=False: layer(inputs[0], out, epilogue, tile)


def _of_two(layer: joined.Joined, tile: Tile) -> Run:
    return lambda inputs, out, epilogue, backwards=False: layer(inputs[0], inputs[1], out, epilogue, tile, backwards)


def _of_rows(layer: stem.Stem, rows: int) -> Run:
    return lambda inputs, out, epilogue, backwards=False: layer(inputs[0], out, epilogue, rows)


def _basis(packed: conv_basis.PackedBasis, variant: conv_basis.Variant) -> Run:
    return lambda inputs, out, epilogue, backwards=False: conv_basis.launch(packed, inputs[0], out, epilogue, variant, backwards)


def _shared(packed: conv_shared.PackedShared) -> Run:
    return lambda inputs, out, epilogue, backwards=False: conv_shared.launch(packed, inputs[0], out, epilogue, backwards)


def _alone(layer: Callable[[Planes, Planes, Epilogue], None]) -> Run:
    return lambda inputs, out, epilogue, backwards=False: layer(inputs[0], out, epilogue)


def _identity(node: Node) -> bool:
    attrs = node.attrs
    return attrs["transform"] == "identity" and not any(f"{axis}_tile" in attrs for axis in ("channels", "filters"))


class Library:
    """The dense layer through torch: planes to channels-last, one call of cuDNN, and back (boundary.py)."""

    def __init__(self, step: Step, dtype: torch.dtype, device: torch.device) -> None:
        attrs: Any = step.node.attrs
        weights = torch.from_numpy(unpack(step.node)).to(device=device, dtype=dtype)
        self.weights = weights.contiguous(memory_format=torch.channels_last)
        bias = step.node.tensors.get("bias")
        self.bias = None if bias is None else torch.from_numpy(bias.copy()).to(device=device, dtype=dtype)
        top, left, bottom, right = attrs["pad"]
        self.even = (top, left) == (bottom, right)
        self.around = (left, right, top, bottom)
        self.geometry = (attrs["stride"], [top, left] if self.even else [0, 0], attrs["dilation"], 1)

    @property
    def bytes(self) -> int:
        return self.weights.numel() * self.weights.element_size()

    def __call__(self, x: Planes, out: Planes, epilogue: Epilogue) -> None:
        value, geometry = self._laid(x), self.geometry
        value = value if self.even else torch.nn.functional.pad(value, self.around)
        z = None if epilogue.residual is None else self._laid(epilogue.residual)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # cuDNN measures its algorithms at the first call
            if epilogue.act != "relu":
                y = torch.nn.functional.conv2d(value, self.weights, self.bias, *geometry)
                y = y if z is None else y + z
            elif z is None:
                y = torch.cudnn_convolution_relu(value, self.weights, self.bias, *geometry)
            else:
                y = torch.cudnn_convolution_add_relu(value, self.weights, z, 1.0, self.bias, *geometry)
        boundary.read(y, out)

    @staticmethod
    def _laid(x: Planes) -> torch.Tensor:
        laid = torch.empty(x.shape, dtype=x.data.dtype, device=x.data.device, memory_format=torch.channels_last)
        boundary.write(x, laid)
        return laid


def fits(form: Form, pixels: int, width: int, convolved: int) -> bool:
    """Whether the form can run at this width of images, and at that of what they become before a pool; and whether its tile is worth a try
    at so many pixels of output, before a pool: few programs leave processors idle, many small ones only cost."""
    if (form.even and width % 2) or (form.widest and width > form.widest) or pixels < form.least or (form.most and pixels > form.most):
        return False
    if form.paired and form.pixels % (2 * convolved):
        return False
    if not form.pixels:
        return True
    if pixels <= 1024:
        return form.pixels <= 64
    if pixels <= 16384:
        return form.pixels <= 128
    return form.pixels >= 64 if pixels <= 131072 else form.pixels >= 128
