"""Networks to compress, run and compare: `zoo.resnet56()`, or by name `zoo.build("resnet56", num_classes=10, seed=0)`.

Where torchvision has the network, the state-dict keys are torchvision's, so its weights load by key with `load_weights`.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cosparse.bench.zoo.layers import init_weights
from cosparse.bench.zoo.table import TABLE, Entry
from cosparse.compress.prune import architecture
from cosparse.compress.prune.statistics import reestimate
from cosparse.errors import Error

IMAGES, LARGEST = 4, 128
"""Random images, and their longest side, that the statistics of a network without trained weights are taken on."""

__all__ = ["build", "example", "load_weights", "names", "preprocessing", "settle"]


def names() -> list[str]:
    """The networks' names, in the table's order."""
    return list(TABLE)


def build(name: str, num_classes: int | None = None, seed: int = 0) -> nn.Module:
    """The network in eval mode with weights that depend on `seed` alone; the caller's random state is left as it was.

    Batch norms carry the statistics of random images, so that activations keep their magnitude from layer to layer. `num_classes` None
    takes the data set's own number. Raises Error for an unknown name.
    """
    entry = _entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = entry.make(entry.classes if num_classes is None else num_classes)
        init_weights(model)
    settle(model.eval(), name, seed)
    return model


def settle(model: nn.Module, name: str, seed: int = 0) -> None:
    """Gives the batch norms the statistics of random images, in place: what untrained weights, dense or masked, need to keep a signal."""
    size = [min(side, LARGEST) for side in _entry(name).size]
    reestimate(model, [torch.randn(IMAGES, 3, *size, generator=torch.Generator().manual_seed(seed))])


def example(name: str, batch: int = 1) -> Tensor:
    """An input [batch, 3, H, W] of the network's natural size: normal random numbers, the same at every call."""
    height, width = _entry(name).size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def preprocessing(name: str) -> dict[str, Any]:
    """How pixels 0..255 become the input: x = (pixel scale - mean) / std, at `size` [height, width]."""
    entry = _entry(name)
    return {"channels": "RGB", "scale": 1 / 255, "mean": list(entry.mean), "std": list(entry.std), "size": list(entry.size)}


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fills `model` from a safetensors file and returns it; one that filters were pruned from makes it as small as the file says.

    Keys and shapes must match exactly, save that either side may lack batch norm's `num_batches_tracked`, which inference never reads.
    Raises Error that lists the differences; the model is then unchanged.
    """
    about, shaped = architecture.read(path), model
    if about is not None:
        shaped = copy.deepcopy(model)
        architecture.reshape(shaped, about, str(path))
    got, want = load_file(str(path)), shaped.state_dict()
    counter = ".num_batches_tracked"
    missing = sorted(k for k in want.keys() - got.keys() if not f".{k}".endswith(counter))
    surplus = sorted(k for k in got.keys() - want.keys() if not f".{k}".endswith(counter))
    reshaped = sorted(
        f"{k} {list(got[k].shape)} for {list(want[k].shape)}" for k in want.keys() & got.keys() if got[k].shape != want[k].shape
    )
    differences = [
        f"{kind} {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for kind, keys in (("missing", missing), ("unexpected", surplus), ("wrong shape", reshaped))
        if keys
    ]
    if differences:
        raise Error(
            str(path),
            f"the {len(want)} tensors of {type(model).__name__}",
            "; ".join(differences),
            "check the network's name and num_classes",
        )
    if about is not None:
        architecture.reshape(model, about, str(path))
    model.load_state_dict(got, strict=False)
    return model


def _entry(name: str) -> Entry:
    if name not in TABLE:
        raise Error(f"zoo network {name!r}", f"one of {', '.join(TABLE)}", name)
    return TABLE[name]


def __getattr__(name: str) -> Any:
    if name in TABLE:
        return partial(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *TABLE])
