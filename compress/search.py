"""What every search over pruning rates works on: vectors repaired to one cost, scored once each, in this process, in several, or on Ray.

Nothing here knows networks: x in [0, upper]^n are rates, `widths(x)` the integers that they stand for, `cost(widths)` what those cost (the
lower the rates, the more), and `fitness(widths)` what is minimised. All candidates are repaired to the same cost, so that fitness alone
decides between them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cosparse.compress.atomic import replacing
from cosparse.errors import Error, UnsupportedError

Array = np.ndarray
Widths = tuple[int, ...]
HALVINGS = 26


@dataclass(frozen=True)
class Problem:
    """`upper` [n]: the largest rate of each group, in (0, 1]; `target`: the cost that no candidate exceeds and all come close to."""

    upper: Array
    widths: Callable[[Array], Widths]
    cost: Callable[[Widths], float]
    target: float
    fitness: Callable[[Widths], float]

    def __post_init__(self) -> None:
        upper = np.asarray(self.upper, dtype=np.float64)
        if upper.ndim != 1 or not len(upper) or not ((upper > 0) & (upper <= 1)).all():
            raise Error("upper", "one rate in (0, 1] for each group", repr(self.upper))
        object.__setattr__(self, "upper", upper)
        least = self.cost(self.widths(upper))
        if least > self.target:
            raise Error("target", f"a cost of at least {least:g}, which all rates at their upper bound reach", f"{self.target:g}")

    def repaired(self, x: Array) -> Array:
        """x, clipped to the bounds, shifted by one scalar so that it just meets the target; bisection, as cost never rises with a rate."""
        x = np.clip(x, 0.0, self.upper)
        low, high = -float(self.upper.max()), float(self.upper.max())
        if self.cost(self.widths(self._shifted(x, low))) <= self.target:
            return self._shifted(x, low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            meets = self.cost(self.widths(self._shifted(x, middle))) <= self.target
            low, high = (low, middle) if meets else (middle, high)
        return self._shifted(x, high)

    def _shifted(self, x: Array, by: float) -> Array:
        return np.clip(x + by, 0.0, self.upper)


class Runner(Protocol):
    """Scores several candidates: the order of the answers is that of the candidates."""

    def __call__(self, fitness: Callable[[Widths], float], candidates: Sequence[Widths]) -> list[float]: ...


def serially(fitness: Callable[[Widths], float], candidates: Sequence[Widths]) -> list[float]:
    return [float(fitness(widths)) for widths in candidates]


@dataclass(frozen=True)
class Processes:
    """Scores in `workers` processes; the fitness must be importable there (a function of a module, or an object of such a class)."""

    workers: int

    def __call__(self, fitness: Callable[[Widths], float], candidates: Sequence[Widths]) -> list[float]:
        if self.workers < 1:
            raise Error("workers", "at least 1", str(self.workers))
        with ProcessPoolExecutor(self.workers) as pool:
            return [float(value) for value in pool.map(fitness, candidates)]


@dataclass(frozen=True)
class OnRay:
    """Scores on a Ray cluster, one task a candidate; `resources` as in ray.remote (num_cpus, num_gpus)."""

    resources: dict[str, float] = field(default_factory=lambda: {"num_cpus": 1})

    def __call__(self, fitness: Callable[[Widths], float], candidates: Sequence[Widths]) -> list[float]:
        try:
            import ray
        except ImportError as error:
            raise UnsupportedError("OnRay", "the package ray", "none installed", "pip install ray, or score in Processes") from error
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
        task = ray.remote(**self.resources)(fitness)
        return [float(value) for value in ray.get([task.remote(widths) for widths in candidates])]


@dataclass
class Scorer:
    """Scores each vector of widths once: `known` is the cache, `evaluations` counts what was really scored."""

    problem: Problem
    runner: Runner = serially
    known: dict[Widths, float] = field(default_factory=dict)
    evaluations: int = 0

    def __call__(self, xs: Iterable[Array]) -> list[float]:
        """The fitness of each x, inf where it is not a number."""
        widths = [self.problem.widths(x) for x in xs]
        new = list(dict.fromkeys(w for w in widths if w not in self.known))
        for w, value in zip(new, self.runner(self.problem.fitness, new), strict=True):
            self.known[w] = value if np.isfinite(value) else float("inf")
        self.evaluations += len(new)
        return [self.known[w] for w in widths]

    def best(self) -> tuple[Widths, float]:
        """The best candidate so far; of equal ones the first in the order of their widths."""
        if not self.known:
            raise Error("search", "at least one evaluation", "none")
        return min(self.known.items(), key=lambda item: (item[1], item[0]))


@dataclass(frozen=True)
class Found:
    """The best widths, their fitness, how many candidates were scored, and the best fitness after each round."""

    widths: Widths
    fitness: float
    evaluations: int
    history: tuple[float, ...]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes the state of a search as JSON, atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(state), encoding="utf-8")


def load_state(path: Path, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What `save_state` wrote; Error where it is damaged or of another search."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Error(str(path), "the state of a search", str(error), "search again without resume") from error
    if not isinstance(state, dict) or state.get("kind") != kind or state.get("settings") != settings:
        raise Error(str(path), f"the state of a {kind} with {settings}", "another search", "resume with its settings or start anew")
    return state
