"""Every Triton kernel with the arguments of a typical launch, so that all can be compiled, and their registers counted, without a GPU.

A file with kernels of its own adds a function that returns its entries; `inventory` joins them. Where one entry of a module is listed, all
its functions called `..._kernel` have to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import triton.language as tl

from cosparse.kernels.gpu import boundary, depthwise, map_kernels, pairs, pointwise, pool, product, resample
from cosparse.kernels.gpu.epilogue import ACTS

ELEMENTS = ("fp16", "bf16")
LATE = {"early": False}
"""What older GPUs have: no launch begins before the one ahead has ended."""

FLOATS = ("alpha", "beta", "ratio_h", "ratio_w")


@dataclass(frozen=True, eq=False)
class Compiled:
    """One specialisation: `signature` has a type for each argument ("constexpr" for those in `constexprs`), as Triton writes them.
    `multiplies`: by matrix instructions. `least`, `most`: the compute capabilities, times ten, from and up to which it is meant to run.
    `lesser`: other entries of the kernel take its branches, of at least its size, so that in bfloat16 and on older GPUs those suffice."""

    name: str
    fn: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    multiplies: bool = False
    least: int = 80
    most: int = 90
    lesser: bool = False

    @property
    def aligned(self) -> list[int]:
        """Positions of the arguments that a launch finds divisible by 16: pointers, strides of planes, widths of rows."""
        return [
            i
            for i, (name, kind) in enumerate(self.signature.items())
            if kind.startswith("*")
            or (kind == "i32" and (name.endswith("stride") or name in ("width", "a_c", "b_c", "x_words", "map_words", "gap")))
        ]


def compiled(name: str, fn: Any, pointers: Mapping[str, str], constexprs: Mapping[str, Any], **options: Any) -> Compiled:
    """An entry whose other arguments are float32 where FLOATS names them, else int32."""
    kinds = {**dict.fromkeys(FLOATS, "fp32"), **pointers, **dict.fromkeys(constexprs, "constexpr")}
    return Compiled(name, fn, {argument: kinds.get(argument, "i32") for argument in fn.arg_names}, dict(constexprs), **options)


def _planes(element: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, f"*{element}")


def _tile(channels: int, pixels: int) -> dict[str, int]:
    return {"block_c": channels, "block_p": pixels}


def _pointwise(element: str) -> Iterator[Compiled]:
    xy = _planes(element, "x", "y")
    for act in ("relu", "silu", "gelu", "gelu_tanh", "mish"):
        yield compiled(f"activation {act} {element}", pointwise.activation_kernel, xy, {"act": ACTS[act], **_tile(1, 1024)})
    for prelu in (False, True):
        pointers = {**xy, "scale": "*fp32", "shift": "*fp32"}
        yield compiled(f"{'prelu' if prelu else 'affine'} {element}", pointwise.channel_kernel, pointers, {"prelu": prelu, **_tile(4, 256)})
    for op, same_b in ((0, True), (2, False), (3, False)):
        fixed = {"op": op, "same_a": True, "same_b": same_b, **_tile(1, 1024)}
        yield compiled(f"binary {op} same={same_b} {element}", pointwise.binary_kernel, _planes(element, "a", "b", "y"), fixed)


def _window(kernel: int, stride: int, pad: int) -> dict[str, int]:
    numbers = {"kernel": kernel, "stride": stride, "dilation": 1}
    return {f"{what}_{axis}": number for what, number in numbers.items() for axis in "hw"} | {"pad_top": pad, "pad_left": pad}


def _pool(element: str) -> Iterator[Compiled]:
    xy = _planes(element, "x", "y")
    for largest, count, size in ((True, 0, 3), (True, 0, 7), (False, 0, 2), (False, 1, 3), (False, 2, 3)):
        fixed = {**_window(size, 2, size // 2), "pad_bottom": size // 2, "pad_right": size // 2, "largest": largest, "count": count}
        fixed |= {"unrolled": size * size <= pool.UNROLLED, **_tile(1, 512), **LATE}
        yield compiled(f"pool {size}x{size} largest={largest} count={count} {element}", pool.window_kernel, xy, fixed)
    for largest, count, size, block in ((True, 0, 3, 1024), (False, 1, 3, 1024), (False, 2, 3, 256)):
        fixed = {**_window(size, 2, size // 2), "pad_bottom": size // 2, "pad_right": size // 2, "largest": largest, "count": count}
        fixed |= {"height": 112, "wide": 112, "out_height": 56, "out_wide": 56, **_tile(1, block), **LATE}
        name = f"pool by words {size}x{size} {block=} largest={largest} count={count} {element}"
        yield compiled(name, pool.pair_window_kernel, xy, {key: fixed[key] for key in fixed if key not in ("stride_w", "dilation_w")})
    for largest in (False, True):
        yield compiled(f"cells largest={largest} {element}", pool.cell_kernel, xy, {"largest": largest, **_tile(8, 64), **LATE})
        for rows, block in ((64, 8), (2, 256)):
            fixed = {"largest": largest, "rows": rows, "block": block, **LATE}
            yield compiled(f"plane {rows}x{block} largest={largest} {element}", pool.plane_kernel, xy, fixed)


def _resample(element: str) -> Iterator[Compiled]:
    for bilinear, corners in ((False, False), (True, False), (True, True)):
        fixed = {"bilinear": bilinear, "corners": corners, **_tile(1, 1024)}
        yield compiled(f"upsample {bilinear=} {corners=} {element}", resample.upsample_kernel, _planes(element, "x", "y"), fixed)


def _depthwise(element: str) -> Iterator[Compiled]:
    pointers = {**_planes(element, "x", "residual", "y"), "weights": "*fp32", "bias": "*fp32"}
    # (kernel, stride, channels a group; 0: known at the launch only, act, residual)
    for size, stride, per_group, act, residual in (
        (3, 1, 1, "clip", False),
        (5, 2, 1, "silu", True),
        (7, 1, 1, "none", False),
        (9, 1, 1, "none", False),
        (3, 1, 0, "relu", True),
    ):
        fixed = {**_window(size, stride, size // 2), "act": ACTS[act], "has_bias": True, "has_residual": residual}
        fixed |= {"unrolled": size * size <= depthwise.UNROLLED, **_tile(1, 512)} | ({"per_group": per_group} if per_group else {})
        yield compiled(f"grouped {size}x{size} {per_group=} {act} {element}", depthwise.grouped_kernel, pointers, fixed)


def _layer(element: str) -> dict[str, str]:
    return {**_planes(element, "x", "w", "residual", "y"), "columns": "*i32", "starts": "*i32", "bias": "*fp32"}


def _sums(rows: int, tile: product.Tile) -> dict[str, Any]:
    sizes = {"rows": rows, "pixels": tile.pixels, "depth": tile.depth}
    return {**sizes, "has_bias": True, "has_residual": True, "act": ACTS["relu"], **LATE}


def _product(element: str) -> Iterator[Compiled]:
    window = {key: value for key, value in _window(3, 1, 1).items() if not key.startswith("pad")} | {"top": 1, "left": 1}
    for rows, tile, tap_tile in (
        (16, product.Tile(16, 64, 4, 5), product.TAP_TILES[1]),
        (64, product.Tile(128, 32, 4, 5), product.TAP_TILES[2]),
        (128, product.Tile(64, 64, 4, 5), product.TAP_TILES[0]),
    ):
        for ahead in (False, True):
            name = f"rows{rows} {replace(tile, ahead=ahead)} {element}"
            fixed = {**_sums(rows, tile), "ahead": ahead, "joined": ahead, "every": False, "pooled": 0}
            yield _launch(name, product.gathered_rows, element, fixed, tile, lesser=rows < 128)
        fixed = {**window, **_sums(rows, tap_tile)}
        yield _launch(f"taps{rows} {tap_tile} {element}", product.gathered_taps, element, fixed, tap_tile, lesser=rows != 64)
    wide = product.Tile(128, 64, 8, 3)
    fixed = {**_sums(128, wide), "ahead": False, "joined": True, "every": True, "pooled": 0}
    yield _launch(f"rows128 {wide} every {element}", product.gathered_rows, element, fixed, wide, least=90)
    halved = product.Tile(64, 128, 4, 3, ahead=True)
    fixed = {**_sums(64, halved), "has_residual": False, "ahead": True, "joined": False, "every": False, "pooled": 16}
    yield _launch(f"rows64 {halved} pooled largest=True {element}", product.gathered_rows, element, fixed, halved, least=90)


def _launch(name: str, fn: Any, element: str, fixed: Mapping[str, Any], tile: product.Tile, **more: Any) -> Compiled:
    options = {"num_warps": tile.warps, "num_stages": tile.stages, "multiplies": True, **more}
    return compiled(name, fn, _layer(element), fixed, **options)


def _maps(element: str) -> Iterator[Compiled]:
    lists, dtype = {"channels": "*i32", "rows": "*i32"}, tl.float16 if element == "fp16" else tl.bfloat16
    words = {**lists, "x": "*i32", "maps": "*i32"}
    even, odd = {"height": 56, "row_words": 28}, {"height": 7, "width": 7}
    halved = {"height": 14, "row_words": 7, "out_height": 7, "out_width": 7}
    for dct, packed in ((True, False), (True, True), (False, True)):
        kind = {"block": 256, "dct": dct, "dtype": dtype, "packed": packed, **LATE}
        least = 90 if packed and element == "bf16" else 80
        for stride, high in ((1, 7), (1, 1), (2, 4)):
            fixed = {**even, "stride": stride, "high": high, **kind}
            name = f"maps by strips {stride=} {high=} {dct=} {packed=} {element}"
            # Where maps are large enough for tall strips (maps.LEAST), capability 90 adds by words whatever the dtype.
            # Of the strips that are tall, the largest are those of stride 1 that add by numbers.
            most, lesser = 90 if packed or high == 1 else 80, high == 1 or packed == (stride == 1)
            yield compiled(name, map_kernels.strip_maps, words, fixed, least=least, most=most, lesser=lesser)
        # What `dct` and `packed` choose between is the same code in all kernels of words, and stands with the strips.
        options: dict[str, Any] = {"least": least, "lesser": packed}
        yield compiled(f"maps by words {dct=} {packed=} {element}", map_kernels.flat_maps, words, {**odd, **kind}, **options)
        yield compiled(f"maps halved {dct=} {packed=} {element}", map_kernels.halved_maps, words, {**halved, **kind}, **options)
    yield compiled(f"maps of every second pixel {element}", map_kernels.halved_points, words, {**halved, "block": 1024, **LATE})
    for size, stride, dct in ((3, 2, True), (1, 3, False), (5, 1, False)):
        window = {key: value for key, value in _window(size, stride, size // 2).items() if not key.startswith("pad")}
        image = {"height": 15, "width": 15, "out_height": 15 // stride, "out_width": 15 // stride}
        fixed = {**image, **window, "top": size // 2, "left": size // 2, "dct": dct, "block": 256, **LATE}
        pointers = {**lists, **_planes(element, "x", "maps")}
        yield compiled(f"maps {size}x{size} {stride=} {dct=} {element}", map_kernels.any_maps, pointers, fixed)


def _pairs(element: str) -> Iterator[Compiled]:
    # (filters a group, kernel, tile, least capability: 80 has registers for fewer sums)
    for rows, size, tile, least in ((64, 7, pairs.TILES[2], 80), (64, 7, pairs.TILES[5], 90), (32, 3, pairs.TILES[4], 80)):
        across = (size + 1) // 2
        total = 2 * tile.depth * -(-3 * size * across // tile.depth)
        image = {"channels": 3, "height": 224, "width": 224, "out_height": 112, "out_width": 112}
        window = {"kernel_h": size, "kernel_w": size, "stride_h": 2, "top": size // 2, "left": size // 2}
        fixed = {**image, **window, "across": across, "total": total, "unrolled": True, **_sums(rows, tile)}
        lesser = rows == 32 or (element == "bf16" and least == 80)  # bfloat16 on a GPU that has the registers for the larger tile
        yield _launch(f"pairs{rows} {size}x{size} {tile} {element}", pairs.gathered_pairs, element, fixed, tile, least=least, lesser=lesser)


def _boundary(element: str) -> Iterator[Compiled]:
    for reads in (True, False):
        for other in ("fp32", element):
            pointers = {"planes": f"*{element}", "other": f"*{other}"}
            way = "read" if reads else "write"
            flat = {"reads": reads, "flat": True, "other_w": 1, **_tile(1, 2048), **LATE}
            yield compiled(f"{way} {other} flat {element}", boundary.convert_kernel, pointers, flat)
            last = {"reads": reads, "flat": False, "other_c": 1, **_tile(32, 64), **LATE}
            yield compiled(f"{way} {other} channels last {element}", boundary.convert_kernel, pointers, last)


def inventory() -> list[Compiled]:
    """All entries, for float16 and bfloat16."""
    families = (_pointwise, _pool, _resample, _depthwise, _product, _pairs, _maps, _boundary)
    return [entry for family in families for element in ELEMENTS for entry in family(element)]
