"""The dynamic batcher: what is joined, what waits, what is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from doubles import Double, held, rows, run

from cosparse.engine.serve import Batcher, Kind, Refused
from cosparse.engine.serve.batcher import Ran
from cosparse.engine.serve.refusal import Closed
from cosparse.errors import Error, ShapeError


@pytest.mark.parametrize("count", range(1, 10))
def test_one_call_of_any_size(count: int) -> None:
    engine = Double()
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(engine, lambda b: b(x), max_batch=4), 2 * x)
    assert max(engine.batches) <= 4
    assert sum(engine.batches) == count


def test_calls_that_wait_together_run_together_and_get_their_own_rows() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(n, value=n) for n in (1, 2, 3, 2, 1)])
        engine.go.set()
        answers = await asyncio.gather(*tasks)
        for n, answer in zip((1, 2, 3, 2, 1), answers[1:], strict=True):
            np.testing.assert_array_equal(answer, rows(n, 2.0 * n))

    run(engine, body, max_batch=6)
    assert engine.batches == [1, 6, 3]  # 1 + 2 + 3, then 2 + 1


def test_a_call_that_does_not_fit_ends_the_batch_so_that_none_is_overtaken_for_ever() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(3), rows(3), rows(1)])
        engine.go.set()
        await asyncio.gather(*tasks)

    run(engine, body, max_batch=4)
    assert engine.batches == [1, 3, 4]


def test_other_sizes_are_other_batches() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(1, size=3), rows(1, size=5), rows(1, size=3)])
        engine.go.set()
        assert [answer.shape[1] for answer in await asyncio.gather(*tasks)] == [3, 3, 5, 3]

    run(engine, body)
    assert engine.batches == [1, 2, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_of_many_parts_lets_others_in_between(workers: int) -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(40, 1.0)])
        assert batcher.depth <= workers + 1
        small = asyncio.create_task(batcher(rows(1, 5.0, size=7)))
        await asyncio.sleep(0.01)
        batcher._seconds_per_image = 1.0
        waiting = 41 - 4 * (workers - 1)  # what has no place in the queue yet counts, what a second worker holds does not
        assert batcher.retry_after() == round(waiting / workers + 0.5)
        engine.go.set()
        np.testing.assert_array_equal(await small, rows(1, 10.0, size=7))
        seen = len(engine.batches)
        np.testing.assert_array_equal(await tasks[1], rows(40, 2.0))
        await tasks[0]
        assert seen < len(engine.batches) == 12  # the first, the small one, and ten parts

    run(engine, body, max_batch=4, workers=workers)


def test_parts_are_made_when_their_turn_comes_and_put_into_one_answer() -> None:
    """A call of very many images neither holds the event loop nor takes memory for each part beforehand."""
    engine, told = Double(), []

    async def body(batcher: Batcher) -> None:
        many = np.zeros((200_000, 3), np.float32)
        many[:, 0] = np.arange(len(many))
        first = asyncio.create_task(batcher.run([many], room=told.append))
        began = time.monotonic()
        await asyncio.sleep(0)
        assert time.monotonic() - began < 0.2  # two parts of the 200,000, where all took seconds
        engine.go.set()
        with pytest.raises(Refused, match=r"an answer within 0\.3 s"):
            await batcher.run([many], timeout=0.3)
        first.cancel()

    run(engine, body, max_batch=1)
    assert told == [200_000 * 3 * 4]


def test_an_answer_in_parts_for_which_there_is_no_room_ends_after_its_first_part() -> None:
    engine = Double()

    def full(size: int) -> None:
        raise Refused(Kind.MEMORY_FULL, "answer", "fewer bytes", str(size))

    async def body(batcher: Batcher) -> None:
        engine.go.set()
        with pytest.raises(Refused, match="expected fewer bytes, got 1200"):
            await batcher.run([rows(100)], room=full)
        assert batcher.depth == 0
        np.testing.assert_array_equal(await batcher(rows(9)), rows(9, 2.0))

    run(engine, body, max_batch=4)
    assert sum(engine.batches) < 30


def test_a_call_of_many_parts_ends_that_was_taken_before_the_end() -> None:
    engine = Double()

    async def main() -> None:
        batcher = Batcher(engine, max_batch=2)
        first, many = await held(engine, batcher, [rows(20)])
        batcher.close()
        engine.go.set()
        np.testing.assert_array_equal(await many, rows(20, 2.0))
        await first
        await asyncio.to_thread(batcher.join, 10.0)
        assert not any(thread.is_alive() for thread in batcher.threads)

    asyncio.run(main())
    assert engine.batches == [1] + [2] * 10


def test_a_call_of_many_parts_that_nobody_waits_for_ends_with_its_parts_in_work() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(1)])
        with pytest.raises(Refused, match="expected an answer within"):
            await batcher(rows(5000), timeout=0.1)
        assert batcher.depth == 1
        engine.go.set()
        await asyncio.gather(*tasks)
        batcher._seconds_per_image = 1.0
        assert batcher.retry_after() == 1  # nothing of it is left

    run(engine, body, max_batch=1)
    assert engine.batches == [1, 1]


def test_several_inputs_and_outputs() -> None:
    engine = Double(outputs=2)
    first, second = run(engine, lambda b: b(rows(5, 1.0), rows(5, 3.0)), max_batch=2)
    np.testing.assert_array_equal(first, rows(5, 2.0))
    np.testing.assert_array_equal(second, rows(5, 6.0))


def test_without_a_delay_an_idle_engine_is_called_at_once_and_with_one_it_waits_for_others() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> float:
        start = time.monotonic()
        await asyncio.gather(*(batcher(rows(1)) for _ in range(3)))
        return time.monotonic() - start

    assert run(engine, body, max_delay=0.2, max_batch=8) >= 0.19
    assert engine.batches == [3]
    took = run(engine, body, max_delay=20.0, max_batch=3)  # full, so nobody waits
    assert took < 10
    assert engine.batches == [3, 3]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(1), rows(1)])
        assert batcher.full
        with pytest.raises(
            Refused, match="model 'double': expected a queue of at most 2 requests, got 2 that wait; try again later"
        ) as info:
            await batcher(rows(1))
        assert info.value.kind is Kind.QUEUE_FULL
        assert (info.value.retry_after or 0) >= 1
        engine.go.set()
        await asyncio.gather(*tasks)
        await batcher(rows(1))

    run(engine, body, queue=2)


def test_a_late_answer_is_a_timeout_and_frees_its_place() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [])
        with pytest.raises(Refused, match=r"model 'double': expected an answer within 0.05 s, got none yet") as info:
            await batcher(rows(1), timeout=0.05)
        assert info.value.kind is Kind.TIMEOUT
        assert batcher.depth == 0
        engine.go.set()
        await asyncio.gather(*tasks)

    run(engine, body, queue=1)
    assert engine.batches == [1]  # what nobody waits for is not computed


def test_what_the_engine_raises_reaches_all_who_wait_and_the_next_call_works() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(1, np.nan), rows(1)])
        engine.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers[1:]] == [ShapeError, ShapeError]
        np.testing.assert_array_equal(await batcher(rows(1)), rows(1, 2.0))
        with pytest.raises(ShapeError):
            await batcher(rows(9, np.nan))  # in parts

    run(engine, body, max_batch=4)


def test_closed_it_runs_what_waits_and_takes_nothing_more() -> None:
    engine = Double()

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(2)])
        batcher.close()
        with pytest.raises(Closed):
            await batcher(rows(1))
        engine.go.set()
        assert [len(answer) for answer in await asyncio.gather(*tasks)] == [1, 2]

    run(engine, body)


def test_it_tells_what_it_ran() -> None:
    seen: list[Ran] = []
    run(Double(), lambda b: b(rows(3)), observe=seen.append)
    assert [(ran.images, len(ran.waited)) for ran in seen] == [(3, 1)]
    assert seen[0].compute >= 0


def test_bad_options_and_inputs() -> None:
    for option in ("max_batch", "queue", "workers"):
        with pytest.raises(Error, match=f"{option}: expected at least 1, got 0"):
            Batcher(SimpleNamespace(name="x"), **{option: 0})
    with pytest.raises(Error, match="max_delay: expected at least 0, got -1"):
        Batcher(SimpleNamespace(name="x"), max_delay=-1)
    with pytest.raises(Refused, match="model 'double': expected inputs of one batch size, got 1, 2"):
        run(Double(2), lambda b: b(rows(1), rows(2)))


def test_what_is_no_array_is_refused_alone_and_what_are_numbers_is_converted() -> None:
    """Beside others that wait for the same batch."""
    engine = Double()
    refused: dict[str, Any] = {
        "network 'double': expected one array for each input, got none": (),
        "input '0': expected numpy, torch or an array with DLPack, got list": [[1.0, 2.0, 3.0]],
        "input '0': expected numpy, torch or an array with DLPack, got float": 1.0,
        "input '0': expected a batch of 1 or more, got shape \\[\\]": np.array(1.0, np.float32),
        "input '0': expected a batch of 1 or more, got shape \\[0, 3\\]": rows(0),
        "input '0': expected dtype float32, got object; convert it": np.array([[None]]),
        "input '0': expected dtype float32, got complex128; convert it": rows(1).astype(complex),
    }

    async def body(batcher: Batcher) -> None:
        tasks = await held(engine, batcher, [rows(1), rows(1, 3.0).astype(np.float64), rows(1, 5.0).astype(int), rows(1, 7.0)])
        for message, value in refused.items():
            with pytest.raises(Error, match=message):
                await batcher(*(value if isinstance(value, tuple) else (value,)))
        engine.go.set()
        answers = await asyncio.gather(*tasks)
        for value, answer in zip((1, 1, 3, 5, 7), answers, strict=True):
            np.testing.assert_array_equal(answer, rows(1, 2.0 * value))
            assert answer.dtype == np.float32

    run(engine, body, max_batch=8)
    assert engine.batches == [1, 4]


def test_threads_that_the_system_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Error, match="workers: expected 3 threads, got can't start new thread; ask for fewer"):
        Batcher(Double(), workers=3)
