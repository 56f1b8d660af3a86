"""Parameters and multiply-adds of a network, layer by layer, dense and with its masks.

Counting rule. One multiply-add is one FLOP, per input image. Counted: every call of Conv2d, ConvTranspose2d and Linear at the example's
size, and every matrix product, attention or convolution that the network does outside such modules ("functional", always dense). Bias,
normalisation, activation, pooling and additions count nothing, as in the pruning literature. A masked layer costs its kept coefficients
times its output pixels, plus the basis step of every input channel that a kept coefficient uses (`transforms.basis_cost`) and, where
filters are transformed, the step behind the product (`transforms.output_cost`). Parameters: every distinct parameter of the model, biases
and normalisation included; a masked layer stores its kept coefficients, and the matrices of a transform that has its own. The zeros that
pad a last, partial block are no parameters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cosparse.compress import given, masks, transforms
from cosparse.compress.flow import Flow
from cosparse.errors import Error


@dataclass(frozen=True)
class LayerCount:
    """One layer: `pixels` = multiply-adds per weight and image; `form` = how it is stored, with the reason where it was left dense.

    `params` are its kept coefficients, `params_matrices` the numbers of its transform's own matrices, `flops_basis` the transform's steps.
    `opened`: the density of open group columns, where the mask was chosen in filter groups. `used`: an output depends on its result.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    calls: int
    pixels: float
    params_dense: int
    params: int
    flops_dense: float
    flops_coefficients: float
    flops_basis: float
    form: str
    params_matrices: int = 0
    opened: float | None = None
    used: bool = True

    @property
    def flops(self) -> float:
        return self.flops_coefficients + self.flops_basis

    @property
    def density(self) -> float:
        return self.params / self.params_dense if self.params_dense else 1.0


