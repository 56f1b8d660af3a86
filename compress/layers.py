"""Which layers get a mask, in which transform and block size, and why the others are left dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from cosparse.compress import masks, transforms
from cosparse.compress.count import LayerCount, Report
from cosparse.errors import Error

FEW_CHANNELS = 4
DENSE = "dense"

BASIS_SHARE = 1 / 8
"""Share of a dense layer that the basis step may cost: at equal energy the DCT saves half the blocks, a tenth of a layer at density 0.2."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One counted layer: `transform` is None where it stays dense; `why` says why that, or another transform than the one asked for."""

    name: str
    module: masks.Layer
    count: LayerCount
    transform: str | None
    block: int
    why: str


def block_size(filters: int, block: int) -> int:
    """`block`, or the largest power of two that is no larger than the number of filters."""
    while block > filters:
        block //= 2
    return block


def _cannot(module: masks.Layer, layer: LayerCount, tied: bool) -> str:
    """Why the layer can carry no mask, or the empty string."""
    if layer.calls == 0:
        return "never runs on the example"
    if not isinstance(module.weight, nn.Parameter):
        return "its weight is computed from other parameters"
    if tied:
        return "shares its weight with another layer"
    if isinstance(module, nn.ConvTranspose2d):
        return "transposed convolution"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        depthwise = module.groups == module.in_channels
        return "depthwise: nothing to share among filters" if depthwise else f"grouped convolution, {module.groups} groups"
    return ""


def _should_not(module: masks.Layer, last: bool) -> str:
    """Why the layer had better stay dense, or the empty string."""
    if isinstance(module, nn.Linear):
        return "classifier: the last layer" if last else ""
    if module.in_channels <= FEW_CHANNELS:
        columns = f"{module.weight[0].numel()} columns in all"
        return f"reads {module.in_channels} input channel{'s' * (module.in_channels > 1)}: {columns}"
    return ""


def choose(
    model: nn.Module, report: Report, transform: str = "dct", block: int = 8, overrides: Mapping[str, str] | None = None
) -> tuple[Choice, ...]:
    """Decides for every layer of the report.

    k x k convolutions take `transform`, or the identity where its basis step is too dear; 1x1 convolutions and linear layers take the
    identity. `overrides` maps module paths to "dense" or a transform and wins over the rules below, except that grouped, transposed, tied
    and unused layers cannot be masked.
    """
    if block not in masks.BLOCKS:
        raise Error("block", f"one of {', '.join(map(str, masks.BLOCKS))}", repr(block))
    transforms.basis(transform, (3, 3))
    modules = {name: module for name, module in model.named_modules() if isinstance(module, masks.Layer)}
    wanted = dict(overrides or {})
    if unknown := sorted(set(wanted) - {layer.name for layer in report.layers}):
        raise Error(f"layers[{unknown[0]!r}]", "the path of a Conv2d, ConvTranspose2d or Linear", "no such layer")
    owners = Counter(id(module._parameters.get("weight")) for module in model.modules())
    running = [layer.name for layer in report.layers if layer.calls]
    return tuple(
        _choice(layer, modules[layer.name], transform, block, wanted.get(layer.name), layer.name == running[-1], owners)
        for layer in report.layers
    )


def _choice(
    layer: LayerCount, module: masks.Layer, transform: str, block: int, wanted: str | None, last: bool, owners: Mapping[int, int]
) -> Choice:
    kernel, stride = masks.geometry(module)
    point = kernel == (1, 1)
    size = block_size(layer.shape[0], block)
    cannot = _cannot(module, layer, owners[id(module.weight)] > 1)
    if wanted is not None and wanted != DENSE:
        transforms.basis(wanted, (3, 3))
        if cannot:
            raise Error(f"layers[{layer.name!r}]", "a layer that can carry a mask", cannot)
        return Choice(layer.name, module, layer, "identity" if point else wanted, size, "")
    if why := "as asked" if wanted == DENSE else cannot or _should_not(module, last):
        return Choice(layer.name, module, layer, None, size, why)
    step = transforms.basis_cost(transform, kernel, stride) / (layer.shape[0] * kernel[0] * kernel[1])
    if step > BASIS_SHARE:
        return Choice(layer.name, module, layer, "identity", size, f"the basis step would cost {step:.0%} of the dense layer")
    return Choice(layer.name, module, layer, "identity" if point else transform, size, "")
