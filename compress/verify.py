"""Does the packed graph compute what the torch model computes? Decided before anything is written.

Two checks. Every packed node must unpack to its dense weights, which is exact up to the rounding of the stored coefficients and says which
node is wrong. Then the whole graph, run by the plain float64 interpreter, must give torch's outputs on the example and on random inputs:
those in float32, or where rounding alone may have parted them, those in float64.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from cosparse.compress import given
from cosparse.compress.pack import WEIGHTED
from cosparse.engine.graph import Graph
from cosparse.errors import Error
from cosparse.kernels import reference
from cosparse.kernels.conv import unpack
from cosparse.kernels.view import outputs_of

TOLERANCE = 1e-4
"""Largest difference of an output relative to the largest output."""

SPARE = 5e9
"""Multiply-adds up to which a second, random input is worth its time in the interpreter."""

SEED = 24_593
"""Of the random input: none that an example is likely to be drawn with, or the two inputs would be one."""

NOT_WRITTEN = "nothing was written"

DROPPED = "the torch model drops the batch axis of a single image: flatten(1), or squeeze over named axes, in place of squeeze()"


def check_weights(dense: Graph, packed: Graph) -> None:
    """Raises Error for the first node whose stored form does not unpack to its dense weights.

    The bound: float32 rounding of taps, coefficients and matrices, as many terms each as the transform has points, plus what masked-out
    coefficients may hold.
    """
    for before, after in zip(dense.nodes, packed.nodes, strict=True):
        if before.op not in WEIGHTED or before is after:
            continue
        wanted = unpack(before)
        points = wanted.shape[2] * wanted.shape[3]
        for tile in ("channels_tile", "filters_tile"):
            points *= max(1, int(after.attrs.get(tile, 1)))  # type: ignore[arg-type]
        bound = points * (2 * float(np.finfo(np.float32).eps) + 1e-6) * _scale(wanted)
        error = _scale(unpack(after) - wanted)
        if not error <= bound:
            raise Error(f"node {before.name!r}", f"unpacked weights within {bound:.3g} of the dense ones", f"{error:.3g}", NOT_WRITTEN)


def check_outputs(graph: Graph, model: nn.Module, inputs: tuple[torch.Tensor, ...], flops: float, tolerance: float = TOLERANCE) -> float:
    """The largest output difference relative to the largest output; raises Error where it exceeds the tolerance.

    Runs on the first image of the example and, where the network takes at most SPARE multiply-adds, on a normal random one. Warns where
    torch's own outputs for the two are as close as that, zero for instance: to give them proves little.
    """
    first = tuple(x[:1].detach().float() for x in inputs)
    generator = torch.Generator().manual_seed(SEED)
    other = tuple(torch.randn(x.shape, generator=generator) for x in first)
    trials = [(trial, given.outputs(model, trial)) for trial in (first, other)]
    worst = max(_difference(graph, model, *trial, tolerance) for trial in trials[: 1 + (flops <= SPARE)])
    for name, one, two in zip(graph.outputs, trials[0][1], trials[1][1], strict=True):
        if one.shape == two.shape and _scale(one - two) <= tolerance * _scale(one):
            alike = f"output {name!r} of the torch model is the same for any input, {_example(one)}"
            warnings.warn(f"{alike}: that the artifact gives it too says little", RuntimeWarning, stacklevel=3)
    return worst


def _example(values: np.ndarray) -> str:
    return f"{values.flat[0]:.3g} for instance" if values.any() else "zero everywhere"


def _difference(graph: Graph, model: nn.Module, inputs: tuple[torch.Tensor, ...], wanted: list[np.ndarray], tolerance: float) -> float:
    values = reference.trace(graph, *(x.cpu().numpy() for x in inputs))
    got = list(outputs_of(graph, values))
    if [y.shape for y in got] != [y.shape for y in wanted]:
        next_step = f"{NOT_WRITTEN}; {DROPPED}" if any(y.shape == (1, *x.shape) for x, y in zip(wanted, got, strict=False)) else NOT_WRITTEN
        raise Error(f"outputs of {graph.name!r}", f"shapes {[y.shape for y in wanted]}", f"{[y.shape for y in got]}", next_step)
    for name, theirs in zip(graph.outputs, wanted, strict=True):
        if not np.isfinite(theirs).all():
            raise Error(f"output {name!r} of the torch model", "finite values", "NaN or infinity", NOT_WRITTEN)
    if not _close(got, wanted, tolerance):
        # A deep network may take float32's own rounding beyond the tolerance, and by how much depends on the processor: then torch is
        # asked in double precision, in which `got` is computed too.
        exact = given.exact_outputs(model, inputs)
        wanted = exact if exact is not None and [y.shape for y in exact] == [y.shape for y in wanted] else wanted
    worst = 0.0
    for name, ours, theirs in zip(graph.outputs, got, wanted, strict=True):
        largest, error = _scale(theirs), _scale(ours - theirs)
        if not error <= tolerance * largest:
            if given.single_differs(model, inputs):
                raise Error(f"output {name!r}", *given.ONE_IMAGE)
            where = _first_different(values, graph, model, inputs, tolerance)
            next_step = f"{NOT_WRITTEN}; the first node whose value no torch module gives: {where}"
            raise Error(
                f"output {name!r}",
                f"within {tolerance:g} of torch's largest value {largest:.4g}",
                f"a difference of {error:.3g}",
                next_step,
            )
        worst = max(worst, error / largest if largest else 0.0)
    return worst


def _scale(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _close(got: list[np.ndarray], wanted: list[np.ndarray], tolerance: float) -> bool:
    return all(_scale(ours - theirs) <= tolerance * _scale(theirs) for ours, theirs in zip(got, wanted, strict=True))


def _first_different(
    values: dict[str, np.ndarray], graph: Graph, model: nn.Module, inputs: tuple[torch.Tensor, ...], tolerance: float
) -> str:
    """The first node, named after a module, whose value no module gives: folding moves a value to the module behind, never away."""
    seen: dict[tuple[int, ...], list[np.ndarray]] = {}

    def record(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            seen.setdefault(tuple(output.shape), []).append(output.detach().double().cpu().numpy())

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            model(*(x.to(device) for x in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    modules = {name for name, _ in model.named_modules()}
    for node in graph.nodes:
        value = values[node.name]
        bound = tolerance * _scale(value)
        if node.name in modules and not any(_scale(value - y) <= bound for y in seen.get(value.shape, [])):
            return repr(node.name)
    return "none, so an operation outside the modules differs"
