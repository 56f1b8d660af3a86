"""Candidates scored in other processes: the same answers in the same order, errors that arrive, processes that end."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_compress_pso import fitness, problem

from cosparse.compress import runners
from cosparse.compress.pso import Swarm, swarm
from cosparse.compress.runners import OnRay, Processes, Widths, serially
from cosparse.compress.search import Problem
from cosparse.errors import Error, UnsupportedError

ITSELF, THREADS, SHAPE, WRONG, STRANGE, KILLED = range(-6, 0)


class Strange(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def soon(holds: Callable[[], bool]) -> bool:
    """Waits long enough for processes that start beside much other work."""
    for _ in range(3000):
        if holds():
            return True
        time.sleep(0.1)
    return False


class Odd:
    """Fitness that tells of its process where the first width is negative."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        import torch

        self.upper, self.weight, self.folder = problem.upper, torch.ones(3), folder

    def __call__(self, widths: Widths) -> float:
        import torch

        if widths[0] == ITSELF:
            (self.folder / str(os.getpid())).touch()
            assert soon(lambda: len(list(self.folder.iterdir())) >= widths[1])  # so many processes have been here
            return os.getpid()
        if widths[0] == THREADS:
            return torch.get_num_threads()
        if widths[0] == SHAPE:
            return float(self.weight.sum()) + len(self.upper)
        if widths[0] == WRONG:
            raise Error("layer", "a width", str(widths[1]), "another one")
        if widths[0] == STRANGE:
            raise Strange("over", "board")
        if widths[0] == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        return fitness(widths)


def test_processes_give_the_same_search_and_their_errors_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    there = problem()
    odd = Odd(there, tmp_path)
    there = Problem(there.upper, there.widths, there.cost, there.target, odd)
    settings = Swarm(particles=6, rounds=2)
    with Processes(2) as runner:
        assert swarm(there, settings, runner=runner) == swarm(there, settings)
        assert os.environ["OMP_NUM_THREADS"] == "3"
        at_work = set(runner(odd, [(ITSELF, 2)] * 2))
        assert len(at_work) == 2
        assert os.getpid() not in at_work
        assert runner(odd, [(THREADS,), (SHAPE,)]) == [1.0, 7.0]
        with pytest.raises(Error, match="layer: expected a width, got 12; another one") as caught:
            runner(odd, [(1, 1, 1, 1), (WRONG, 12)])
        assert caught.value.got == "12"
        with pytest.raises(Error, match="fitness: expected a number, got Strange: overboard"):
            runner(odd, [(STRANGE,)])
        assert set(runner(odd, [(ITSELF, 2)] * 4)) <= at_work
        with pytest.raises(
            Error, match=r"Processes: expected 2 workers that live, got one that was killed.* fewer of them if memory ran out"
        ):
            runner(odd, [(KILLED,)])


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_end_with_the_object_that_holds_them(tmp_path: Path) -> None:
    runner = Processes(1)
    process = int(runner(Odd(problem(), tmp_path), [(ITSELF, 1)])[0])
    assert alive(process)
    del runner
    gc.collect()
    assert soon(lambda: not alive(process))


class Pool:
    """Stands for ProcessPoolExecutor: runs everything here and keeps a list of all that were made."""

    made: list[Pool] = []  # noqa: RUF012

    def __init__(self, workers: int, context: Any, initializer: Callable[[bytes], None], initargs: tuple[bytes]) -> None:
        self.workers, self.start, self.open = workers, context.get_start_method(), True
        runners._here.clear()
        initializer(*initargs)
        Pool.made.append(self)

    def submit(self, function: Callable[[Widths], float], widths: Widths) -> Future[float]:
        future: Future[float] = Future()
        future.set_result(function(widths))
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        self.open = False


def test_processes_start_once_for_each_fitness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(runners, "_here", {})
    monkeypatch.setattr(Pool, "made", [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Processes(3) as runner:
        assert runner(fitness, []) == []
        assert runner(fitness, [(4, 30, 20, 18)]) == runner(fitness, [(4, 30, 20, 18)]) == [0.0]
        assert [(pool.workers, pool.start, pool.open) for pool in Pool.made] == [(3, "spawn", True)]
        assert runner(sum, [(3, 4), (1,)]) == [7.0, 1.0]
        assert [pool.open for pool in Pool.made] == [False, True]
    assert [pool.open for pool in Pool.made] == [False, False]
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_fitness_that_cannot_be_handed_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Error, match=r"fitness: expected a function or object whose code a module defines, got .*<lambda>.*serially"):
        Processes(2)(lambda widths: 0.0, [(1,)])
    with pytest.raises(Error, match="workers: expected at least 1, got 0"):
        Processes(0)

    class Lost:
        def __call__(self, widths: Widths) -> float:
            return 0.0

        def __reduce__(self) -> tuple[Any, ...]:
            return getattr, (SimpleNamespace(), "nothing")

    monkeypatch.setattr(runners, "_here", {})
    runners._take(runners._by_value(Lost()))
    for _ in range(2):
        with pytest.raises(Error, match=r"fitness: expected what another process can import, got AttributeError: .*define it in a module"):
            runners._score((1,))


def test_ray_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match="OnRay: expected the package ray"):
        OnRay()(fitness, [(1, 1, 1, 1)])


def test_ray_is_given_the_fitness_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the calls of Ray's manual that are used: init, is_initialized, remote, put, get."""
    put: list[Any] = []
    resources: list[dict[str, float]] = []

    class Ray(SimpleNamespace):
        def remote(self, **asked: float) -> Callable[[Callable], SimpleNamespace]:
            resources.append(asked)
            return lambda function: SimpleNamespace(remote=lambda handle, widths: function(put[handle], widths))

        def put(self, given: Any) -> int:
            put.append(given)
            return len(put) - 1

        def get(self, answers: Sequence[float]) -> list[float]:
            return list(answers)

    monkeypatch.setitem(sys.modules, "ray", Ray(is_initialized=lambda: False, init=lambda address, log_to_driver: None))
    odd, asked = Odd(problem(), Path()), [(16, 32, 64, 24), (4, 30, 20, 18)]
    assert OnRay({"num_cpus": 2})(odd, asked) == serially(odd, asked)
    assert put == [odd]
    assert resources == [{"num_cpus": 2}]
