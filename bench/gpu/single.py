"""Single layers on a GPU: each kernel in CUDA C++ for 3x3 layers, or each tile of a dense product, beside the library, in turn.

    python -m cosparse.bench.gpu.single 3x3  [--batches 256,32] [--seconds 0.05]      us of `basis` and `shared`, and cuDNN's dense layer
    python -m cosparse.bench.gpu.single rows [--batches 256,32] [--seconds 0.05]      us of tiles, and cuBLAS without bias and residual

Layers are of ResNet-50 and VGG-16: 3x3 with masks of 64 filters at density 0.2, 1x1 as they are left when filters are removed. Weights are
random. A kernel's output is compared first: with cuDNN's or cuBLAS' in half precision, by root mean square relative to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer

from cosparse.bench.gpu.device import require_cuda
from cosparse.bench.gpu.peers import capture
from cosparse.bench.gpu.timing import in_turn
from cosparse.bench.layer_net import Layer
from cosparse.engine.graph import Node
from cosparse.errors import Error
from cosparse.kernels.gpu import compiling, conv_basis, conv_shared
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.groups import Groups, grouped
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import TILES, Product, sums_fit
from cosparse.kernels.transform import dct_matrix

DENSITY = 0.2
LARGEST_ERROR = 0.01
SQUARES = tuple(Layer(n, n, size, 3) for n, size in ((64, 56), (128, 28), (256, 14), (512, 7), (64, 32), (128, 16), (256, 8), (512, 4)))
POINTS = tuple(
    Layer(filters, channels, size, 1)
    for filters, channels, size in (
        (256, 96, 56),
        (512, 320, 28),
        (1024, 640, 14),
        (2048, 1280, 7),
        (1024, 112, 14),
        (112, 1024, 14),
        (216, 2048, 7),
    )
)
ROWS = (64, 128)

Call = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Case:
    """One layer's input, output and candidates; `want` is what the library makes of the same numbers, float32 [N, O, H, W]."""

    out: Planes
    candidates: Mapping[str, Call]
    library: Call
    want: torch.Tensor


