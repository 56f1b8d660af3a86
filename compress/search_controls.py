"""What the swarm has to beat, on the same problem and in the same form: equal rates, random search, greedy sensitivity, CMA-ES.

All that they know comes from the scorer's answers and the seed, so that with the answers of an interrupted search they end where a whole
one does (`search.Scorer`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosparse.compress.search import Array, Found, Problem, Scorer
from cosparse.errors import Error, UnsupportedError


def uniform(scorer: Scorer) -> Found:
    """Every group at the same share of its upper bound."""
    scorer([scorer.problem.repaired(scorer.problem.upper / 2)])
    return _found(scorer)


def random_search(scorer: Scorer, evaluations: int, *, seed: int = 0, batch: int = 20, starts: Sequence[Array] = ()) -> Found:
    """Uniform random rates, repaired, until so many different candidates have been scored; equal rates and the starts are the first.

    Where the problem has fewer candidates, it ends once a thousand draws in a row bring none.
    """
    if evaluations < 1 or batch < 1:
        raise Error("random search", "at least 1 evaluation, batches of at least 1", f"{evaluations}, {batch}")
    problem, rng = scorer.problem, np.random.default_rng(seed)
    xs, misses = _first(problem, starts)[:evaluations], 0
    while scorer.evaluations < evaluations and misses < 1000:
        before = scorer.evaluations
        scorer(xs)
        scorer.round(scorer.best()[1])
        misses = 0 if scorer.evaluations > before else misses + len(xs)
        count = min(batch, evaluations - scorer.evaluations)
        xs = [problem.repaired(rng.random(len(problem.upper)) * problem.upper) for _ in range(count)]
    return _found(scorer)


def greedy(scorer: Scorer, evaluations: int | None = None, *, step: float | None = None) -> Found:
    """From no pruning, again and again the group whose next `step` costs the least fitness for each unit of cost saved.

    A round tries all groups. Where `evaluations` do not suffice for another one, the rates reached are repaired, as all candidates are.
    `step`: a tenth by default, more where steps of a tenth would need more evaluations.
    """
    problem = scorer.problem
    if evaluations is not None and evaluations < 2:
        raise Error("greedy", "at least 2 evaluations", str(evaluations))
    if step is None:
        tries = len(problem.upper) * float(problem.repaired(problem.upper / 2).sum())
        step = 0.1 if evaluations is None else min(1.0, max(0.1, tries / evaluations))
    if not 0 < step <= 1:
        raise Error("greedy", "a step in (0, 1]", repr(step))
    x = np.zeros_like(problem.upper)
    now = scorer([x])[0]
    while problem.cost(problem.widths(x)) > problem.target:
        # A step that is too short to take a channel away would change nothing: such a group moves to its next width.
        tried = [(group, _raised(problem, x, group, step)) for group in range(len(x)) if x[group] < problem.upper[group]]
        if evaluations is not None and scorer.evaluations + len(tried) >= evaluations:
            break
        saved = [problem.cost(problem.widths(x)) - problem.cost(problem.widths(y)) for _, y in tried]
        scored = scorer([y for _, y in tried])
        rises = [value - now for value in scored]
        chosen = min(range(len(tried)), key=lambda i: (saved[i] <= 0, rises[i] / max(saved[i], 1e-12) if saved[i] > 0 else 0.0))
        x, now = tried[chosen][1], scored[chosen]
        scorer.round(now)
    best = problem.repaired(x)
    fitness = scorer([best])[0]
    scorer.round(fitness)
    return Found(problem.widths(best), fitness, scorer.evaluations, tuple(scorer.history))


def _raised(problem: Problem, x: Array, group: int, step: float) -> Array:
    raised, width = x.copy(), problem.widths(x)[group]
    while raised[group] < problem.upper[group] and problem.widths(raised)[group] == width:
        raised[group] = min(problem.upper[group], raised[group] + step)
    return raised


def cma_es(scorer: Scorer, evaluations: int, *, seed: int = 0, starts: Sequence[Array] = ()) -> Found:
    """CMA-ES of the package cma (Hansen), on repaired vectors, around the best of equal rates and starts, with a spread of a fifth."""
    try:
        import cma
    except ImportError as error:
        raise UnsupportedError("CMA-ES", "the package cma", "none installed", "pip install 'cosparse[filters]'") from error
    if evaluations < 1:
        raise Error("CMA-ES", "at least 1 evaluation", str(evaluations))
    problem, scale = scorer.problem, scorer.problem.upper
    first = _first(problem, starts)[:evaluations]
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "maxfevals": 20 * evaluations}
    strategy = cma.CMAEvolutionStrategy(first[int(np.argmin(scorer(first)))] / scale, 0.2, options)
    scorer.round(scorer.best()[1])
    while scorer.evaluations < evaluations and not strategy.stop():
        asked = strategy.ask()
        xs = [problem.repaired(np.asarray(x) * scale) for x in asked]
        if scorer.evaluations + len(xs) > evaluations:  # the last, of which the strategy need not hear
            scorer(xs[: evaluations - scorer.evaluations])
            scorer.round(scorer.best()[1])
            break
        strategy.tell(asked, scorer(xs))
        scorer.round(scorer.best()[1])
    return _found(scorer)


def _first(problem: Problem, starts: Sequence[Array]) -> list[Array]:
    if any(np.shape(start) != problem.upper.shape for start in starts):
        raise Error("starts", f"vectors of {len(problem.upper)} rates", f"{[np.shape(start) for start in starts]}")
    return [problem.repaired(x) for x in (problem.upper / 2, *starts)]


def _found(scorer: Scorer) -> Found:
    widths, fitness = scorer.best()
    return Found(widths, fitness, scorer.evaluations, tuple(scorer.history or [fitness]))
