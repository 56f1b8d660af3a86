"""uvicorn's HTTP connection, which gathers bodies of inference requests itself and answers what can be answered at once (direct.py)."""

from __future__ import annotations

import asyncio
from functools import partial

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from cosparse.engine.serve.body import Bodies
from cosparse.engine.serve.direct import ANSWER, BODY, PATIENCE, WATCHED, Gathered
from cosparse.engine.serve.refusal import Refused
from cosparse.engine.serve.turns import Turns


class Gathering(Turns):
    """`spent`: whether one of the requests in the data in hand was gathered; the next waits for its turn, so that the event loop is held
    for one at most. A subclass resets it for new data, and calls `await_rest` behind them."""

    bodies: Bodies
    spent = False
    _gathered: Gathered | None = None
    _patience: asyncio.TimerHandle | None = None

    def on_headers_complete(self) -> None:
        if self._may_gather():
            self._gathered = self.direct.gather(self.url, self.headers)
        if self._gathered is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._gathered is None:
            super().on_body(body)
            return
        self._gathered.add(body)
        if not self.bodies.arriving(len(body)):
            self._hand_over()  # to be refused

    def on_message_complete(self) -> None:
        if (gathered := self._leave()) is not None:
            self.spent = True
            if (answer := self.direct.answer(gathered, self.client)) is not None and self._write(answer):
                self.on_response_complete()
                return
            super().on_headers_complete()
            self.scope[BODY] = gathered  # type: ignore[literal-required]
            self.scope[ANSWER] = partial(self._whole_answer, self.cycle)  # type: ignore[literal-required]
        super().on_message_complete()

    def await_rest(self) -> None:
        """Of a body that has begun: for a while."""
        if self._gathered is not None and self._patience is None:
            self._patience = self.loop.call_later(PATIENCE, self._hand_over)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over()  # to be counted
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._hand_over()  # so that it is answered
        super().shutdown()

    def _may_gather(self) -> bool:
        """One request of what has come at once, so that the loop is held no longer; with TLS, nobody knows how much of a long answer
        was read."""
        if self.spent or self.flow.write_paused or self.scheme != "http" or not (self.cycle is None or self.cycle.response_complete):
            return False
        lasting = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        return lasting and self.parser.get_method() == b"POST" and not self.expect_100_continue

    def _leave(self) -> Gathered | None:
        """What was gathered, which is the connection's no longer."""
        gathered, self._gathered = self._gathered, None
        if gathered is not None:
            self.bodies.arriving(-gathered.taken)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        return gathered

    def _hand_over(self) -> None:
        """The application reads on."""
        if (gathered := self._leave()) is not None:
            super().on_headers_complete()
            if not self.transport.is_closing():
                super().on_body(bytes(gathered.view[: gathered.taken]))

    def _whole_answer(self, cycle: RequestResponseCycle, answer: bytes) -> bool:
        """The same as two messages to `cycle.send`, in one write. False where that has to wait, or to say more."""
        if not cycle.keep_alive or cycle.disconnected or cycle.response_started or self.flow.write_paused or not self._write(answer):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _write(self, answer: bytes) -> bool:
        """False where a long one has no room beside those that wait to be read."""
        more = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        whole = b"".join((STATUS_LINE[200], more, answer))
        if len(whole) <= WATCHED:
            self.transport.write(whole)
            return True
        try:
            with self.bodies.answering(len(whole)):
                self.transport.write(whole)
        except Refused:
            return False
        return True
