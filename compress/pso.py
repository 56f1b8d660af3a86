"""Particle swarm optimisation over pruning rates (Kennedy and Eberhart 1995, inertia weight after Shi and Eberhart 1998).

    v <- w v + c1 u1 (p - x) + c2 u2 (g - x),   x <- repaired(x + v)         u1, u2 uniform in [0, 1), for every group anew

p is the best place a particle has seen, g the best of all. After every move the particle is repaired to the cost target, and its velocity
becomes what it really moved. Particle 0 starts at equal rates, the given starts follow, the rest are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosparse.compress.search import Array, Found, Problem, Runner, Scorer, heard, listed, load_state, resumable, save_state, serially
from cosparse.errors import Error


@dataclass(frozen=True)
class Swarm:
    """Settings. `inertia`: from the first round to the last. `speed`: largest |v| as a share of the upper bound. `elites`: so many of the
    best particles are copied, with a small random step, over the worst in every round. `patience`: rounds without a better fitness after
    which the search ends, None for never. `evaluations`: different candidates to score; the swarm then moves on until they are spent, which
    `inertia` follows, and `rounds` is no more than a bound, as a swarm that has gathered in one place would move for ever."""

    particles: int = 20
    rounds: int = 30
    evaluations: int | None = None
    inertia: tuple[float, float] = (0.9, 0.4)
    own: float = 1.5
    social: float = 1.5
    speed: float = 0.2
    elites: int = 1
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.particles < 2 or self.rounds < 1 or not 0 <= self.elites < self.particles / 2:
            got = f"{self.particles} particles, {self.rounds} rounds, {self.elites} elites"
            raise Error("swarm", "at least 2 particles, 1 round, fewer elites than half of the particles", got)
        if self.evaluations is not None and self.evaluations < 1:
            raise Error("swarm.evaluations", "at least 1, or None for no bound", repr(self.evaluations))
        if not 0 < self.speed <= 1 or min(*self.inertia, self.own, self.social) < 0:
            raise Error(
                "swarm", "speed in (0, 1], no negative weights", f"speed {self.speed}, inertia {self.inertia}, {self.own}, {self.social}"
            )


@dataclass
class _Flock:
    """Where all particles are: [particles, n] each, and [particles] the best fitness that each has seen."""

    x: Array
    v: Array
    best_x: Array
    best: Array
    rounds: int
    history: list[float]
    rng: np.random.Generator


def swarm(
    problem: Problem,
    settings: Swarm | None = None,
    *,
    starts: Sequence[Array] = (),
    runner: Runner = serially,
    save_to: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Found:
    """Minimises the problem's fitness. `save_to` is rewritten after every round; with `resume` the search goes on from it and ends where an
    uninterrupted one does. `progress` hears after every round how many candidates were scored, and the best fitness."""
    settings = settings or Swarm()
    path = resumable(save_to, resume)
    scorer = Scorer(problem, runner)
    if resume and path is not None and path.exists():
        flock = _restored(path, settings, scorer)
    else:
        flock = _hatched(problem, settings, starts, scorer)
        _keep(path, flock, settings, scorer)
    while _spent(flock, settings, scorer) < 1 and not _stalled(flock.history, settings.patience):
        _move(flock, problem, settings, _spent(flock, settings, scorer))
        _judge(flock, scorer, settings.evaluations)
        flock.history.append(float(flock.best.min()))
        flock.rounds += 1
        _keep(path, flock, settings, scorer)
        if progress:
            progress(scorer.evaluations, flock.history[-1])
    widths, fitness = scorer.best()
    return Found(widths, fitness, scorer.evaluations, tuple(flock.history))


def _hatched(problem: Problem, settings: Swarm, starts: Sequence[Array], scorer: Scorer) -> _Flock:
    rng = np.random.default_rng(settings.seed)
    n = len(problem.upper)
    if any(np.shape(start) != (n,) for start in starts) or len(starts) >= settings.particles:
        raise Error("starts", f"fewer than {settings.particles} vectors of {n} rates", f"{[np.shape(start) for start in starts]}")
    x = rng.random((settings.particles, n)) * problem.upper
    x[0] = problem.upper / 2
    for place, start in enumerate(starts, 1):
        x[place] = np.clip(start, 0, problem.upper)
    x = np.stack([problem.repaired(row) for row in x])
    v = rng.uniform(-1, 1, x.shape) * settings.speed * problem.upper
    flock = _Flock(x, v, x.copy(), np.full(len(x), np.inf), 0, [], rng)
    _judge(flock, scorer, settings.evaluations)
    flock.history.append(float(flock.best.min()))
    return flock


def _spent(flock: _Flock, settings: Swarm, scorer: Scorer) -> float:
    """How much of the search is over, from 0 to 1."""
    rounds = flock.rounds / settings.rounds
    return rounds if settings.evaluations is None else max(scorer.evaluations / settings.evaluations, float(rounds >= 1))


def _move(flock: _Flock, problem: Problem, settings: Swarm, share: float) -> None:
    inertia = settings.inertia[0] + (settings.inertia[1] - settings.inertia[0]) * share
    leader = flock.best_x[int(flock.best.argmin())]
    own, social = flock.rng.random((2, *flock.x.shape))
    v = inertia * flock.v + settings.own * own * (flock.best_x - flock.x) + settings.social * social * (leader - flock.x)
    bound = settings.speed * problem.upper
    target = flock.x + np.clip(v, -bound, bound)
    if settings.elites:
        order = np.argsort(flock.best, kind="stable")
        step = flock.rng.normal(0, 0.1, (settings.elites, flock.x.shape[1])) * bound
        target[order[-settings.elites :]] = flock.best_x[order[: settings.elites]] + step
    moved = np.stack([problem.repaired(np.clip(row, 0, problem.upper)) for row in target])
    flock.v, flock.x = np.clip(moved - flock.x, -bound, bound), moved


def _judge(flock: _Flock, scorer: Scorer, evaluations: int | None) -> None:
    """What each particle finds where it is; those for which no evaluation is left find nothing."""
    fitness = np.full(len(flock.x), np.inf)
    judged = scorer.affordable(flock.x, evaluations)
    fitness[judged] = scorer(flock.x[judged])
    better = fitness < flock.best
    flock.best[better] = fitness[better]
    flock.best_x[better] = flock.x[better]


def _stalled(history: Sequence[float], patience: int | None) -> bool:
    return patience is not None and len(history) > patience and min(history[-patience:]) >= min(history[:-patience])


def _keep(path: Path | None, flock: _Flock, settings: Swarm, scorer: Scorer) -> None:
    if path is None:
        return
    arrays = {name: getattr(flock, name).tolist() for name in ("x", "v", "best_x", "best")}
    about = {"kind": "swarm", "settings": _plain(settings, scorer.problem), "rng": flock.rng.bit_generator.state}
    save_state(path, {**about, **arrays, "known": listed(scorer.known), "rounds": flock.rounds, "history": flock.history})


def _plain(settings: Swarm, problem: Problem) -> dict[str, Any]:
    """The settings as JSON gives them back; rounds and evaluations may be raised on resume."""
    plain = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(settings).items()
        if key not in ("rounds", "evaluations")
    }
    return {**plain, **problem.settings()}


def _restored(path: Path, settings: Swarm, scorer: Scorer) -> _Flock:
    state = load_state(path, "swarm", _plain(settings, scorer.problem))
    scorer.known = heard(path, state)
    rng = np.random.default_rng()
    rng.bit_generator.state = state["rng"]
    x, v, best_x, best = (np.array(state[name], dtype=np.float64) for name in ("x", "v", "best_x", "best"))
    return _Flock(x, v, best_x, best, state["rounds"], state["history"], rng)