def masked(layer: Layer, density: float, rng: np.random.Generator) -> Groups:
    """Random groups of 64 filters in the DCT's domain, each with its own columns, as many for all."""
    total, groups = layer.channels * 9, -(-layer.filters // conv_basis.ROWS)
    count = round(density * total)
    columns = [np.sort(rng.choice(total, count, replace=False)) for _ in range(groups)]
    values = rng.standard_normal((groups * count, conv_basis.ROWS)).astype(np.float32) / np.sqrt(max(1, count), dtype=np.float32)
    return Groups(conv_basis.ROWS, layer.filters, total, np.arange(groups + 1) * count, np.concatenate(columns).astype(np.int32), values)


def squares(layer: Layer, batch: int, device: str, seed: int = 0) -> Case:
    """A 3x3 layer: every form in CUDA C++ that has something to share or suits so many pixels."""
    rng = np.random.default_rng(seed)
    groups = masked(layer, DENSITY, rng)
    x, out = (
        _planes(batch, layer.channels, layer.size, device),
        Planes.empty((batch, layer.filters, layer.size, layer.size), torch.half, device),
    )
    bias = torch.randn(layer.filters, device=device)
    epilogue = Epilogue(bias, None, "relu")
    basis = conv_basis.pack(groups, layer.channels, torch.half, device)
    candidates: dict[str, Call] = {}
    for variant in conv_basis.VARIANTS:
        candidates[f"basis {variant.name}"] = partial(conv_basis.launch, basis, x, out, epilogue, variant)
    for team in conv_shared.TEAMS:
        if team <= len(groups):
            packed = conv_shared.pack(groups, layer.channels, torch.half, device, team)
            candidates[f"shared {conv_shared.name(team)}"] = partial(conv_shared.launch, packed, x, out, epilogue)
    d = dct_matrix(3)
    weights = np.einsum("ocuv,ui,vj->ocij", groups.dense().reshape(layer.filters, layer.channels, 3, 3), d, d)
    laid = torch.from_numpy(weights.astype(np.float32)).to(device).half().to(memory_format=torch.channels_last)
    nhwc = x.nchw.to(memory_format=torch.channels_last)
    want = torch.relu(torch.conv2d(nhwc, laid, bias.half(), padding=1)).float()
    if device == "cpu":  # cuDNN's call with the activation inside has no counterpart there
        return Case(out, candidates, partial(torch.conv2d, nhwc, laid, bias.half(), padding=1), want)
    library = partial(torch.cudnn_convolution_relu, nhwc, laid, bias.half(), (1, 1), (1, 1), (1, 1), 1)
    return Case(out, candidates, library, want)


def points(layer: Layer, batch: int, device: str, seed: int = 0) -> Case:
    """A dense 1x1 layer: every tile for groups of 64 and of 128 filters."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((layer.filters, layer.channels)).astype(np.float32) / layer.channels**0.5
    x, out = (
        _planes(batch, layer.channels, layer.size, device),
        Planes.empty((batch, layer.filters, layer.size, layer.size), torch.half, device),
    )
    bias = torch.randn(layer.filters, device=device)
    candidates: dict[str, Call] = {}
    for rows in ROWS:
        product = Product(
            Node("single", "conv", ("x",)), grouped(weights, np.ones(weights.shape, bool), rows), torch.half, device, pointwise=True
        )
        for tile in TILES:
            if sums_fit(rows, tile):
                candidates[f"rows{rows} {tile}"] = partial(product, x, out, Epilogue(bias, None, "relu"), tile)
    half = torch.from_numpy(weights).to(device).half()
    flat = x.data[:, : x.pixels].contiguous()
    want = torch.relu((half @ flat).float() + bias[:, None]).view(layer.filters, batch, layer.size, layer.size).transpose(0, 1)
    return Case(out, candidates, partial(torch.mm, half, flat), want)


def _planes(batch: int, channels: int, size: int, device: str) -> Planes:
    return Planes.of(torch.randn(batch, channels, size, size, device=device).half())


def differences(case: Case) -> Iterator[tuple[str, float | None, str]]:
    """Of each candidate how far its output is from the library's, or why there is none."""
    for name, call in case.candidates.items():
        case.out.data.fill_(torch.nan)
        try:
            call()
            error = case.out.nchw.float() - case.want
            yield name, float((error**2).mean().sqrt() / case.want.std()), ""
        except Exception as error:  # too wide for shared memory, a tile too large for it: the others are measured all the same
            yield name, None, (str(error).splitlines() or [""])[0][:100]


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """us of each candidate whose output is right, and of the library; what was wrong with the others."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(_compiled, case.candidates.values()))
    wrong = {name: why or f"differs by {error:.2g}" for name, error, why in differences(case) if not (error or 1) <= LARGEST_ERROR}
    right = {name: call for name, call in case.candidates.items() if name not in wrong} | {"library": case.library}
    x = torch.zeros(1, device="cuda")
    replays = {name: capture(lambda _, call=call: call(), x)[0] for name, call in right.items()}  # type: ignore[misc]
    times = in_turn(replays, seconds)
    return {"us": {name: round(found.median_ms * 1e3, 1) for name, found in times.items()}, "wrong": wrong}


def _compiled(call: Call) -> None:
    with compiling.only():
        try:
            call()
        except Exception:  # said where it is run
            return


KINDS = {"3x3": (SQUARES, squares), "rows": (POINTS, points)}


def main(
    kind: Annotated[str, typer.Argument(help="3x3 or rows.")],
    batches: Annotated[str, typer.Option(help="Batch sizes with commas between.")] = "256,32",
    seconds: Annotated[float, typer.Option(min=0.01, help="Timed seconds for each candidate.")] = 0.05,
) -> None:
    """Measure single layers on the GPU."""
    try:
        if kind not in KINDS:
            raise Error("kind", " or ".join(KINDS), repr(kind))
        sizes = [int(n) for n in batches.split(",")]
        require_cuda()
    except ValueError as error:
        typer.echo(f"single: {error}", err=True)
        raise typer.Exit(2) from error
    torch.backends.cudnn.benchmark = True
    layers, case = KINDS[kind]
    for layer in layers:
        for batch in sizes:
            found = measure(case(layer, batch, "cuda"), seconds)
            ordered = sorted(found["us"].items(), key=lambda item: item[1])
            typer.echo(f"{layer}, batch {batch}: " + ", ".join(f"{name} {us:g}" for name, us in ordered))
            for name, why in found["wrong"].items():
                typer.echo(f"  {name}: {why}")


if __name__ == "__main__":
    typer.run(main)
