"""A pruned network as a file: its weights (safetensors) and, in the header, the sizes of its layers (JSON). Nothing is pickled.

    cosparse.architecture = {"version": 1, "layers": {PATH: {"kind": ..., "in": ..., "out": ..., "groups": ...}, ...}, "notes": {...}}

`restore` makes the network that a factory builds as small as the file says and fills it: the code stays the user's, the file holds sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from cosparse.atomic import replacing
from cosparse.compress.prune.cut import CUTTABLE, depthwise, width, without
from cosparse.errors import Error

KEY, VERSION = "cosparse.architecture", 1


def describe(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Module path -> kind and sizes, of every layer that pruning can make smaller."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, CUTTABLE):
            entry = {"kind": type(module).__name__, "out": width(module, "out")}
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                entry |= {"in": width(module, "in"), "groups": getattr(module, "groups", 1)}
            found[name] = entry
    return found


def save(model: nn.Module, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
    """Writes the network's state and the description of its layers, atomically."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    about = {"version": VERSION, "layers": describe(model), "notes": dict(notes or {})}
    with replacing(Path(path)) as part:
        save_file(state, part, metadata={KEY: json.dumps(about)})


def read(path: str | Path) -> dict[str, Any] | None:
    """The description in a safetensors file, None where it has none; Error where the file or the description is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise Error(str(path), "a safetensors file", str(error)) from error
    if text is None:
        return None
    try:
        about = json.loads(text)
        layers = about["layers"]
        sound = about["version"] == VERSION and all(_sound(entry) for entry in layers.values())
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise Error(f"{path}: {KEY}", f"a description of layers, version {VERSION}", text[:80], "save the network again")
    return about


def _sound(entry: Any) -> bool:
    sizes = [entry[name] for name in ("in", "out", "groups") if name in entry]
    return isinstance(entry["kind"], str) and "out" in entry and all(type(size) is int and size > 0 for size in sizes)


def reshape(model: nn.Module, about: Mapping[str, Any], where: str) -> None:
    """Makes the layers of a fresh network as small as described, in place; which of its weights stay means nothing.

    Raises Error, and leaves the network alone, where a layer is missing, of another kind, or smaller than described.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, CUTTABLE)}
    if names := sorted(modules.keys() ^ about["layers"].keys()):
        raise Error(
            where,
            f"the {len(modules)} layers of {type(model).__name__}",
            f"{', '.join(names[:3])} missing or unknown",
            "is it this network?",
        )
    plan: list[tuple[nn.Module, str, int]] = []
    for name, entry in about["layers"].items():
        module = modules[name]
        axes = [axis for axis in ("in", "out") if axis in entry and not (axis == "in" and depthwise(module))]
        sizes = {axis: width(module, axis) for axis in axes}
        groups = getattr(module, "groups", 1)
        same = entry.get("groups", 1) == (entry["out"] if depthwise(module) else groups)
        if entry["kind"] != type(module).__name__ or not same or any(entry[axis] > size for axis, size in sizes.items()):
            raise Error(f"{where}: {name}", f"{type(module).__name__} {sizes} or smaller", json.dumps(entry), "is it this network?")
        if groups > 1 and not depthwise(module) and any(entry[axis] % groups for axis in axes):
            raise Error(f"{where}: {name}", f"a multiple of {groups} channels", json.dumps(entry))
        plan += [(module, axis, entry[axis]) for axis in axes if entry[axis] < sizes[axis]]
    for layer, axis, size in plan:
        without(layer, axis, _last(layer, axis, size))


def _last(module: nn.Module, axis: str, size: int) -> np.ndarray:
    """The positions to take so that `size` stay: the last of each section."""
    full, parts = width(module, axis), 1 if depthwise(module) else getattr(module, "groups", 1)
    each, stay = full // parts, size // parts
    return np.concatenate([np.arange(s * each + stay, (s + 1) * each) for s in range(parts)])


def restore(model: nn.Module, path: str | Path) -> nn.Module:
    """Makes the model the one that `save` wrote to the file, in place, and returns it."""
    about = read(path)
    if about is None:
        raise Error(str(path), "a pruned network's description", "none", "it is a file of plain weights: load them as such")
    reshape(model, about, str(path))
    with safe_open(str(path), framework="pt") as file:
        state: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no mapping
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise Error(str(path), f"the tensors of {type(model).__name__}", str(error).replace("\n", " ")[:200]) from error
    return model
