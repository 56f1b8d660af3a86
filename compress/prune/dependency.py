"""torch-pruning's dependency graph of a network: which channels can only go together (Fang et al. 2023)."""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

import torch
from torch import nn

from cosparse.errors import UnsupportedError


def dependencies(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """torch-pruning's dependency graph of the model, all of whose parameters then require gradients: give it a copy."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # the dependencies are read off autograd's graph
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it takes for element-wise is checked by those who ask for groups
        try:
            return _graph().build_dependency(model, inputs, verbose=False)
        except Exception as error:  # it raises whatever its own arithmetic runs into
            about, got = type(model).__name__, f"{type(error).__name__}: {error}"
            raise UnsupportedError(about, "channels that torch-pruning can follow", got, "NNCS needs no groups") from error


def _graph() -> Any:
    """A dependency graph whose groups end their search where nothing new is found.

    The library's own goes on for every list of channels that it has not met at a module, in whatever order and with whatever repetitions;
    slices and concatenations that feed each other (CSP networks) make more of them than a day has time for. What it follows maps channel by
    channel, and a group is merged by channel in the end, so that a list without a channel that is new to the module adds nothing.
    """
    from torch_pruning.dependency import graph, group

    class Reached(group.Group):
        def __init__(self) -> None:
            super().__init__()
            self._reached: dict[tuple[int, Any], set[int]] = {}

        def add_dep(self, dep: Any, idxs: Any) -> None:
            super().add_dep(dep, idxs)
            self._channels(dep).update(index.idx for index in idxs)

        def has_pruning_op(self, dep: Any, idxs: Any) -> bool:
            return self._channels(dep).issuperset(index.idx for index in idxs)

        def _channels(self, dep: Any) -> set[int]:
            return self._reached.setdefault((id(dep.target), dep.handler), set())

    search = graph.DependencyGraph.get_pruning_group
    own = FunctionType(search.__code__, {**search.__globals__, "Group": Reached}, search.__name__, search.__defaults__, search.__closure__)
    return type("DependencyGraph", (graph.DependencyGraph,), {"get_pruning_group": own})()
