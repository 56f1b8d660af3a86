"""What the swarm has to beat, on the same problem and in the same form: equal rates, random search, greedy sensitivity, CMA-ES."""

from __future__ import annotations

import numpy as np

from cosparse.compress.search import Found, Problem, Runner, Scorer, serially
from cosparse.errors import Error, UnsupportedError


def uniform(problem: Problem, *, runner: Runner = serially) -> Found:
    """Every group at the same share of its upper bound."""
    scorer = Scorer(problem, runner)
    scorer([problem.repaired(problem.upper / 2)])
    return _found(scorer, [])


def random_search(problem: Problem, evaluations: int, *, seed: int = 0, batch: int = 20, runner: Runner = serially) -> Found:
    """Uniform random rates, repaired, until so many different candidates have been scored; equal rates are the first.

    Where the problem has fewer candidates, it ends once a thousand draws in a row bring none.
    """
    if evaluations < 1 or batch < 1:
        raise Error("random search", "at least 1 evaluation, batches of at least 1", f"{evaluations}, {batch}")
    scorer, rng = Scorer(problem, runner), np.random.default_rng(seed)
    history: list[float] = []
    xs, misses = [problem.repaired(problem.upper / 2)], 0
    while scorer.evaluations < evaluations and misses < 1000:
        before = scorer.evaluations
        scorer(xs)
        history.append(scorer.best()[1])
        misses = 0 if scorer.evaluations > before else misses + len(xs)
        count = min(batch, evaluations - scorer.evaluations)
        xs = [problem.repaired(rng.random(len(problem.upper)) * problem.upper) for _ in range(count)]
    return _found(scorer, history)


def greedy(problem: Problem, *, step: float = 0.1, runner: Runner = serially) -> Found:
    """From no pruning, again and again the group whose next `step` costs the least fitness for each unit of cost saved."""
    if not 0 < step <= 1:
        raise Error("greedy", "a step in (0, 1]", repr(step))
    scorer, x, history = Scorer(problem, runner), np.zeros_like(problem.upper), []
    now = scorer([x])[0]
    while problem.cost(problem.widths(x)) > problem.target:
        # A step that is too short to take a channel away would change nothing: such a group moves to its next width.
        tried = [(group, _raised(problem, x, group, step)) for group in range(len(x)) if x[group] < problem.upper[group]]
        saved = [problem.cost(problem.widths(x)) - problem.cost(problem.widths(y)) for _, y in tried]
        rises = [value - now for value in scorer([y for _, y in tried])]
        chosen = min(range(len(tried)), key=lambda i: (saved[i] <= 0, rises[i] / max(saved[i], 1e-12) if saved[i] > 0 else 0.0))
        x, now = tried[chosen][1], now + rises[chosen]
        history.append(now)
    best = problem.repaired(x)
    fitness = scorer([best])[0]
    return Found(problem.widths(best), fitness, scorer.evaluations, tuple(history))


def _raised(problem: Problem, x: np.ndarray, group: int, step: float) -> np.ndarray:
    raised, width = x.copy(), problem.widths(x)[group]
    while raised[group] < problem.upper[group] and problem.widths(raised)[group] == width:
        raised[group] = min(problem.upper[group], raised[group] + step)
    return raised


def cma_es(problem: Problem, evaluations: int, *, seed: int = 0, runner: Runner = serially) -> Found:
    """CMA-ES of the package cma (Hansen), on the same repaired vectors, from equal rates with a spread of a fifth."""
    try:
        import cma
    except ImportError as error:
        raise UnsupportedError("CMA-ES", "the package cma", "none installed", "pip install 'cosparse[filters]'") from error
    if evaluations < 1:
        raise Error("CMA-ES", "at least 1 evaluation", str(evaluations))
    scorer, history = Scorer(problem, runner), []
    scale = problem.upper
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "maxfevals": 20 * evaluations}
    strategy = cma.CMAEvolutionStrategy(problem.repaired(scale / 2) / scale, 0.2, options)
    while scorer.evaluations < evaluations and not strategy.stop():
        asked = strategy.ask()
        strategy.tell(asked, scorer([problem.repaired(np.asarray(x) * scale) for x in asked]))
        history.append(scorer.best()[1])
    return _found(scorer, history)


def _found(scorer: Scorer, history: list[float]) -> Found:
    widths, fitness = scorer.best()
    return Found(widths, fitness, scorer.evaluations, tuple(history or [fitness]))
