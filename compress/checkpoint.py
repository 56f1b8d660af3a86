"""Training state in one safetensors file: tensors by kind, everything else as JSON in the metadata. Written atomically, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cosparse.atomic import replacing
from cosparse.errors import Error

KEY = "cosparse.training"


def save(path: str | Path, groups: Mapping[str, Mapping[str, torch.Tensor]], notes: Mapping[str, Any]) -> None:
    """Writes every tensor as GROUP/NAME with the notes; an interrupted call leaves the old file whole."""
    path = Path(path)
    tensors = {f"{group}/{name}": t.detach().cpu().contiguous().clone() for group, members in groups.items() for name, t in members.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(tensors, part, metadata={KEY: json.dumps(dict(notes))})


def load(path: str | Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """(tensors by group and name, notes) of a file that `save` wrote; raises Error where it is none."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            for full in file.keys():  # noqa: SIM118  safe_open is no mapping
                group, _, name = full.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(full)
    except (SafetensorError, OSError) as error:
        raise Error(str(path), "a checkpoint", str(error), "train again without resume") from error
    if KEY not in metadata:
        raise Error(str(path), "a checkpoint of a training run", "a safetensors file without one", "train again without resume")
    return groups, json.loads(metadata[KEY])
