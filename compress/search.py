"""What every search over pruning rates works on: vectors repaired to one cost, scored once each, the answers kept in a file.

Nothing here knows networks: x in [0, upper]^n are rates, `widths(x)` the integers that they stand for, `cost(widths)` what those cost (the
lower the rates, the more), and `fitness(widths)` what is minimised. All candidates are repaired to the same cost, so that fitness alone
decides between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cosparse.atomic import replacing
from cosparse.compress.runners import Runner, Widths, serially
from cosparse.errors import Error

Array = np.ndarray
Progress = Callable[[int, float], None]
"""Hears after every round how many candidates were scored and the best fitness."""

HALVINGS = 26


@dataclass(frozen=True)
class Problem:
    """`upper` [n]: the largest rate of each group, in (0, 1]; `target`: the cost that no candidate exceeds and all come close to.

    `about`: plain data that tell this fitness from others; a search goes on only from a state of the same.
    """

    upper: Array
    widths: Callable[[Array], Widths]
    cost: Callable[[Widths], float]
    target: float
    fitness: Callable[[Widths], float]
    about: Mapping[str, Any] = field(default_factory=dict)

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

    def settings(self) -> dict[str, Any]:
        """By what the file of a search knows its problem again; JSON gives it back as it was."""
        ends = [float(self.cost(self.widths(rates))) for rates in (self.upper, np.zeros_like(self.upper))]
        return {"groups": len(self.upper), "target": float(self.target), "costs": ends, **self.about}

    def _shifted(self, x: Array, by: float) -> Array:
        return np.clip(x + by, 0.0, self.upper)


@dataclass
class Scorer:
    """Scores each vector of widths once: `known` is what this search has asked for, `evaluations` the number of it.

    With `path` every answer is kept in a file. `answers` are those of an earlier run, which are taken instead of scoring and counted as if
    they were scored: a search that depends on its seed and on answers alone runs again as it did, and then goes on.
    """

    problem: Problem
    runner: Runner = serially
    known: dict[Widths, float] = field(default_factory=dict)
    answers: dict[Widths, float] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)
    progress: Progress | None = None
    path: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:
        return len(self.known)

    def __call__(self, xs: Iterable[Array]) -> list[float]:
        """The fitness of each x, inf where it is not a number."""
        widths = [self.problem.widths(x) for x in xs]
        new = list(dict.fromkeys(w for w in widths if w not in self.known))
        unheard = [w for w in new if w not in self.answers]
        if unheard:
            values = self.runner(self.problem.fitness, unheard)
            self.answers.update((w, v if np.isfinite(v) else float("inf")) for w, v in zip(unheard, values, strict=True))
        self.known.update((w, self.answers[w]) for w in new)
        if unheard and self.path is not None:
            save_state(self.path, {**self.about, "known": listed(self.answers)})
        return [self.known[w] for w in widths]

    def affordable(self, xs: Array, evaluations: int | None) -> list[int]:
        """Places of the xs that `evaluations` in all allow to score, in their order: what is known costs nothing."""
        costing: dict[Widths, None] = {}
        places = []
        for place, widths in enumerate(map(self.problem.widths, xs)):
            if widths not in self.known and (evaluations is None or widths in costing or self.evaluations + len(costing) < evaluations):
                costing[widths] = None
            if widths in self.known or widths in costing:
                places.append(place)
        return places

    def round(self, fitness: float) -> None:
        """A round is over, and this the best that it has."""
        self.history.append(fitness)
        if self.progress is not None:
            self.progress(self.evaluations, fitness)

    def best(self) -> tuple[Widths, float]:
        """The best candidate so far; of equal ones the first in the order of their widths."""
        if not self.known:
            raise Error("search", "at least one evaluation", "none")
        return min(self.known.items(), key=lambda item: (item[1], item[0]))


def scorer(
    problem: Problem,
    kind: str,
    seed: int = 0,
    *,
    runner: Runner = serially,
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Scorer:
    """One that keeps its answers in `save_to` after every batch, and with `resume` begins with those that are there.

    Raises Error where the file is of another kind of search, another seed or another problem.
    """
    path = resumable(save_to, resume)
    settings = {"seed": seed, **problem.settings()}
    answers = {}
    if resume and path is not None and path.exists():
        answers = heard(path, load_state(path, kind, settings))
    return Scorer(problem, runner, answers=answers, progress=progress, path=path, about={"kind": kind, "settings": settings})


@dataclass(frozen=True)
class Found:
    """The best widths, their fitness, how many candidates were scored, and the best fitness after each round."""

    widths: Widths
    fitness: float
    evaluations: int
    history: tuple[float, ...]


def resumable(save_to: str | Path | None, resume: bool) -> Path | None:
    """The file of a search; one that is not there yet is begun, also with `resume`."""
    if resume and save_to is None:
        raise Error("resume", "save_to, the file to go on from", "none", "give the file that the search was saved to")
    return None if save_to is None else Path(save_to)


def listed(answers: dict[Widths, float]) -> list[Any]:
    """As JSON has it; `heard` reads it."""
    return [[list(widths), value] for widths, value in answers.items()]


def heard(path: Path, state: dict[str, Any]) -> dict[Widths, float]:
    """The answers in the state of a search; Error where they are damaged."""
    try:
        return {tuple(int(w) for w in widths): float(value) for widths, value in state["known"]}
    except (KeyError, TypeError, ValueError) as error:
        raise Error(str(path), "the answers of a search", repr(error), "search again without resume") from error


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
