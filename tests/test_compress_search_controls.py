"""The controls solve the swarm's own problem, within its target, and each for the reason it is there."""

from __future__ import annotations

import numpy as np
import pytest

from cosparse.compress.search import Problem, Scorer
from cosparse.compress.search_controls import cma_es, greedy, random_search, uniform
from cosparse.errors import Error
from tests.test_compress_pso import BEST, CHANNELS, cost, fitness, optimum, problem, widths


def scorer() -> Scorer:
    return Scorer(problem())


def test_uniform_is_one_candidate() -> None:
    found = uniform(scorer())
    assert found.evaluations == 1
    assert cost(found.widths) <= 300
    shares = np.array(found.widths) / [16, 32, 64, 24]
    assert np.ptp(shares) < 0.06  # equal up to rounding to whole channels


@pytest.mark.parametrize("evaluations", [1, 7, 60])
def test_random_search_scores_as_many_as_it_may(evaluations: int) -> None:
    found = random_search(scorer(), evaluations, seed=1)
    assert found.evaluations == evaluations
    assert cost(found.widths) <= 300
    assert found.fitness <= uniform(scorer()).fitness
    assert random_search(scorer(), evaluations, seed=1) == found


def test_random_search_ends_where_there_are_few_candidates() -> None:
    small = Problem(np.array([0.5]), lambda x: (2 - int(x[0] > 0.25),), lambda w: float(w[0]), 2.0, lambda w: float(w[0]))
    assert random_search(Scorer(small), 50).evaluations <= 2


def test_greedy_leaves_what_matters_alone() -> None:
    """One group matters a thousand times more than the other and costs the same: it is not pruned."""
    two = Problem(
        np.array([0.9, 0.9]),
        lambda x: tuple(int(w) for w in np.round(20 * (1 - x))),
        lambda w: float(sum(w)),
        25.0,
        lambda w: 1000.0 * (20 - w[0]) + (20 - w[1]),
    )
    found = greedy(Scorer(two))
    assert found.widths == (20, 5)
    with pytest.raises(Error, match="greedy: expected a step"):
        greedy(Scorer(two), step=0.0)


@pytest.mark.parametrize("evaluations", [2, 5, 17, 60])
def test_greedy_keeps_to_its_evaluations(evaluations: int) -> None:
    found = greedy(scorer(), evaluations)
    assert found.evaluations <= evaluations
    assert cost(found.widths) <= 300
    assert found.fitness == fitness(found.widths)
    with pytest.raises(Error, match="greedy: expected at least 2 evaluations, got 1"):
        greedy(scorer(), 1)


def test_starts_take_part() -> None:
    pytest.importorskip("cma")
    perfect = 1 - BEST / CHANNELS
    best = fitness(widths(problem().repaired(perfect)))
    assert uniform(scorer()).fitness > 2 * best
    for search in (random_search, cma_es):
        found = search(scorer(), 2, starts=[perfect])
        assert (found.fitness, found.evaluations) == (best, 2)
        with pytest.raises(Error, match=r"starts: expected vectors of 4 rates, got \[\(3,\)\]"):
            search(scorer(), 10, starts=[perfect[:3]])


def test_cma_es_finds_a_near_optimum() -> None:
    pytest.importorskip("cma")
    found = cma_es(scorer(), 200, seed=2)
    assert cost(found.widths) <= 300
    assert found.evaluations <= 200
    assert found.fitness == fitness(found.widths) <= optimum(300.0) + 0.02
    assert cma_es(scorer(), 200, seed=2) == found
    assert widths(np.zeros(4)) == (16, 32, 64, 24)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(Error, match="random search: expected at least 1 evaluation"):
        random_search(scorer(), 0)
    pytest.importorskip("cma")
    with pytest.raises(Error, match="CMA-ES: expected at least 1 evaluation"):
        cma_es(scorer(), 0)
