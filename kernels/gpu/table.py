"""The GPU's rows of the table of kernels (kernels/table.py)."""

from __future__ import annotations

import torch

from cosparse.kernels.gpu import conv_basis, conv_shared, cuda_library, pairs, product, stem
from cosparse.kernels.gpu.launches import LAUNCHES
from cosparse.kernels.table import KernelRow

DTYPE = "float16, bfloat16"


def rows() -> list[KernelRow]:
    """One for each way to run each op: Triton's, torch's where an op is left to it, and those in CUDA C++."""
    here = torch.cuda.is_available()
    why = torch.cuda.get_device_name() if here else "torch finds no CUDA device"
    made = []

    def add(name: str, op: str, target: str, tile: str = "") -> None:
        made.append(KernelRow(name, op, target, DTYPE, tile, here, why))

    for op, launch in LAUNCHES.items():
        library = launch.__module__.endswith("rearrange")
        add(f"{op}__{'torch' if library else 'triton'}", op, "torch" if library else "triton")
    for op in ("conv", "linear"):
        for tile in product.TILES:
            add(f"{op}_rows_{_word(tile)}__triton", op, "triton", f"16..128x{tile.pixels}")
    for tile in product.TAP_TILES:
        add(f"conv_taps_{_word(tile)}__triton", "conv", "triton", f"16..128x{tile.pixels}")
    for tile in product.TILES:
        add(f"conv_maps_{_word(tile)}__triton", "conv", "triton", f"16..128x{tile.pixels}")
    for tile in pairs.TILES:
        add(f"conv_pairs_{_word(tile)}__triton", "conv", "triton", f"64x{tile.pixels}")
    add("conv_depthwise__triton", "conv", "triton")
    add("conv_library__torch", "conv", "torch")
    built, missing = cuda_library.available()
    tiles = {f"basis_{_word(variant.name)}": f"{conv_basis.ROWS}x{variant.pixels}" for variant in conv_basis.VARIANTS}
    tiles |= {f"shared_{conv_shared.name(team)}": f"{conv_basis.ROWS * team}x{conv_shared.pixels(team)}" for team in conv_shared.TEAMS}
    for name, tile_ in (tiles | {f"stem_{rows}": f"{stem.GROUP}x{rows} rows" for rows in stem.ROWS}).items():
        made.append(KernelRow(f"conv_{name}__cuda", "conv", "cuda", DTYPE, tile_, built, why if built else missing))
    return made


def _word(tile: product.Tile | str) -> str:
    return str(tile).replace(" ", "_")
