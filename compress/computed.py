"""Weights that are computed from other parameters whenever a layer runs, and the call that makes them plain ones."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

HOOKS: tuple[tuple[type, str], ...] = (
    (WeightNorm, "torch.nn.utils.remove_weight_norm(m)"),
    (SpectralNorm, "torch.nn.utils.remove_spectral_norm(m)"),
    (BasePruningMethod, "torch.nn.utils.prune.remove(m, 'weight')"),
)


def reason(module: nn.Module) -> str:
    """Why a layer m whose `weight` is no parameter can carry no mask, with the call after which it could, where torch has one."""
    call = "torch.nn.utils.parametrize.remove_parametrizations(m, 'weight')" if parametrize.is_parametrized(module, "weight") else ""
    for hook in module._forward_pre_hooks.values():
        call = call or next((name for kind, name in HOOKS if isinstance(hook, kind)), "")
    return "its weight is computed from other parameters" + (f": {call} makes it plain" if call else "")
