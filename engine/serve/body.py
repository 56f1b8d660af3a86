"""Reading a request's body within the limits: size, time, and the memory of all bodies together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.settings import Settings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = dict[bytes, bytes]


class Disconnected(Exception):
    """The client left before its request was whole: there is nobody to answer."""


class Bodies:
    """Holds and counts what is being read and worked on, and answers that wait for their clients; memory is counted as it arrives, not as
    it is announced."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._held, self._unread = settings, 0, 0
        metrics.body_bytes.set_function(lambda: self._held)

    @asynccontextmanager
    async def read(self, headers: Headers, receive: Receive, whole: memoryview | None = None) -> AsyncIterator[bytes | memoryview]:
        """The body, held until the block ends. whole: where it is there already. Raises Refused where a limit is passed, Disconnected where
        the client is gone."""
        if whole is not None:
            with self.hold(len(whole)):
                yield whole
            return
        limit, taken, parts = self._settings.body_bytes, 0, []
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(Kind.ENCODING, "header Content-Encoding", "none", "a compressed body", "send it as it is")
        stated = headers.get(b"content-length", b"")
        if stated.isdigit() and int(stated[:20]) > limit:
            await self._discard(headers, receive)
            raise self._too_large(f"{int(stated[:20])} bytes")
        try:
            try:
                async with asyncio.timeout(self._settings.read_timeout):
                    while True:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise Disconnected
                        part = message.get("body", b"")
                        parts.append(part)
                        taken += len(part)
                        self._held += len(part)
                        if taken > limit:
                            raise self._too_large(f"more than {limit} bytes")
                        if self._held > self._settings.held_bytes:
                            raise self._full()
                        if not message.get("more_body"):
                            break
            except TimeoutError:
                wanted = f"a whole request within {self._settings.read_timeout:g} s"
                raise Refused(Kind.SLOW_SENDER, "body", wanted, f"{taken} bytes of it") from None
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self._held -= taken

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Counts a message that a library has assembled, until the block ends. Raises Refused where there is no room beside the others."""
        if self._held + size > self._settings.held_bytes:
            raise self._full()
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    def arriving(self, more: int) -> bool:
        """Counts bytes of a body that a connection gathers; negative where it does no longer. Whether there is room for them."""
        self._held += more
        return self._held <= self._settings.held_bytes

    def unread(self, more: int) -> None:
        """Counts bytes of an answer that its client has not read yet, with the bodies; negative where it has."""
        self._held += more
        self._unread += more

    def reserve(self, size: int) -> None:
        """Counts an answer, which `unread` takes back. Raises Refused where others wait to be read and there is no room beside them: one
        alone may be larger than all that may be held."""
        if self._unread and self._held + size > self._settings.held_bytes:
            raise self._full()
        self.unread(size)

    @contextmanager
    def in_parts(self, size: int) -> Iterator[None]:
        """Counts an answer that is put together from parts, before most of them are computed. Raises Refused: for good where it is larger
        than all that may be held, for now where there is no room beside the others."""
        if size > self._settings.held_bytes:
            limit = f"at most {self._settings.held_bytes} bytes"
            raise Refused(Kind.TOO_LARGE, "answer", limit, f"{size} bytes", "send fewer images at once, or ask for fewer outputs")
        with self.hold(size):
            yield

    @contextmanager
    def answering(self, size: int) -> Iterator[None]:
        """Counts an answer until it is the connection's. Raises as `reserve`."""
        self.reserve(size)
        try:
            yield
        finally:
            self.unread(-size)

    def _full(self) -> Refused:
        wanted = f"at most {self._settings.held_bytes} bytes of bodies at once"
        return Refused(Kind.MEMORY_FULL, "body", wanted, "more", "try again later", retry_after=1)

    def _too_large(self, got: str) -> Refused:
        return Refused(Kind.TOO_LARGE, "body", f"at most {self._settings.body_bytes} bytes", got, "send fewer images at once")

    async def _discard(self, headers: Headers, receive: Receive) -> None:
        """Reads on without keeping anything, for a while: most clients look for an answer only when all is sent. One that waits for
        `100 Continue` has sent nothing yet."""
        if b"expect" in headers:
            return
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
        except TimeoutError:
            return
