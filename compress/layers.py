"""Which layers get a mask, in which transform and block size, and why the others are left dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from cosparse.compress import computed, masks, transforms
from cosparse.compress.count import LayerCount, Report
from cosparse.compress.transforms import Spec, Transform
from cosparse.errors import Error

FEW_CHANNELS = 4
DENSE = "dense"

BASIS_SHARE = 1 / 8
"""Share of a dense layer that the basis step may cost: at equal energy the DCT saves half the blocks, a tenth of a layer at density 0.2."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One counted layer: `transform` is None where it stays dense; `why` says why that, or another transform than the one asked for.

    `spec` is what the transform was made from; a fitted one is fitted to the weights of that moment (`refitted`). `forced`: it is kept
    whatever it costs.
    """

    name: str
    module: masks.Layer
    count: LayerCount
    transform: Transform | None
    block: int
    why: str
    spec: Spec = field(default_factory=Spec)

    @property
    def forced(self) -> bool:
        return self.spec.forced


def refitted(choice: Choice) -> Choice:
    """The choice with a fitted transform fitted to the present weights; any other as it is."""
    if choice.transform is None or choice.spec.source != "klt":
        return choice
    return replace(choice, transform=choice.spec.fitted(choice.module.weight, f"weight of {choice.name}"))


def block_size(filters: int, block: int) -> int:
    """`block`, or the largest power of two that is no larger than the number of filters."""
    while block > filters:
        block //= 2
    return block


def own_forward(module: masks.Layer) -> bool:
    """Whether a subclass of a torch layer may make another weight of its weight when it runs, so that no mask on the latter would hold."""
    kind = next(c for c in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear) if isinstance(module, c))
    return any(getattr(type(module), name, None) is not getattr(kind, name, None) for name in ("forward", "_conv_forward"))


def _cannot(module: masks.Layer, layer: LayerCount, tied: bool) -> str:
    """Why the layer can carry no mask, or the empty string."""
    if layer.calls == 0:
        return "never runs on the example"
    if not layer.used:
        return "its result is not used"
    if not isinstance(module.weight, nn.Parameter):
        return computed.reason(module)
    if own_forward(module):
        return f"{type(module).__name__} has a forward of its own"
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

    `transform` is a text as in transforms/spec.py. Each layer takes the axes of it that it has (1x1 convolutions and linear layers have no
    taps), or the identity where the steps before and after the product are too dear and the text does not end in "!". `overrides` maps
    module paths to "dense" or a transform and wins over the rules below, except that grouped, transposed, tied and unused layers cannot be
    masked, nor those whose weight is computed.
    """
    if block not in masks.BLOCKS:
        raise Error("block", f"one of {', '.join(map(str, masks.BLOCKS))}", repr(block))
    spec = transforms.parse(transform)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, masks.Layer)}
    wanted = dict(overrides or {})
    if unknown := sorted(set(wanted) - {layer.name for layer in report.layers}):
        raise Error(f"layers[{unknown[0]!r}]", "the path of a Conv2d, ConvTranspose2d or Linear", "no such layer")
    owners = Counter(id(module._parameters.get("weight")) for module in model.modules())
    running = [layer.name for layer in report.layers if layer.calls and layer.used]
    return tuple(
        _choice(layer, modules[layer.name], spec, block, wanted.get(layer.name), layer.name in running[-1:], owners)
        for layer in report.layers
    )


def _choice(
    layer: LayerCount, module: masks.Layer, spec: Spec, block: int, wanted: str | None, last: bool, owners: Mapping[int, int]
) -> Choice:
    size = block_size(layer.shape[0], block)
    cannot = _cannot(module, layer, owners[id(module.weight)] > 1)
    if wanted is not None and wanted != DENSE:
        asked = transforms.parse(wanted)
        if cannot:
            raise Error(f"layers[{layer.name!r}]", "a layer that can carry a mask", cannot)
        return _transformed(layer, module, asked, size)
    if why := "as asked" if wanted == DENSE else cannot or _should_not(module, last):
        return Choice(layer.name, module, layer, None, size, why)
    choice = _transformed(layer, module, spec, size)
    step = step_share(module, choice.transform or transforms.IDENTITY)
    if step > BASIS_SHARE and not spec.forced:
        why = f"the basis step would cost {step:.0%} of the dense layer"
        return Choice(layer.name, module, layer, transforms.IDENTITY, size, why)
    return choice


def _transformed(layer: LayerCount, module: masks.Layer, spec: Spec, size: int) -> Choice:
    transform = spec.fitted(module.weight, f"weight of {layer.name}")
    return Choice(layer.name, module, layer, transform, size, spec.too_short(module.weight), spec)


def step_share(module: masks.Layer, transform: Transform) -> float:
    """What the steps before and behind the product cost, all channels used, over the multiply-adds of the dense layer."""
    kernel, stride = masks.geometry(module)
    step = module.weight.shape[1] * transforms.basis_cost(transform, kernel, stride)
    return (step + transforms.output_cost(transform, module.weight.shape[0])) / module.weight.numel()
