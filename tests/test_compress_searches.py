"""All searches by name: at most so many evaluations, the same again, resumed where they were interrupted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cosparse.compress.runners import Widths, serially
from cosparse.compress.search import Problem
from cosparse.compress.searches import SEARCHES
from cosparse.errors import Error
from tests.test_compress_pso import BEST, CHANNELS, cost, fitness, problem, widths

NAMES = ["pso", "random", "uniform", "greedy", "cma-es"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "cma-es":
        pytest.importorskip("cma")
    return request.param


def counted(scored: list[Widths]) -> Problem:
    def counting(w: Widths) -> float:
        scored.append(w)
        return fitness(w)

    return Problem(np.full(4, 0.9), widths, cost, 300.0, counting)


def test_the_table_has_all_searches() -> None:
    assert list(SEARCHES) == NAMES


@pytest.mark.parametrize("evaluations", [4, 5, 23, 70])
def test_evaluations_are_a_bound(name: str, evaluations: int) -> None:
    scored: list[Widths] = []
    told: list[tuple[int, float]] = []
    found = SEARCHES[name](counted(scored), evaluations, seed=1, progress=lambda count, best: told.append((count, best)))
    assert len(scored) == len(set(scored)) == found.evaluations <= evaluations
    assert cost(found.widths) <= 300
    assert found.fitness == fitness(found.widths)
    assert SEARCHES[name](problem(), evaluations, seed=1) == found
    counts = [count for count, _ in told]
    assert counts == sorted(counts)
    if name != "uniform":
        assert found.evaluations <= counts[-1] <= evaluations
        assert told[-1][1] == found.history[-1]


def test_an_interrupted_search_ends_where_a_whole_one_does(name: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    whole = SEARCHES[name](problem(), 70, seed=3)
    scored: list[Widths] = []
    batches = 0

    def interrupted(score: object, candidates: Sequence[Widths]) -> list[float]:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise KeyboardInterrupt
        return serially(counted(scored).fitness, candidates)

    if name != "uniform":
        with pytest.raises(KeyboardInterrupt):
            SEARCHES[name](problem(), 70, seed=3, runner=interrupted, save_to=path)
        assert path.exists()
    resumed = {"seed": 3, "save_to": path, "resume": True}
    assert SEARCHES[name](counted(scored), 70, **resumed) == whole
    assert len(scored) == len(set(scored)) == whole.evaluations
    assert SEARCHES[name](counted(scored), 70, **resumed) == whole
    assert len(scored) == whole.evaluations


def test_the_file_of_another_search_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    SEARCHES[name](problem(), 20, seed=3, save_to=path)
    with pytest.raises(Error, match="got another search; resume with its settings"):
        SEARCHES[name](problem(), 20, seed=4, save_to=path, resume=True)
    with pytest.raises(Error, match="got another search; resume with its settings"):
        SEARCHES[name](problem(310.0), 20, seed=3, save_to=path, resume=True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "known": [[[1, 2], "x"]]}))
    with pytest.raises(Error, match=r"search.json: expected the answers of a search, got ValueError.*without resume"):
        SEARCHES[name](problem(), 20, seed=3, save_to=path, resume=True)
    with pytest.raises(Error, match="resume: expected save_to"):
        SEARCHES[name](problem(), 20, resume=True)


def test_starts_take_part_or_are_refused(name: str) -> None:
    perfect = 1 - BEST / CHANNELS
    if name in ("uniform", "greedy"):
        with pytest.raises(Error, match=f"{name}: expected no starts: it begins where it always does, got 1"):
            SEARCHES[name](problem(), 20, starts=[perfect])
    else:
        assert SEARCHES[name](problem(), 20, starts=[perfect]).fitness <= fitness(widths(problem().repaired(perfect)))


def test_a_swarm_needs_four_evaluations() -> None:
    with pytest.raises(Error, match="pso: expected at least 4 evaluations: 2 particles that move once, got 3"):
        SEARCHES["pso"](problem(), 3)
