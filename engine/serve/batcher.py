"""The dynamic batcher: calls that wait together are run together.

A call brings one array for each input, [n, ...], n >= 1, float32 or numbers that are converted; what is no such array is refused before it
meets the others. Calls whose sizes agree but for n are joined along n, in the order in which they
came, up to `max_batch` images; each gets its own rows of the outputs. A call of more than `max_batch` images is run in parts, of which
at most one more than there are workers wait at once, so that others get in between; a part is made when its turn comes.

When a batch starts: as soon as a worker is free and the oldest call has waited `max_delay`, or the batch is full. With `max_delay` 0 a
call that finds the engine idle is run at once, alone; batches form of what arrives while the engine works.

The queue holds at most `queue` calls; more are refused. The engine runs in worker threads, without the GIL; answers go back to the event
loop of the caller, once for each batch.

A short call that nobody competes with (traffic.py) runs on the event loop itself, which spares two hand-overs between threads: one that is
expected to take at most `short` seconds, while nothing waits. So the loop is never held for longer than `short` by much.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy

from cosparse.engine.arrays import as_array
from cosparse.engine.serve.refusal import Closed, Kind, Refused
from cosparse.engine.serve.traffic import Traffic
from cosparse.errors import Error, ShapeError

Arrays = tuple[numpy.ndarray, ...]

SHORT = 0.002
"""Seconds for which a call may hold the event loop of a program that says nothing else."""
SIZES = 64
"""Sizes of inputs whose pace is kept; of more, all are measured anew."""


@dataclass(frozen=True)
class Ran:
    """One call of the engine: images in it, for each request the seconds that it waited, and the seconds that the engine took."""

    images: int
    waited: tuple[float, ...]
    compute: float


@dataclass(eq=False)
class Call:
    """What waits: `arrays` of `images` rows; `sizes` are the shapes without the batch, which calls of one batch share."""

    arrays: Arrays
    images: int
    sizes: tuple[tuple[int, ...], ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Arrays]
    answered: bool = False
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs an engine for many callers at once. `await batcher(x)`; close it at the end, or use it in `async with`."""

    def __init__(
        self,
        engine: Any,
        *,
        max_batch: int = 16,
        max_delay: float = 0.0,
        queue: int = 256,
        workers: int = 1,
        short: float = SHORT,
        traffic: Traffic | None = None,
        observe: Callable[[Ran], None] = lambda ran: None,
    ) -> None:
        """max_delay, short: seconds; workers: threads that call the engine, each with a batch of its own; traffic: shared with the other
        batchers of the event loop; observe: told of each batch."""
        for name, value, least in (
            ("max_batch", max_batch, 1),
            ("queue", queue, 1),
            ("workers", workers, 1),
            ("max_delay", max_delay, 0),
            ("short", short, 0),
        ):
            if value < least:
                raise Error(name, f"at least {least}", str(value))
        self._engine = engine
        self._max_batch, self._max_delay, self._limit, self._observe = max_batch, max_delay, queue, observe
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._closed = False
        self._ahead = workers + 1  # parts of a call that wait at once: no worker is idle until the next is there
        self._begun = 0  # calls in parts that have more to put into the queue
        self._later = 0  # images in these parts
        self._seconds_per_image = 0.0
        self._paces: dict[tuple[tuple[int, ...], ...], float] = {}  # of each size of the inputs
        self._short, self._traffic = short, traffic or Traffic()
        self.threads = [threading.Thread(target=self._work, name=f"batcher-{engine.name}-{i}", daemon=True) for i in range(workers)]
        for thread in self.threads:
            try:
                thread.start()
            except RuntimeError as error:
                self.close()
                raise Error("workers", f"{workers} threads", str(error), "ask for fewer") from error

    @property
    def depth(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._limit

    async def __call__(self, *arrays: numpy.ndarray, timeout: float | None = None) -> Any:
        """The network's answer to its inputs, as the engine gives it: an array, or a tuple of them.

        Raises Refused where the queue is full or the answer takes longer than `timeout` seconds, Error where the arrays are none (lists,
        scalars, texts, no rows, none at all), and what the engine raises.
        """
        outputs = await self.run(arrays, timeout)
        return outputs if len(outputs) > 1 else outputs[0]

    async def run(
        self,
        arrays: Sequence[numpy.ndarray],
        timeout: float | None = None,
        caller: object = None,
        room: Callable[[int], None] = lambda size: None,
    ) -> Arrays:
        """The same, always as a tuple. `caller`: who asks, such as the client's address; None for somebody unknown. `room`: told of the
        bytes of an answer in parts, as soon as the first part shows how many that will be; what it raises ends the call. Raises Closed
        after `close`."""
        calls, later = self._parts(tuple(arrays))
        if self._alone(calls, caller):
            return self._run_here(calls[0])
        images = len(arrays[0])
        self._put(calls, images - _images(calls), caller)
        waiting = deque(calls)
        end = None if timeout is None else calls[0].loop.call_later(timeout, _late, waiting)  # asyncio.timeout takes longer
        late = math.inf if end is None else end.when()
        try:
            return await calls[0].future if len(calls) == 1 else await self._in_turn(waiting, later, images, room, late)
        except TimeoutError:
            raise Refused(
                Kind.TIMEOUT, f"model '{self._engine.name}'", f"an answer within {timeout:g} s", "none yet", "try again, or allow more time"
            ) from None
        finally:
            if end is not None:
                end.cancel()
            self._forget(waiting)

    def at_once(self, arrays: Sequence[numpy.ndarray], caller: object) -> Arrays | None:
        """The answer of a call that may run on the event loop, there and then; None for any other, which `run` takes. Raises as `run`."""
        calls, _ = self._parts(tuple(arrays))
        return self._run_here(calls[0]) if self._alone(calls, caller) else None

    def retry_after(self) -> int:
        """Whole seconds in which the queue should be worked off, at the pace so far."""
        with self._changed:
            images = self._later + _images(self._waiting)
        return max(1, min(60, round(images * self._seconds_per_image / len(self.threads) + 0.5)))

    def close(self) -> None:
        """Takes nothing more. What waits is still run; `join` waits for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> None:
        """Waits until all that was taken has been run."""
        for thread in self.threads:
            thread.join(timeout)

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await asyncio.to_thread(self.join)

    def _parts(self, arrays: Arrays) -> tuple[list[Call], Iterator[Call]]:
        """The parts of a call that wait at once, and those that follow."""
        loop = asyncio.get_running_loop()
        if not arrays or any(type(a) is not numpy.ndarray or a.dtype != numpy.float32 or not a.ndim or not len(a) for a in arrays):
            arrays = self._checked(arrays)
        images, sizes, step = len(arrays[0]), tuple(array.shape[1:] for array in arrays), self._max_batch
        if any(len(array) != images for array in arrays):
            found = ", ".join(str(len(array)) for array in arrays)
            raise Refused(Kind.INVALID, f"model '{self._engine.name}'", "inputs of one batch size", found)
        if images <= step:
            return [Call(arrays, images, sizes, loop, loop.create_future())], iter(())
        starts = range(0, images, step)
        parts = (Call(tuple(a[at : at + step] for a in arrays), min(step, images - at), sizes, loop, loop.create_future()) for at in starts)
        return list(islice(parts, self._ahead)), parts

    def _checked(self, values: tuple[Any, ...]) -> Arrays:
        """As float32. Raises Error."""
        if not values:
            raise Error(f"network '{self._engine.name}'", "one array for each input", "none")
        specs = getattr(self._engine, "inputs", ())
        names = [spec.name for spec in specs] if len(specs) == len(values) else [str(place) for place in range(len(values))]
        arrays = [as_array(value, name) for value, name in zip(values, names, strict=True)]
        for array, name in zip(arrays, names, strict=True):
            if array.dtype.kind not in "fiu":
                raise Error(f"input '{name}'", "dtype float32", str(array.dtype), "convert it: x.astype(numpy.float32)")
            if not array.ndim or not len(array):
                raise ShapeError(f"input '{name}'", "a batch of 1 or more", f"shape {list(array.shape)}")
        return tuple(numpy.asarray(array, numpy.float32) for array in arrays)

    def _alone(self, calls: list[Call], caller: object) -> bool:
        """Whether to run the call here and now; if so, it counts as running."""
        with self._changed:
            if self._closed or self._waiting or len(calls) > 1 or self._max_delay:
                return False
            expected = self._paces.get(calls[0].sizes, 0.0) * calls[0].images
        return 0 < expected <= self._short and self._traffic.alone(caller)

    def _run_here(self, call: Call) -> Arrays:
        ran, outputs, error = self._compute([call])
        call.loop.call_soon(self._observe, ran)  # when the answer is on its way
        if error is not None:
            raise error
        return outputs

    def _put(self, calls: list[Call], later: int, caller: object) -> None:
        """All that wait at once, or none; `later`: images in parts that follow. One request alone may exceed an empty queue."""
        self._traffic.came(caller)
        with self._changed:
            if self._closed:
                raise Closed
            depth = len(self._waiting)
            full = bool(depth) and depth + len(calls) > self._limit
            if not full:
                self._waiting.extend(calls)
                self._begun, self._later = self._begun + bool(later), self._later + later
                self._changed.notify(len(calls))
        if full:
            got = f"{depth} that wait"
            about, wanted = f"model '{self._engine.name}'", f"a queue of at most {self._limit} requests"
            raise Refused(Kind.QUEUE_FULL, about, wanted, got, "try again later", retry_after=self.retry_after())

    async def _in_turn(self, waiting: deque[Call], later: Iterator[Call], images: int, room: Callable[[int], None], late: float) -> Arrays:
        """The answer of a call in parts, the first of which wait already; one more is put behind the others whenever one is answered.
        late: the loop's time from which on no part is waited for: those that `_late` found were perhaps all answered."""
        whole: Arrays = ()
        left, at = images - _images(waiting), 0
        begun = bool(left)
        try:
            while waiting:
                rows = await waiting[0].future
                if waiting[0].loop.time() >= late:
                    raise TimeoutError
                if not at:
                    room(sum(row.nbytes // waiting[0].images * images for row in rows))
                    whole = tuple(numpy.empty((images, *row.shape[1:]), row.dtype) for row in rows)
                for output, row in zip(whole, rows, strict=True):
                    output[at : at + len(row)] = row
                at += waiting.popleft().images
                if (part := next(later, None)) is not None:
                    left -= part.images
                    part.since = time.monotonic()
                    waiting.append(part)
                    with self._changed:
                        self._later -= part.images
                        self._waiting.append(part)
                        self._changed.notify()
        finally:
            if begun:
                with self._changed:
                    self._begun, self._later = self._begun - 1, self._later - left
                    self._changed.notify_all()  # workers that may end now
        return whole

    def _forget(self, calls: Iterable[Call]) -> None:
        """Those that nobody waits for any more leave the queue."""
        unanswered = [call for call in calls if not call.answered]
        if unanswered:
            gone = set(map(id, unanswered))
            with self._changed:
                self._waiting = deque(call for call in self._waiting if id(call) not in gone)
            for call in unanswered:
                call.future.cancel()
        for call in calls:
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # seen: the first part's error speaks for all parts

    def _work(self) -> None:
        while batch := self._next():
            self._run(batch)

    def _next(self) -> list[Call]:
        """Waits for the next batch and takes it from the queue; empty at the end."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closed and not self._begun:
                        return []
                    self._changed.wait()
                    continue
                batch, full = choose(self._waiting, self._max_batch)
                left = batch[0].since + self._max_delay - time.monotonic()
                if full or left <= 0 or self._closed:
                    for call in batch:  # the first of the queue, mostly, so that each is found at once
                        self._waiting.remove(call)
                    self._traffic.started()
                    return batch
                self._changed.wait(left)

    def _compute(self, batch: list[Call]) -> tuple[Ran, Arrays, Exception | None]:
        """Runs the engine for a batch that counts as running, until it has ended."""
        start = time.monotonic()
        images = _images(batch)
        outputs: Arrays = ()
        error: Exception | None = None
        try:
            answer = self._engine(*join([call.arrays for call in batch]))
            outputs = answer if isinstance(answer, tuple) else (answer,)
        except Exception as raised:  # whatever it is, those who wait must hear of it
            error = raised
            if not isinstance(raised, Error):
                logging.getLogger("cosparse.serve").error("engine failed", exc_info=raised, extra={"model": self._engine.name})
        ended = time.monotonic()
        self._traffic.ended()
        if error is None:  # a call that fails at once says nothing of one that does not
            with self._changed:
                new, sizes = (ended - start) / images, batch[0].sizes
                self._seconds_per_image = _mean(self._seconds_per_image, new)
                if sizes not in self._paces and len(self._paces) == SIZES:
                    self._paces.clear()
                self._paces[sizes] = _mean(self._paces.get(sizes, 0.0), new)
        return Ran(images, tuple(start - call.since for call in batch), ended - start), outputs, error

    def _run(self, batch: list[Call]) -> None:
        ran, outputs, error = self._compute(batch)
        answers, at = [], 0
        for call in batch:
            answers.append((call, tuple(output[at : at + call.images] for output in outputs)))
            at += call.images
        for loop in {call.loop for call in batch}:
            try:
                loop.call_soon_threadsafe(_settle, [(call, rows) for call, rows in answers if call.loop is loop], error)
            except RuntimeError:  # that loop is closed, so nobody waits there
                logging.getLogger("cosparse.serve").info("an event loop closed before its answer came")
        self._observe(ran)


def _images(calls: Iterable[Call]) -> int:
    return sum(call.images for call in calls)


def _mean(before: float, new: float) -> float:
    """A running mean of about ten values; 0 where there has been none."""
    return before + 0.1 * (new - before) if before else new


def choose(waiting: Iterable[Call], max_batch: int) -> tuple[list[Call], bool]:
    """The oldest call and those behind it that can be joined with it; and whether the batch can grow no further."""
    others = iter(waiting)
    batch = [next(others)]
    images = batch[0].images
    while images < max_batch and (call := next(others, None)) is not None:
        if call.sizes == batch[0].sizes:
            if images + call.images > max_batch:
                return batch, True
            batch.append(call)
            images += call.images
    return batch, images >= max_batch


def join(calls: list[Arrays]) -> Arrays:
    """Input by input, the rows of all calls; the call's own memory where it is alone and the kernels may read it."""
    if len(calls) == 1:
        return tuple(numpy.require(array, numpy.float32, ("C", "A")) for array in calls[0])
    return tuple(numpy.concatenate(arrays) for arrays in zip(*calls, strict=True))


def _late(calls: Iterable[Call]) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(TimeoutError())


def _settle(answers: list[tuple[Call, Arrays]], error: Exception | None) -> None:
    for call, rows in answers:
        if call.future.done():
            continue
        call.answered = True
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(rows)
