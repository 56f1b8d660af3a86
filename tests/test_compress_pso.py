"""The swarm on problems whose optimum is known: repair, determinism, caching, resume, settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cosparse.compress.pso import Swarm, swarm
from cosparse.compress.runners import Widths
from cosparse.compress.search import Problem, Scorer
from cosparse.errors import Error

CHANNELS = np.array([16, 32, 64, 24])
PRICE = np.array([9.0, 4.0, 1.0, 6.0])
BEST = np.array([4, 30, 20, 18])


def widths(x: np.ndarray) -> Widths:
    return tuple(int(w) for w in np.maximum(1, np.round(CHANNELS * (1 - x))))


def cost(w: Widths) -> float:
    return float(PRICE @ np.array(w))


def fitness(w: Widths) -> float:
    """Of a module, so that other processes find it."""
    return float((((np.array(w) - BEST) / CHANNELS) ** 2).sum())


def problem(target: float = 300.0) -> Problem:
    return Problem(np.full(4, 0.9), widths, cost, target, fitness)


def optimum(target: float) -> float:
    """By trying all widths."""
    least = np.round(CHANNELS * 0.1).astype(int)
    grid = np.meshgrid(*(np.arange(max(1, low), high + 1) for low, high in zip(least, CHANNELS, strict=True)), sparse=True)
    paid = sum(price * w for price, w in zip(PRICE, grid, strict=True))
    errors = sum(((w - best) / channels) ** 2 for w, best, channels in zip(grid, BEST, CHANNELS, strict=True))
    return float(errors[paid <= target].min())


@pytest.mark.parametrize("target", [120.0, 200.0, 300.0, 447.0])
def test_repair_meets_the_target_from_below_and_closely(target: float) -> None:
    rng = np.random.default_rng(0)
    for x in rng.uniform(-0.5, 1.5, size=(50, 4)):
        repaired = problem(target).repaired(x)
        assert (repaired >= 0).all()
        assert (repaired <= 0.9).all()
        paid = cost(widths(repaired))
        # One channel more somewhere would be too dear, unless all widths are at their largest.
        assert paid <= target
        assert paid > target - PRICE.sum() or widths(repaired) == tuple(CHANNELS)


@pytest.mark.parametrize("seed", range(20))
def test_repair_lands_within_one_width_step_below_the_target(seed: int) -> None:
    """Costs of layers in a row: a group's channels are paid for by the next one too, and groups differ a hundredfold."""
    rng = np.random.default_rng(seed)
    channels, price = np.array([13, 31, 61, 23, 7]), 10 ** rng.uniform(0, 2, size=5)

    def rounded(x: np.ndarray) -> Widths:
        return tuple(int(w) for w in np.maximum(1, np.round(channels * (1 - x))))

    def chained(w: Widths) -> float:
        return float(price @ (np.array(w) * np.array([3, *w[:-1]])))

    least, most = chained(rounded(np.full(5, 0.9))), chained(tuple(channels))
    there = Problem(np.full(5, 0.9), rounded, chained, least + rng.uniform(0.05, 0.95) * (most - least), lambda w: 0.0)
    x = there.repaired(rng.random(5))
    kept, wider = rounded(x), rounded(np.clip(x - 1e-6, 0, 0.9))
    assert chained(kept) <= there.target < chained(wider)
    assert np.abs(np.subtract(wider, kept)).sum() == 1


def test_repair_leaves_what_already_meets_the_target_alone() -> None:
    x = problem().repaired(np.array([0.5, 0.2, 0.4, 0.6]))
    np.testing.assert_allclose(problem().repaired(x), x, atol=1e-12)


def test_a_target_that_no_rates_reach_is_refused() -> None:
    with pytest.raises(Error, match=r"target: expected a cost of at least \d+, which all rates at their upper bound reach, got 20"):
        problem(20.0)
    with pytest.raises(Error, match=r"upper: expected one rate in \(0, 1\]"):
        Problem(np.array([0.5, 1.5]), widths, cost, 300.0, fitness)


@pytest.mark.parametrize("seed", range(3))
def test_swarm_finds_a_near_optimum(seed: int) -> None:
    found = swarm(problem(), Swarm(seed=seed))
    assert cost(found.widths) <= 300
    assert found.fitness == fitness(found.widths)
    rng = np.random.default_rng(seed)
    draws = [fitness(widths(problem().repaired(x))) for x in rng.random((found.evaluations, 4)) * 0.9]
    assert found.fitness <= min(draws)
    assert found.fitness <= optimum(300.0) + 0.005  # a channel or two from the best place
    assert list(found.history) == sorted(found.history, reverse=True)