@dataclass(frozen=True)
class Report:
    """Counts of a network; `flops` charges the basis step, `flops_coefficients` does not."""

    layers: tuple[LayerCount, ...]
    params_other: int
    flops_functional: float

    @property
    def params_dense(self) -> int:
        return sum(layer.params_dense for layer in self.layers) + self.params_other

    @property
    def params(self) -> int:
        return sum(layer.params + layer.params_matrices for layer in self.layers) + self.params_other

    @property
    def flops_dense(self) -> float:
        return sum(layer.flops_dense for layer in self.layers) + self.flops_functional

    @property
    def flops_coefficients(self) -> float:
        return sum(layer.flops_coefficients for layer in self.layers) + self.flops_functional

    @property
    def flops(self) -> float:
        return sum(layer.flops for layer in self.layers) + self.flops_functional

    @property
    def params_reduction(self) -> float:
        return 1 - self.params / self.params_dense if self.params_dense else 0.0

    @property
    def flops_reduction(self) -> float:
        return 1 - self.flops / self.flops_dense if self.flops_dense else 0.0

    @property
    def flops_reduction_coefficients(self) -> float:
        return 1 - self.flops_coefficients / self.flops_dense if self.flops_dense else 0.0

    @property
    def opened(self) -> dict[str, float]:
        """Layer name -> density of its open group columns; empty where no mask was chosen in filter groups."""
        return {layer.name: layer.opened for layer in self.layers if layer.opened is not None}

    @property
    def flops_opened(self) -> float:
        """`flops` with every open group column executed whole."""
        extra = [layer.opened * layer.flops_dense - layer.flops_coefficients for layer in self.layers if layer.opened is not None]
        return self.flops + sum(extra)

    def totals(self) -> dict[str, float]:
        """The totals as plain numbers, as the artifact's provenance keeps them; `flops_opened` where there are filter groups."""
        names = ("params_dense", "params", "params_reduction", "flops_dense", "flops", "flops_coefficients")
        opened = ("flops_opened",) if self.opened else ()
        return {name: getattr(self, name) for name in (*names, "flops_reduction", "flops_reduction_coefficients", *opened)}

    def to_json(self) -> str:
        layers = [{**asdict(layer), "flops": layer.flops, "density": layer.density} for layer in self.layers]
        for layer in layers:
            if layer["opened"] is None:
                del layer["opened"]
            if layer["used"]:
                del layer["used"]
        rest = {"params_other": self.params_other, "flops_functional": self.flops_functional}
        return json.dumps({**self.totals(), **rest, "layers": layers}, indent=1)

    def __str__(self) -> str:
        head = ("layer", "kind", "weights", "params", "kept", "MFLOP dense", "MFLOP", "basis", "form")
        rows: list[tuple[str, ...]] = [head]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            figures = (f"{layer.flops_dense / 1e6:.3f}", f"{layer.flops / 1e6:.3f}", f"{layer.flops_basis / 1e6:.3f}")
            rows.append((layer.name, layer.kind, shape, f"{layer.params_dense:,}", f"{layer.density:.1%}", *figures, layer.form))
        if self.flops_functional:
            figures = (f"{self.flops_functional / 1e6:.3f}", f"{self.flops_functional / 1e6:.3f}", "0.000")
            rows.append(("(functional)", "", "", "0", "", *figures, "dense: computed outside Conv2d, ConvTranspose2d and Linear"))
        rows.append(("(other parameters)", "", "", f"{self.params_other:,}", "100.0%", "0.000", "0.000", "0.000", "biases, normalisation"))
        if self.opened:
            cells = {name: f"{opened:.1%}" for name, opened in self.opened.items()}
            rows = [(*row[:5], "open" if row is head else cells.get(row[0], ""), *row[5:]) for row in rows]
        last = len(rows[0]) - 1
        widths = [max(len(row[i]) for row in rows) for i in range(last + 1)]
        lines = [
            "  ".join(
                cell.ljust(w) if i in (0, 1, last) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        basis = sum(layer.flops_basis for layer in self.layers)
        total = (
            f"parameters {self.params_dense:,} -> {self.params:,} (-{self.params_reduction:.2%}); MFLOP {self.flops_dense / 1e6:.2f} -> "
            f"{self.flops / 1e6:.2f} (-{self.flops_reduction:.2%}), of which basis step {basis / 1e6:.2f} "
            f"(coefficients only -{self.flops_reduction_coefficients:.2%})"
        )
        if self.opened:
            total += f"; open columns executed whole {self.flops_opened / 1e6:.2f}"
        return "\n".join([*lines, total])


def as_tuple(example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The example as the tuple of the model's positional inputs; raises Error where it is none."""
    inputs = example if isinstance(example, tuple) else (example,)
    if not inputs or not all(isinstance(x, torch.Tensor) and x.ndim >= 1 and x.shape[0] >= 1 for x in inputs):
        raise Error("example", "a tensor [N, ...] or a tuple of them, N >= 1", type(example).__name__)
    return inputs


def _pixels(module: masks.Layer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Multiply-adds per weight of one call, over the whole batch."""
    if isinstance(module, nn.Linear):
        return y.numel() / module.out_features
    grid = x if isinstance(module, nn.ConvTranspose2d) else y
    return grid.numel() / grid.shape[-3]


def count(model: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> Report:
    """Runs the model once on the example, in evaluation mode and without gradients, and counts by this file's rule, in order of first use.

    Modules that run several times are charged for every run; modules that never run are listed last, with 0 calls. Layers are named as in
    the module inside any wrapper (`given.bare`). Raises Error where the model does not run on the example.
    """
    inputs, model = as_tuple(example), given.taken(model)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, masks.Layer)}
    calls: dict[str, int] = {}
    pixels = dict.fromkeys(modules, 0.0)
    flow, results = Flow(), dict[str, list[int]]()

    def observe(name: str):
        def hook(module: masks.Layer, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], output: torch.Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            pixels[name] += _pixels(module, args[0] if args else kwargs["input"], output) / inputs[0].shape[0]
            results.setdefault(name, []).append(flow.at(output))

        return hook

    hooks = [module.register_forward_hook(observe(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with given.evaluating(model), FlopCounterMode(display=False) as counter, flow:
            used = flow.reached(tree_leaves(given.run(model, inputs)))
    finally:
        for hook in hooks:
            hook.remove()

    seen: set[int] = set()
    layers = []
    for name in [*calls, *(name for name in modules if name not in calls)]:
        weight = modules[name].weight
        tied = isinstance(weight, nn.Parameter) and id(weight) in seen
        line = _layer(name, modules[name], calls.get(name, 0), pixels[name], tied)
        layers.append(line if name not in results or used.intersection(results[name]) else replace(line, used=False))
        seen.add(id(weight))
    total = counter.get_total_flops() / 2 / inputs[0].shape[0]
    functional = max(0.0, total - sum(layer.flops_dense for layer in layers))
    weights = sum(layer.params_dense for layer in layers)
    return Report(tuple(layers), sum(p.numel() for p in model.parameters()) - weights, functional)


def _layer(name: str, module: masks.Layer, calls: int, pixels: float, tied: bool) -> LayerCount:
    size = module.weight.numel()
    stored = 0 if tied else size
    common = (name, type(module).__name__, tuple(module.weight.shape), calls, pixels, stored)
    mask = masks.mask_of(module)
    if mask is None:
        why = masks.why_dense(module) or ("shares its weight with a layer above" if tied else "")
        return LayerCount(*common, stored, size * pixels, size * pixels, 0.0, f"dense: {why}" if why else "dense")
    kept = mask.kept()
    step = transforms.basis_cost(mask.transform, *masks.geometry(module))
    steps = mask.channels_used() * step + transforms.output_cost(mask.transform, mask.filters)
    form = (
        f"{mask.transform} {mask.block}x1" + (f" in {mask.group_rows}" if mask.group_rows else "") + (f": {mask.why}" if mask.why else "")
    )
    opened = mask.opened if mask.group_rows else None
    return LayerCount(*common, kept, size * pixels, kept * pixels, steps * pixels, form, transforms.stored(mask.transform), opened)
