"""The pool of working memory, and workers on given cores."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines import engine_of, graph_of
from nodes import conv

import cosparse
from cosparse.engine import Engine, artifact

ROOM = (16, 256, 256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    first = conv(np.random.default_rng(0), 16, 16, (3, 3), pad=(1, 1, 1, 1))
    artifact.write(tmp_path / "net.cosparse", graph_of([first, replace(first, name="b_conv", inputs=("a_conv",))], {"x": ROOM}))
    return tmp_path / "net.cosparse"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def call_at_once(engine: Engine, callers: int, x: np.ndarray, out: list[np.ndarray]) -> None:
    begin = threading.Barrier(callers)

    def call(i: int) -> None:
        begin.wait()
        for _ in range(3):
            engine(x, out=out[i])

    team = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for member in team:
        member.start()
    for member in team:
        member.join()


@pytest.mark.parametrize("contexts", [1, 2])
def test_calls_wait_for_memory(path: Path, contexts: int) -> None:
    """Eight callers, and the memory of as many calls as are allowed."""
    engine = cosparse.load(path, threads=1, contexts=contexts, tune=False)
    x = np.random.default_rng(1).standard_normal((1, *ROOM)).astype(np.float32)
    wanted = engine(x)
    out = [np.zeros_like(wanted) for _ in range(8)]
    gc.collect()
    before = resident()
    call_at_once(engine, 8, x, out)
    assert engine.contexts == contexts
    assert all(np.array_equal(got, wanted) for got in out)
    assert resident() - before < (contexts - 0.5) * engine.arena_bytes
    before, unbound = resident(), []
    while resident() - before < 0.5 * engine.arena_bytes:  # the measure sees them, once what lay free in the process is used up
        assert len(unbound) < 50
        unbound.append(cosparse.load(path, threads=1, contexts=8, tune=False))
        call_at_once(unbound[-1], 8, x, out)


def test_a_call_that_fails_gives_its_memory_back(path: Path) -> None:
    engine = cosparse.load(path, threads=1, contexts=1, tune=False)
    for _ in range(3):
        with pytest.raises(cosparse.ShapeError):
            engine(np.zeros((1, 3, 8, 8), np.float32))
    assert engine(np.zeros((1, 16, 8, 8), np.float32)).shape == (1, 16, 8, 8)


def test_the_default_is_threads_or_cores(path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert cosparse.load(path, threads=1, tune=False).contexts == cores
    assert cosparse.load(path, threads=cores + 3, tune=False).contexts == cores + 3


def test_options_are_checked(path: Path) -> None:
    with pytest.raises(cosparse.Error, match="contexts: expected at least 1"):
        cosparse.load(path, contexts=0)
    with pytest.raises(cosparse.Error, match="cores: expected cores that this process may use"):
        cosparse.load(path, cores=[100_000])
    core = min(os.sched_getaffinity(0))
    with pytest.raises(cosparse.Error, match="each core once"):
        cosparse.load(path, cores=[core, core])
    with pytest.raises(cosparse.UnsupportedError, match="contexts, cores"):
        cosparse.load(path, device="cuda", cores=[core])


def allowed() -> dict[int, str]:
    """Thread -> the cores it may use."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found[int(task.name)] = next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))
    return found


def test_workers_stay_on_their_cores_and_the_caller_where_it_is(path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    before, mine = allowed(), os.sched_getaffinity(0)
    engine = cosparse.load(path, cores=cores[:1], threads=3, tune=False)
    engine(np.zeros((1, *ROOM), np.float32))
    after = allowed()
    assert [after[task] for task in sorted(set(after) - set(before))] == [str(cores[0])] * 2
    assert os.sched_getaffinity(0) == mine
    assert cosparse.load(path, cores=cores, tune=False).threads == len(cores)


def test_an_engine_of_the_tests_has_contexts_too() -> None:
    assert engine_of(graph_of([conv(np.random.default_rng(0), 4, 4, (1, 1))], {"x": (4, 3, 3)})).contexts >= 2
