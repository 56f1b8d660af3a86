"""Imports a model and holds the graph against torch in float64: run by the float64 reference, and by the engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from engines import engine_of
from torch import Tensor, nn

from cosparse.compress.importer import from_torch
from cosparse.engine.graph import Graph
from cosparse.kernels import reference

# Half a unit in the last place of float32, relative: what storing a weight may change it by.
HALF_ULP = 2.0**-24
# What the engine promises of a whole network in float32: the largest error of an output, relative to the largest output.
ENGINE_TOLERANCE = 1e-4


class Apply(nn.Module):
    """A function of x as a module, so that each idiom is one line of a table."""

    def __init__(self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(x)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms, biases and layer scales that are not those of a fresh network, so that folding them wrongly shows."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=rng))
            elif tensor.ndim <= 1 or "layer_scale" in name:
                base = 1.0 if name.endswith("weight") else 0.0
                tensor.copy_(base + 0.2 * torch.randn(tensor.shape, generator=rng))
    return model


def outputs(model: nn.Module, *inputs: Tensor) -> list[np.ndarray]:
    """What `model` returns, flat."""
    with torch.no_grad():
        result = model(*inputs)
    flat = list(result.values()) if isinstance(result, Mapping) else [result] if isinstance(result, Tensor) else list(result)
    return [y.numpy() for y in flat]


def perturbed(model: nn.Module) -> nn.Module:
    """The model with each weight and statistic changed as storing it in float32 may change it."""
    rng = torch.Generator().manual_seed(1)
    result = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*result.parameters(), *result.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + HALF_ULP * torch.randint(0, 2, tensor.shape, generator=rng).mul(2).sub(1).double())
    return result


def check(model: nn.Module, *shapes: Sequence[int], batches: Sequence[int] = (1, 3), sizes: Sequence[Sequence[int]] = ()) -> Graph:
    """Imports with an example of `shapes` (N = 1 allowed) and compares at `batches`, and at each [H, W] of `sizes` for all inputs.

    Both sides compute in float64, so they differ by the rounding of what the graph stores alone: the folded weights, where a random change
    of all weights by half a unit in the last place gives the scale (a maximum over outputs: eight times that is allowed), and constants in
    the model's code, which act on a value itself. 1e-13 is float64's own noise.
    """
    model = model.eval()
    rng = torch.Generator().manual_seed(2)
    graph = from_torch(model, [torch.randn(*shape, generator=rng) for shape in shapes], "net")
    engine = engine_of(graph)
    exact = copy.deepcopy(model).double()
    changed = perturbed(exact)
    cases = [[(batch, *shape[1:]) for shape in shapes] for batch in batches]
    cases += [[(2, shape[1], *size) for shape in shapes] for size in sizes]
    for case in cases:
        inputs = [torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in case]
        want, noisy = outputs(exact, *inputs), outputs(changed, *inputs)
        got = reference.run(graph, *(x.numpy() for x in inputs))
        assert len(got) == len(want)
        ran = engine(*(x.float().numpy() for x in inputs))
        for name, y, wanted in zip(graph.outputs, ran if isinstance(ran, tuple) else (ran,), want, strict=True):
            error, bound = np.abs(y - wanted).max(), ENGINE_TOLERANCE * np.abs(wanted).max() + 1e-6
            assert error <= bound, f"engine: {name} at {case}: error {error:.3g}, bound {bound:.3g}"
        for name, y, wanted, other in zip(graph.outputs, got, want, noisy, strict=True):
            assert y.shape == wanted.shape, f"{name} at {case}: shape {y.shape}, wanted {wanted.shape}"
            stores = any(node.tensors for node in graph.nodes)
            bound = 8 * np.abs(other - wanted).max() + (2 * HALF_ULP * stores + 1e-13) * np.abs(wanted).max() + 1e-300
            error = np.abs(y - wanted).max()
            assert error <= bound, f"{name} at {case}: error {error:.3g}, bound {bound:.3g}"
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]
