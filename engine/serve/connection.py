"""uvicorn's HTTP connection with the limits that it lacks: on headers, on the time that a request takes to arrive, on connections.

`connection_class(settings)` makes a subclass of uvicorn's protocol on httptools, which does the parsing.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cosparse.engine.serve.settings import Settings

HEADER_BYTES = 32 << 10
SLACK = 2.0  # seconds after which a connection is cut, beyond those after which the application answers 408


def connection_class(settings: Settings) -> type[HttpToolsProtocol]:
    limit, most = settings.read_timeout + SLACK, settings.connections

    class Connection(HttpToolsProtocol):
        """A timer runs while a request arrives; `_head` counts the bytes before the headers are whole, and is None after."""

        _timer: asyncio.TimerHandle | None = None
        _head: int | None = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                self._refuse(503, f"server: expected at most {most} connections, got one more; try again later", b"retry-after: 1\r\n")
                return
            self._timer = self.loop.call_later(limit, self._late)

        def data_received(self, data: bytes) -> None:
            if self._head is not None:
                self._head += len(data)
                if self._timer is None:
                    self._timer = self.loop.call_later(limit, self._late)
            super().data_received(data)
            if self._head is not None and self._head > HEADER_BYTES and not self.transport.is_closing():
                self._refuse(431, f"headers: expected at most {HEADER_BYTES} bytes, got more")

        def on_headers_complete(self) -> None:
            self._head = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._head = 0
            self._stop()
            super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "request: expected HTTP/1.1, got something else")

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self.transport.is_closing():
                return
            if self._head:
                self._refuse(408, f"headers: expected them within {settings.read_timeout:g} s, got a part")
            else:  # nothing yet, or a body after the application has answered
                self.transport.abort()

        def _refuse(self, status: int, text: str, more: bytes = b"") -> None:
            body = b'{"error":"' + text.encode() + b'"}'
            head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, more, len(body)) + body)
            self.transport.close()

    return Connection
