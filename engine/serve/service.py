"""One inference, whichever protocol it came by: find the model, read the tensors, run, count."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, TypeVar

import numpy

from cosparse.engine.serve.body import Bodies
from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.models import Model, Models
from cosparse.engine.serve.refusal import Closed, Kind, Refused
from cosparse.engine.serve.settings import Settings
from cosparse.errors import Error, MemoryLimitError

log = logging.getLogger("cosparse.serve")


class Parsed(Protocol):
    @property
    def arrays(self) -> tuple[numpy.ndarray, ...]: ...
    @property
    def timeout(self) -> float | None: ...


P = TypeVar("P", bound=Parsed)
R = TypeVar("R")


class Service:
    """What both protocols share. `draining`: the server was told to stop and says that it is not ready."""

    def __init__(self, settings: Settings, metrics: Metrics, models: Models) -> None:
        self.settings, self.metrics, self.models = settings, metrics, models
        self.bodies = Bodies(settings, metrics)
        self.draining = False
        self._parsing, self._answering = asyncio.Lock(), asyncio.Lock()

    @property
    def ready(self) -> bool:
        return self.models.ready and not self.draining

    def admit(self, authorization: str | None) -> None:
        """Raises Refused where the server has a token and the request has not."""
        if not self.settings.token:
            return
        scheme, _, token = (authorization or "").partition(" ")
        good = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self.settings.token.encode())
        if scheme.lower() != "bearer" or not good:
            got = "none" if authorization is None else "another one"
            raise Refused(Kind.UNAUTHORIZED, "header Authorization", "'Bearer' and the server's token", got)

    def allow_control(self) -> None:
        if not self.settings.control:
            raise Refused(Kind.FORBIDDEN, "model repository", "a server started with --control", "one without", "change the files instead")

    async def infer(
        self,
        name: str,
        version: str,
        protocol: str,
        parse: Callable[[Model], P],
        answer: Callable[[Model, P, tuple[numpy.ndarray, ...]], R],
        time_left: float | None = None,
        caller: object = None,
        apart: bool = False,
        long: Callable[[P, tuple[numpy.ndarray, ...]], bool] = lambda request, outputs: False,
    ) -> R:
        """`caller`: the client's address; apart: parse in a thread, one at a time; long: whether to make the answer in one. Raises Refused;
        anything else is a fault of ours and becomes Refused of the kind INTERNAL, with a trace in the log."""
        start = time.perf_counter()
        model = None
        held = ExitStack()  # the room of an answer in parts, until the answer is made
        try:
            while True:
                model = self.models.find(name, version)
                request = await self._apart(parse, model) if apart else parse(model)
                limits = [limit for limit in (self.settings.timeout, request.timeout, time_left) if limit is not None]
                try:
                    outputs = await model.batcher.run(
                        request.arrays, min(limits), caller, lambda size: held.enter_context(self.bodies.in_parts(size))
                    )
                    break
                except Closed:
                    continue  # exchanged since it was found: the name already leads to the new one, or to nothing
            if long(request, outputs):
                async with self._answering:  # one at a time, as the texts are not counted yet
                    made = await asyncio.to_thread(answer, model, request, outputs)
            else:
                made = answer(model, request, outputs)
        except Exception as error:
            refused = self.failed(model, error)
            if refused is error:
                raise  # not from itself: a cycle would keep all that the traceback refers to, the request among it
            raise refused from error
        finally:
            held.close()
        self.answered(model, protocol, start)
        return made

    def answered(self, model: Model, protocol: str, start: float) -> None:
        """Counts an inference that began at `start` (perf_counter), once the answer is on its way."""
        asyncio.get_running_loop().call_soon(self._count, model, protocol, time.perf_counter() - start)

    async def _apart(self, parse: Callable[[Model], P], model: Model) -> P:
        """One at a time: what is read from JSON takes many times the memory of its text."""
        async with self._parsing:
            return await asyncio.to_thread(parse, model)

    def _count(self, model: Model, protocol: str, seconds: float) -> None:
        model.latencies.add(seconds)
        model.counts.answered(seconds)
        self.metrics.request_seconds.labels(model.name).observe(seconds)
        self.metrics.requests.labels(model.name, protocol).inc()

    def failed(self, model: Model | None, error: Exception) -> Refused:
        """The refusal that the client gets, counted."""
        if isinstance(error, Refused):
            refused = error
        elif isinstance(error, MemoryLimitError):
            refused = Refused(Kind.MEMORY_FULL, error.about, error.expected, error.got, error.next_step, retry_after=2)
        elif isinstance(error, Error):
            refused = Refused(Kind.INVALID, error.about, error.expected, error.got, error.next_step)
        elif isinstance(error, MemoryError):
            refused = Refused(Kind.MEMORY_FULL, "request", "memory for it", "none left", "send a smaller one", retry_after=2)
        else:
            log.error("request failed", exc_info=error, extra={"model": model.name if model else ""})
            refused = Refused(Kind.INTERNAL, "server", "an answer", type(error).__name__, "its log has the reason")
        self.metrics.failures.labels(model.name if model else "", refused.kind.reason).inc()
        if model:
            model.counts.failed()
        refused.counted = True
        return refused
