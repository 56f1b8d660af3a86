"""Whether an imported graph gives what the model gives, at sizes that are not the example's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cosparse.compress import given
from cosparse.compress.importer.guards import Way
from cosparse.compress.importer.ranges import Sizes
from cosparse.compress.importer.shapes import shapes_at
from cosparse.engine.graph import Graph
from cosparse.errors import Error
from cosparse.kernels import reference

SAME, NEITHER, REFUSED, OTHER = "same", "neither", "refused", "other"
"""Outcomes: equal outputs; the graph refuses sizes that the model refuses, or makes nothing of; the model alone refuses; all else."""

CLOSE = 1e-3  # of the largest value: another way through the code gives another shape or differs by far more
PIXELS = 17_000  # of an input, that are always worth a trial: twice the sides of a 64x64 image
LARGER = 1.3  # than the example, in pixels: what a trial may cost where that is more


class Trial:
    """Runs model and graph on normal random inputs, each combination of sizes once."""

    def __init__(self, graph: Graph, way: Way, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.graph, self.way, self.model, self.inputs = graph, way, model, inputs
        self._outcomes: dict[tuple[tuple[int, ...], ...], tuple[Sizes, str]] = {}
        self._most = max(PIXELS, LARGER * max(math.prod(x.shape[2:]) for x in inputs))

    def most(self, symbol: object) -> int:
        """The greatest size of a symbol with which others may grow alike."""
        grown = self._most / max(1, *(math.prod(x.shape[2:]) for x in self.inputs))
        return int(self.way.example[symbol] * grown**0.5)

    def __call__(self, sizes: Sizes, batch: int = 1) -> str | None:
        """The outcome at these sizes, those that are not named as in the example; None where it would take too long."""
        at = {**self.way.example, **sizes}
        shapes = shapes_at(self.way, batch, at)
        if max(math.prod(shape[2:]) for shape in shapes) > self._most:
            return None
        key = tuple(map(tuple, shapes))
        if key not in self._outcomes:
            self._outcomes[key] = at, self.run(shapes)
        return self._outcomes[key][1]

    def seen(self) -> Iterator[tuple[Sizes, str]]:
        """The sizes of all trials, and their outcomes."""
        yield from self._outcomes.values()

    def run(self, shapes: Sequence[Sequence[int]]) -> str:
        random = [torch.randn(tuple(s), generator=torch.Generator().manual_seed(i)) for i, s in enumerate(shapes)]
        inputs = [x.to(like) for x, like in zip(random, self.inputs, strict=True)]
        wanted = _outputs(self.model, inputs, given.outputs)
        try:
            got = list(reference.run(self.graph, *(x.float().cpu().numpy() for x in inputs)))
        except (ValueError, IndexError, ZeroDivisionError):
            return NEITHER if wanted is None or any(not y.size for y in wanted) else OTHER
        if wanted is None:
            return REFUSED
        if _close(got, wanted):
            return SAME
        if [y.shape for y in got] != [y.shape for y in wanted]:
            return OTHER
        # As in verify.py: float32's own rounding, in a deep network, may part them.
        exact = _outputs(self.model, inputs, given.exact_outputs)
        return SAME if exact is not None and _close(got, exact) else OTHER


Outputs = Callable[[nn.Module, tuple[Tensor, ...]], list[np.ndarray] | None]


def _outputs(model: nn.Module, inputs: list[Tensor], run: Outputs) -> list[np.ndarray] | None:
    """What the model gives; None where it does not take the inputs."""
    try:
        with given.evaluating(model):
            return run(model, tuple(inputs))
    except Error:
        return None


def _close(got: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    if [y.shape for y in got] != [y.shape for y in wanted]:
        return False
    for y, z in zip(got, wanted, strict=True):
        finite = np.isfinite(z)
        if not (np.isfinite(y) == finite).all():
            return False
        if not np.abs(y - z).max(initial=0.0, where=finite) <= CLOSE * np.abs(z).max(initial=0.0, where=finite):
            return False
    return True
