"""The network that a user gives: without wrappers, refused in one sentence where it cannot be taken, run and copied as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from cosparse.errors import Error, UnsupportedError

QUANTIZED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.", "torch.nn.quantized.")

ONE_IMAGE = (
    "the same network for every batch",
    "one that computes something else for a single image",
    "an artifact takes any batch: leave out what decides by it",
)
SHORT = (torch.float16, torch.bfloat16)


def bare(model: nn.Module) -> nn.Module:
    """The module itself where it is wrapped for data parallelism or by `torch.compile`: the same parameters, under their own names."""
    while True:
        inner = model.module if isinstance(model, DistributedDataParallel | nn.DataParallel) else model._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def taken(model: nn.Module) -> nn.Module:
    """The module inside its wrappers; raises Error unless it is an ordinary one: no script, no exported program."""
    about = f"model {type(model).__name__.lower()}"
    if not isinstance(model, nn.Module):
        raise Error(about, "a torch.nn.Module", type(model).__name__)
    if isinstance(model, torch.jit.ScriptModule):
        next_step = "give the module that was scripted or traced"
        raise UnsupportedError(about, "a module whose layers can be seen", "one of torch.jit", next_step)
    model = bare(model)
    if quantized := [name or "itself" for name, module in model.named_modules() if _quantized(module)]:
        layers = f"quantized ones ({', '.join(quantized[:2])}{', ...' if len(quantized) > 2 else ''})"
        next_step = "give the float model: load(dtype='int8', calibration=x) quantizes it"
        raise UnsupportedError(about, "layers with float weights", layers, next_step)
    if isinstance(model, torch.fx.GraphModule) and "eval" in vars(model):
        next_step = "give the module that was exported"
        raise UnsupportedError(about, "a module whose layers can be seen", "a program of torch.export", next_step)
    return model


def _quantized(module: nn.Module) -> bool:
    """Whether it is one of torch's quantized layers, not what such a layer keeps its weights in."""
    return type(module).__module__.startswith(QUANTIZED) and not type(module).__name__.endswith("PackedParams")


def require_memory(model: nn.Module) -> None:
    """Raises Error for weights that exist in shape alone."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            next_step = "make the model on the CPU, or model.to_empty(device='cpu') and load its weights"
            raise Error(f"weight {name}", "a tensor in memory", "one on the meta device", next_step)


def require_masks_hold(model: nn.Module) -> None:
    """Raises Error for weights that cannot carry a mask: on the meta device, or of a dtype whose rounding would fill the mask again."""
    require_memory(model)
    for name, parameter in model.named_parameters():
        if parameter.dtype in SHORT:
            next_step = "model.float() first; train in a shorter dtype with torch.autocast"
            raise Error(f"weight {name}", "float32, in which masked-out coefficients stay zero", str(parameter.dtype), next_step)


def require_float32(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Raises Error where parameters or inputs are of another dtype than what an artifact holds, or on the meta device."""
    require_memory(model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise Error(f"weight {name}", "float32", str(parameter.dtype), "model.float(), and a float32 example")
    for i, x in enumerate(inputs):
        if x.is_floating_point() and x.dtype != torch.float32:
            raise Error(f"example, input {i}", "float32, as the model's weights are", str(x.dtype), "example.float()")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; afterwards each module is in the mode that it was in, with the buffers that it had."""
    training = [module for module in model.modules() if module.training]
    buffers = [(module, name, b, b.clone()) for module in model.modules() for name, b in module._buffers.items() if b is not None]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not buffer.is_meta and not torch.equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """What the model returns for the example; Error in one sentence where it does not run."""
    try:
        return model(*inputs)
    except Error:
        raise
    except Exception as error:  # whatever the model's own code raises
        shapes = ", ".join(str(list(x.shape)) for x in inputs)
        about, got = f"example {shapes}", f"{type(error).__name__}: {first_line(error)}"
        raise Error(about, f"an input that {type(model).__name__} takes", got, "give the shape that it is called with") from error


def outputs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """The tensors among what the model returns, in double precision; Error where it does not run."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        returned = tree_leaves(run(model, tuple(x.to(device) for x in inputs)))
    return [y.double().cpu().numpy() for y in returned if isinstance(y, torch.Tensor)]


def exact_outputs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray] | None:
    """The same from a copy that computes in double precision; None where the model's own code insists on float32 or cannot be copied."""
    try:
        return outputs(copied(model).double(), tuple(x.double() if x.is_floating_point() else x for x in inputs))
    except Error:
        return None


def single_differs(model: nn.Module, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether the model gives other numbers, in the same shape, for one image than for the same one among two."""
    try:
        one = outputs(model, tuple(x[:1] for x in inputs))
        two = outputs(model, tuple(torch.cat([x[:1], x[:1]]) for x in inputs))
    except Error:
        return False
    pairs = [(y, z[:1]) for y, z in zip(one, two, strict=True)]
    return any(y.shape == z.shape and float(np.abs(y - z).max(initial=0.0)) > 1e-3 * float(np.abs(z).max(initial=0.0)) for y, z in pairs)


def first_line(error: Exception) -> str:
    """The first line of a foreign error's text, cut where it runs on."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def copied(model: nn.Module) -> nn.Module:
    """A deep copy. A weight that hooks compute from others (torch.nn.utils.prune, weight_norm) is computed anew when the copy runs."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the model holds: locks, files, handles
        about, got = f"model {type(model).__name__}", f"{type(error).__name__}: {first_line(error)}"
        raise Error(about, "a module that copy.deepcopy can copy", got, "keep what cannot be copied outside the model") from error
