"""All searches under their names, called alike: the swarm and what it has to beat, at one number of evaluations.

    SEARCHES["pso"](problem, 600, seed=0, runner=Processes(2), starts=[], save_to="search.json", resume=True) -> Found

`Search` says what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cosparse.compress.pso import Swarm, swarm
from cosparse.compress.search import Array, Found, Problem, Progress, Runner, Scorer, scorer, serially
from cosparse.compress.search_controls import cma_es, greedy, random_search, uniform
from cosparse.errors import Error

PARTICLES = 20
PATIENT = 10


class Search(Protocol):
    """At most `evaluations` candidates are scored. `starts`: rates that take part from the beginning. `save_to` is rewritten as the search
    goes; with `resume` it goes on from there, if the file is there, and ends where an uninterrupted one does."""

    def __call__(
        self,
        problem: Problem,
        evaluations: int,
        *,
        seed: int = 0,
        runner: Runner = serially,
        starts: Sequence[Array] = (),
        save_to: str | Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Found: ...


def pso(
    problem: Problem,
    evaluations: int,
    *,
    seed: int = 0,
    runner: Runner = serially,
    starts: Sequence[Array] = (),
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Found:
    """The swarm with 20 particles, or half the evaluations if those are fewer, moved until that many different candidates are scored: what
    comes again is not scored again, and costs nothing, as in the other searches. A swarm that finds nothing new ends after `PATIENT` times
    the rounds that it would need if all were new."""
    if evaluations < 4:
        raise Error("pso", "at least 4 evaluations: 2 particles that move once", str(evaluations), "more of them, or search='random'")
    particles = min(PARTICLES, evaluations // 2)
    rounds = PATIENT * -(-evaluations // particles)
    settings = Swarm(particles, rounds, evaluations, elites=1 if particles > 2 else 0, seed=seed)
    return swarm(problem, settings, starts=starts, runner=runner, save_to=save_to, resume=resume, progress=progress)


def _control(kind: str, run: Callable[[Scorer, int, int, Sequence[Array]], Found]) -> Search:
    def search(
        problem: Problem,
        evaluations: int,
        *,
        seed: int = 0,
        runner: Runner = serially,
        starts: Sequence[Array] = (),
        save_to: str | Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Found:
        scores = scorer(problem, kind, seed, runner=runner, save_to=save_to, resume=resume, progress=progress)
        return run(scores, evaluations, seed, starts)

    return search


def _none(kind: str, starts: Sequence[Array]) -> None:
    if len(starts):
        raise Error(kind, "no starts: it begins where it always does", f"{len(starts)}", "leave them out, or another search")


def _uniform(scores: Scorer, evaluations: int, seed: int, starts: Sequence[Array]) -> Found:
    _none("uniform", starts)
    return uniform(scores)


def _greedy(scores: Scorer, evaluations: int, seed: int, starts: Sequence[Array]) -> Found:
    _none("greedy", starts)
    return greedy(scores, evaluations)


SEARCHES: dict[str, Search] = {
    "pso": pso,
    "random": _control("random", lambda scores, evaluations, seed, starts: random_search(scores, evaluations, seed=seed, starts=starts)),
    "uniform": _control("uniform", _uniform),
    "greedy": _control("greedy", _greedy),
    "cma-es": _control("cma-es", lambda scores, evaluations, seed, starts: cma_es(scores, evaluations, seed=seed, starts=starts)),
}
"""Name -> search."""
