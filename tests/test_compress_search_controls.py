"""The controls solve the swarm's own problem, within its target, and each for the reason it is there."""

from __future__ import annotations

import numpy as np
import pytest

from cosparse.compress import search_controls
from cosparse.compress.search import Problem
from cosparse.errors import Error
from tests.test_compress_pso import cost, fitness, optimum, problem, widths


def test_uniform_is_one_candidate() -> None:
    found = search_controls.uniform(problem())
    assert found.evaluations == 1
    assert cost(found.widths) <= 300
    shares = np.array(found.widths) / [16, 32, 64, 24]
    assert np.ptp(shares) < 0.06  # equal up to rounding to whole channels


@pytest.mark.parametrize("evaluations", [1, 7, 60])
def test_random_search_scores_as_many_as_it_may(evaluations: int) -> None:
    found = search_controls.random_search(problem(), evaluations, seed=1)
    assert found.evaluations == evaluations
    assert cost(found.widths) <= 300
    assert found.fitness <= search_controls.uniform(problem()).fitness
    assert search_controls.random_search(problem(), evaluations, seed=1) == found


def test_random_search_ends_where_there_are_few_candidates() -> None:
    small = Problem(np.array([0.5]), lambda x: (2 - int(x[0] > 0.25),), lambda w: float(w[0]), 2.0, lambda w: float(w[0]))
    assert search_controls.random_search(small, 50).evaluations <= 2


def test_greedy_leaves_what_matters_alone() -> None:
    """One group matters a thousand times more than the other and costs the same: it is not pruned."""
    two = Problem(
        np.array([0.9, 0.9]),
        lambda x: tuple(int(w) for w in np.round(20 * (1 - x))),
        lambda w: float(sum(w)),
        25.0,
        lambda w: 1000.0 * (20 - w[0]) + (20 - w[1]),
    )
    found = search_controls.greedy(two)
    assert found.widths == (20, 5)
    with pytest.raises(Error, match="greedy: expected a step"):
        search_controls.greedy(two, step=0.0)


def test_cma_es_finds_a_near_optimum() -> None:
    pytest.importorskip("cma")
    found = search_controls.cma_es(problem(), 200, seed=2)
    assert cost(found.widths) <= 300
    assert found.fitness == fitness(found.widths) <= optimum(300.0) + 0.02
    assert search_controls.cma_es(problem(), 200, seed=2) == found
    assert widths(np.zeros(4)) == (16, 32, 64, 24)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(Error, match="random search: expected at least 1 evaluation"):
        search_controls.random_search(problem(), 0)
    pytest.importorskip("cma")
    with pytest.raises(Error, match="CMA-ES: expected at least 1 evaluation"):
        search_controls.cma_es(problem(), 0)
