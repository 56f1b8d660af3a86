"""Whether a model can be imported, found out once: who asks again before hours of training holds the same model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cosparse.compress import given
from cosparse.compress.importer.walk import from_torch

_passed: WeakKeyDictionary[nn.Module, tuple[Any, ...]] = WeakKeyDictionary()
"""The models that have passed, and what they were made of then."""


def require_importable(model: nn.Module, example: Tensor | Sequence[Tensor], name: str = "") -> None:
    """Raises what `from_torch` raises. A model that has passed is imported again only where its layers or the inputs are others.

    What else decides, values that the model's own code asks for, is seen at the export at the latest.
    """
    model = given.taken(model)
    inputs = tuple(example) if isinstance(example, list | tuple) else (example,)
    if _passed.get(model) != _made(model, inputs):
        from_torch(model, inputs, name)
        remember(model, inputs)


def remember(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """The model has just been imported."""
    _passed[model] = _made(model, inputs)


def _made(model: nn.Module, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """All that the layers say of themselves, and the shapes of what they hold; no values."""
    layers = [(name, type(module), module.extra_repr()) for name, module in model.named_modules()]
    tensors = [(name, *_form(tensor)) for name, tensor in (*model.named_parameters(), *model.named_buffers())]
    return [*map(_form, inputs)], layers, tensors


def _form(x: Any) -> tuple[Any, ...]:
    return (x.shape, x.dtype, x.is_meta) if isinstance(x, Tensor) else (type(x),)
