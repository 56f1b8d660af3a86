"""uvicorn's HTTP connection with the limits that it lacks: on headers and trailers, on the time that a request takes to arrive and an
answer to be read, on connections, on the memory of answers that wait to be read.

`connection_class(settings, bodies)` makes a subclass of uvicorn's protocol on httptools, which does the parsing.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cosparse.engine.serve.body import Bodies
from cosparse.engine.serve.direct import Direct
from cosparse.engine.serve.gathering import Gathering
from cosparse.engine.serve.settings import Settings
from cosparse.engine.serve.turns import Stop

HEADER_BYTES = 32 << 10
SLACK = 2.0  # seconds after which a connection is cut, beyond those after which the application answers 408
LOOKS = 4  # at an answer that waits to be read, within the time after which it is given up


def connection_class(settings: Settings, bodies: Bodies, direct: Direct) -> type[HttpToolsProtocol]:
    limit, most = settings.read_timeout + SLACK, settings.connections

    class Connection(Gathering):
        """A timer runs while a request arrives, unless it comes as a whole. `_rest` counts the bytes since its first one, or since the
        headers were whole or a part of the body came: what is neither is headers, trailers or the frame of a chunk."""

        _timer: asyncio.TimerHandle | None = None
        _rest = 0
        _whole = False  # whether the headers are
        _open = False  # whether a request has begun and is not whole
        _trailers = 0  # bytes
        _foreign = False  # whether the client offers another protocol in place of this one
        _watch: asyncio.TimerHandle | None = None
        _unread = 0  # bytes of answers at the last look
        _resumed = False  # whether enough has left since then for more to be written
        _stalled = 0  # looks at which the client had read nothing
        _kept = 0  # bytes of answers that count as held

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch = self.loop.call_later(settings.write_timeout / LOOKS, self._look)
            if len(self.connections) > most:
                self._refuse(503, f"server: expected at most {most} connections, got one more; try again later", b"retry-after: 1\r\n")
                return
            self._timer = self.loop.call_later(limit, self._late)

        def data_received(self, data: bytes) -> None:
            if self.full:
                return
            self._unset_keepalive_if_required()
            self.spent = False
            self._rest += len(data)
            try:
                self._parse(data)
            except httptools.HttpParserError:
                if not self.full and not self.transport.is_closing():
                    self.send_400_response("")
            if (self._rest > HEADER_BYTES or self._trailers > HEADER_BYTES) and not self.transport.is_closing():
                self._refuse_headers()
            if self._timer is None and (self._open or self._rest):
                self._timer = self.loop.call_later(limit, self._late)
            self.await_rest()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._whole, self._open, self._trailers = False, True, 0

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._whole:  # a trailer: whatever it says, the request is already being worked on
                self._trailers += len(name) + len(value) + 4
                return
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEADER_BYTES:  # whole in one read
                self._refuse_headers()
                raise Stop
            self._whole, self._rest = True, 0
            self._foreign = self.parser.should_upgrade()
            if not self._foreign:
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._rest = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._whole, self._open, self._rest = False, False, 0
            if not self._foreign:
                self._stop()
                super().on_message_complete()

        def _parse(self, data: bytes | memoryview) -> None:
            while True:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as upgrade:
                    data = memoryview(data)[upgrade.args[0] :]
                    self._decline()
                    continue
                return

        def _decline(self) -> None:
            """The parser has stopped after headers that offer another protocol, before the body. The offer is declined, as RFC 9110 lets a
            server do: another parser gets the headers without it, and then the rest. Raises HttpParserError where that is no request."""
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise httptools.HttpParserInvalidMethodError
            lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            if self._watch is not None:
                self._watch.cancel()
            self._keep(0)
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self.logger.warning("not HTTP")
            self._refuse(400, "request: expected HTTP/1.1, got something else")

        def pause_writing(self) -> None:
            self._keep(self.transport.get_write_buffer_size())
            super().pause_writing()

        def resume_writing(self) -> None:
            self._keep(0)
            self._resumed = True
            super().resume_writing()

        def _keep(self, size: int) -> None:
            """`size` bytes of an answer lie in the transport, which tells of more than 64 KiB; fewer need no count."""
            bodies.unread(size - self._kept)
            self._kept = size

        def _look(self) -> None:
            """Cuts the connection where an answer has waited for the client, and none of it was read in all that time."""
            size = self.transport.get_write_buffer_size()
            moved = not size or size < self._unread or self._resumed or self.answered
            self._stalled = 0 if moved else self._stalled + 1
            self._unread, self._resumed, self.answered = size, False, False
            if self._stalled >= LOOKS:
                self.transport.abort()
                return
            self._watch = self.loop.call_later(settings.write_timeout / LOOKS, self._look)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self.transport.is_closing():
                return
            if self.pipeline:  # the rest is not read before their turn
                self._timer = self.loop.call_later(limit, self._late)
            elif self._rest and not self._whole:
                self._refuse(408, f"headers: expected them within {settings.read_timeout:g} s, got a part")
            else:  # nothing yet, or a body after the application has answered
                self.transport.abort()

        def _refuse_headers(self) -> None:
            self._refuse(431, f"headers: expected at most {HEADER_BYTES} bytes, got more")

        def _refuse(self, status: int, text: str, more: bytes = b"") -> None:
            answered = self._whole and self.cycle is not None and self.cycle.response_started
            if not answered and not self.answering:  # else the client has its answer, or is in the middle of another
                body = b'{"error":"' + text.encode() + b'"}'
                head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n"
                self.transport.write(head % (status, more, len(body)) + body)
            self.transport.close()
            self.leave()

    Connection.bodies, Connection.direct = bodies, direct
    return Connection
