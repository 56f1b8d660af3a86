"""uvicorn's HTTP connection with a bound on requests that wait for the answers before theirs (pipelining), and with an end that cuts off
nobody's request."""

from __future__ import annotations

import asyncio
from collections.abc import Sized

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from cosparse.engine.serve.direct import Direct

WAITING = 32  # requests behind the one that is being answered: a client who waits for each answer has none
LAST = 0.5  # seconds in which a client that does not know yet of the server's end may still send a request


class Stop(Exception):
    """Ends the parser, raised in one of its functions: why is said elsewhere."""


class _Flow(FlowControl):
    """Reads no more while requests wait: uvicorn reads on for each body and after each answer."""

    waiting: Sized = ()

    def resume_reading(self) -> None:
        if not self.waiting:
            super().resume_reading()


class Turns(HttpToolsProtocol):
    """`full`: too many requests wait; the connection ends with their answers, and what still comes is passed over. `answered`: whether an
    answer was completed since somebody set it to False."""

    direct: Direct
    flow: _Flow
    full = False
    answered = False
    _turn: RequestResponseCycle | None = None  # the request that is being answered, or was last

    @property
    def answering(self) -> bool:
        """Whether an answer has begun and is not whole."""
        return self._turn is not None and self._turn.response_started and not self._turn.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.flow.waiting = self.pipeline

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= WAITING:
            self.full, self.cycle.keep_alive = True, False
            self.flow.waiting = ()  # closed while there is something to read, the connection would be reset and answers lost
            raise Stop
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.direct.draining:
            self.drain()

    def on_response_complete(self) -> None:
        self.answered = True
        super().on_response_complete()
        self.flow.resume_reading()

    def drain(self) -> None:
        """The answer of the last request that is here says `connection: close`; where it has begun, the one after it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
            return
        self._unset_keepalive_if_required()  # in uvicorn's words: what arrives within this time stops it
        self.timeout_keep_alive_task = self.loop.call_later(LAST, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        super().connection_lost(exc)

    def leave(self) -> None:
        """Nobody is there any more for what is being answered, or is still to come."""
        for cycle in (self._turn, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.flow.resume_writing()  # for an answer that waits to be written

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._turn = cycle
        super()._start_asgi_task(cycle, app)