def test_same_seed_same_search_and_every_candidate_is_scored_once() -> None:
    seen: list[Widths] = []

    def counted(w: Widths) -> float:
        seen.append(w)
        return fitness(w)

    one = swarm(Problem(np.full(4, 0.9), widths, cost, 300.0, counted), Swarm(rounds=8, seed=5))
    assert len(seen) == len(set(seen)) == one.evaluations
    assert swarm(problem(), Swarm(rounds=8, seed=5)) == one
    assert swarm(problem(), Swarm(rounds=8, seed=6)) != one


def test_resumed_search_ends_where_the_whole_one_does(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    whole = swarm(problem(), Swarm(rounds=10))

    left = [4]

    def stop(scored: int, best: float) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swarm(problem(), Swarm(rounds=10), save_to=path, progress=stop)
    assert swarm(problem(), Swarm(rounds=10), save_to=path, resume=True) == whole
    with pytest.raises(Error, match="expected the state of a swarm with"):
        swarm(problem(), Swarm(rounds=10, seed=1), save_to=path, resume=True)
    path.write_text(json.dumps([]))
    with pytest.raises(Error, match="resume with its settings or start anew"):
        swarm(problem(), Swarm(), save_to=path, resume=True)
    path.write_text("{")
    with pytest.raises(Error, match="search again without resume"):
        swarm(problem(), Swarm(), save_to=path, resume=True)
    with pytest.raises(Error, match="resume: expected save_to, the file to go on from, got none"):
        swarm(problem(), Swarm(), resume=True)


def test_the_state_of_another_problem_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    found = swarm(problem(), Swarm(rounds=2), save_to=path)
    assert swarm(problem(), Swarm(rounds=2), save_to=path, resume=True) == found
    dearer = Problem(np.full(4, 0.9), widths, lambda w: 1.01 * cost(w), 300.0, fitness)
    for other in (problem(301.0), dearer):
        with pytest.raises(Error, match="got another search"):
            swarm(other, Swarm(rounds=2), save_to=path, resume=True)
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "known": [[1, 2]]}))
    with pytest.raises(Error, match="expected the answers of a search"):
        swarm(problem(), Swarm(rounds=2), save_to=path, resume=True)


@pytest.mark.parametrize("evaluations", [1, 19, 20, 21, 97])
def test_evaluations_are_spent_to_the_last_and_not_exceeded(evaluations: int, tmp_path: Path) -> None:
    settings = Swarm(rounds=200, evaluations=evaluations)
    heard: list[int] = []
    found = swarm(problem(), settings, save_to=tmp_path / "swarm.json", progress=lambda scored, best: heard.append(scored))
    assert found.evaluations == evaluations
    assert heard == sorted(heard)
    assert heard[-1] == evaluations if heard else evaluations <= settings.particles
    assert swarm(problem(), settings, save_to=tmp_path / "swarm.json", resume=True) == found


def test_a_swarm_with_nothing_new_to_find_ends() -> None:
    one = Problem(np.full(2, 0.5), lambda x: (1, 1), lambda widths: 1.0, 1.0, lambda widths: 0.0)
    assert swarm(one, Swarm(rounds=7, evaluations=50)).evaluations == 1


def test_starts_take_part_and_patience_ends_the_search() -> None:
    perfect = problem().repaired(1 - BEST / CHANNELS)
    found = swarm(problem(), Swarm(particles=4, rounds=50, patience=3), starts=[perfect])
    assert found.fitness <= fitness(widths(perfect))
    assert len(found.history) < 51
    with pytest.raises(Error, match="starts: expected fewer than 4 vectors of 4 rates"):
        swarm(problem(), Swarm(particles=4), starts=[np.zeros(3)])


def test_a_fitness_that_is_no_number_never_wins() -> None:
    odd = Problem(np.full(4, 0.9), widths, cost, 300.0, lambda w: float("nan") if w[0] % 2 else fitness(w))
    found = swarm(odd, Swarm(particles=8, rounds=5))
    assert np.isfinite(found.fitness)
    assert found.widths[0] % 2 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 1}, "swarm: expected at least 2 particles"),
        ({"elites": 10}, "fewer elites than half"),
        ({"speed": 0.0}, r"swarm: expected speed in \(0, 1\]"),
        ({"own": -1.0}, "no negative weights"),
    ],
)
def test_settings_are_checked(options: dict, message: str) -> None:
    with pytest.raises(Error, match=message):
        Swarm(**options)


def test_nothing_scored_has_no_best() -> None:
    with pytest.raises(Error, match="search: expected at least one evaluation"):
        Scorer(problem()).best()
