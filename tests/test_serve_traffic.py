"""Which calls run on the event loop itself."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from doubles import Double, held, rows, run

from cosparse.engine.serve import Batcher
from cosparse.engine.serve.batcher import Ran
from cosparse.engine.serve.refusal import Closed
from cosparse.engine.serve.traffic import Traffic
from cosparse.errors import ShapeError


class Threads(Double):
    """Keeps of each call whether it came in the thread `loop`, and takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.loop = seconds, 0
        self.seen: list[bool] = []

    def __call__(self, *arrays: np.ndarray) -> Any:
        self.seen.append(threading.get_ident() == self.loop)
        time.sleep(self.seconds)
        return super().__call__(*arrays)


def here(engine: Threads, pauses: list[float], callers: list[object] | None = None, **options: Any) -> list[bool]:
    """Whether each of some calls, that long after the one before, ran on the event loop; the first one tells how long a call takes. What
    counts as short is long, so that a busy machine changes nothing."""

    async def body(batcher: Batcher) -> None:
        engine.loop = threading.get_ident()
        for i, pause in enumerate([0.0, *pauses]):
            await asyncio.sleep(pause)
            (answer,) = await batcher.run([rows(2, value=i)], caller=callers[i] if callers else None)
            np.testing.assert_array_equal(answer, rows(2, value=2 * i))

    run(engine, body, **({"short": 1.0} | options))
    return engine.seen


def test_a_short_call_that_finds_the_engine_idle_runs_on_the_loop() -> None:
    assert here(Threads(), [0.05, 0.05, 0.05]) == [False, True, True, True]
    assert here(Threads(), [0.05, 0.05], short=0) == [False] * 3
    assert here(Threads(), [0.05, 0.05], max_delay=0.001) == [False] * 3
    assert here(Threads(0.01), [0.05, 0.05], short=0.002) == [False] * 3
    assert here(Threads(), [0.05, 0.05], max_batch=1) == [False] * 6  # each in two parts


def test_each_size_of_inputs_has_a_pace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a large image does not hold the loop because small ones were fast; of too many sizes all are forgotten."""
    monkeypatch.setattr("cosparse.engine.serve.batcher.SIZES", 2)
    engine = Threads()

    async def body(batcher: Batcher) -> None:
        engine.loop = threading.get_ident()
        for size in (3, 3, 5, 5, 3, 7, 3):
            await batcher(rows(1, size=size))
            await asyncio.sleep(0.05)

    run(engine, body, short=1.0)
    assert engine.seen == [False, True, False, True, True, False, False]


def test_one_caller_alone_need_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosparse.engine.serve.traffic.QUIET", 3600.0)
    assert here(Threads(), [0.0] * 6, ["a"] * 7) == [False, False, False, True, True, True, True]
    assert here(Threads(), [0.0] * 6, ["a", "b"] * 3 + ["a"]) == [False] * 7
    assert here(Threads(), [0.0] * 6) == [False] * 7  # nobody says who


def test_calls_at_once_go_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """While something runs or waits, and when the engine has not rested."""
    monkeypatch.setattr("cosparse.engine.serve.traffic.QUIET", 3600.0)
    engine = Threads()

    async def body(batcher: Batcher) -> None:
        engine.loop = threading.get_ident()
        await batcher(rows(1))
        tasks = await held(engine, batcher, [])  # a worker holds the engine
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(batcher(rows(1))) for _ in range(3)]
        await asyncio.sleep(0.01)
        engine.go.set()
        await asyncio.gather(*tasks)

    run(engine, body)
    assert engine.batches == [1, 1, 3]
    assert engine.seen == [False] * 3


def test_an_error_on_the_loop_is_the_caller_s() -> None:
    seen: list[Ran] = []

    async def body(batcher: Batcher) -> None:
        await batcher(rows(1))
        await asyncio.sleep(0.05)
        with pytest.raises(ShapeError, match="no NaN"):
            await batcher(rows(1, value=np.nan))
        await asyncio.sleep(0.05)
        np.testing.assert_array_equal(await batcher(rows(1)), rows(1, value=2))
        batcher.close()
        await asyncio.sleep(0.05)
        with pytest.raises(Closed):
            await batcher(rows(1))

    run(Double(), body, observe=seen.append)
    assert [ran.images for ran in seen] == [1, 1, 1]


def two(body: Any, **options: Any) -> tuple[Threads, Threads]:
    """Two networks on one event loop, whose paces are known; `body` has their batchers."""
    engines, traffic = (Threads(), Threads()), Traffic()

    async def main() -> None:
        async with (
            Batcher(engines[0], short=1.0, traffic=traffic, **options) as one,
            Batcher(engines[1], short=1.0, traffic=traffic, **options) as other,
        ):
            for engine, batcher in zip(engines, (one, other), strict=True):
                engine.loop = threading.get_ident()
                await batcher(rows(1))
            await body(one, other)

    asyncio.run(main())
    return engines


def test_two_networks_of_one_loop_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller of both is alone; of two, one for each network, neither is."""
    monkeypatch.setattr("cosparse.engine.serve.traffic.QUIET", 3600.0)

    async def same(one: Batcher, other: Batcher) -> None:
        for _ in range(3):
            await one.run([rows(1)], caller="a")
            await other.run([rows(1)], caller="a")

    async def different(one: Batcher, other: Batcher) -> None:
        for _ in range(5):
            await one.run([rows(1)], caller="a")
            await other.run([rows(1)], caller="b")

    assert [engine.seen for engine in two(same)] == [[False, False, False, True], [False, False, True, True]]
    assert [engine.seen for engine in two(different)] == [[False] * 6] * 2


def test_while_a_worker_runs_one_network_the_loop_runs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosparse.engine.serve.traffic.QUIET", 0.0)

    async def body(one: Batcher, other: Batcher) -> None:
        engine = one._engine
        engine.go.clear()
        busy = asyncio.create_task(one(rows(1, size=5)))  # whose pace is not known: a worker's
        await asyncio.sleep(0)
        while one.depth:
            await asyncio.sleep(0.001)
        await other(rows(1))
        engine.go.set()
        await busy
        await other(rows(1))

    assert two(body)[1].seen == [False, False, True]
