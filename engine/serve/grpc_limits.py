"""What bounds the memory of gRPC's messages: those that are still arriving, and answers that their clients have not read; and the calls of
clients without a token.

The library assembles a message before it is seen, but only once it is asked for: until then at most a flow-control window of it, 64 KiB,
is taken from the client. So a call waits for a place before it asks, and there are as many places as messages of --max-body fit into
--max-held. The library is done with a call when all of its answer has gone into the client's flow-control windows; until then it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc

from cosparse.engine.serve import tensors
from cosparse.engine.serve.body import Bodies
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.service import Service
from cosparse.engine.serve.settings import Settings

Context = Any  # grpc.aio.ServicerContext
WATCHED = 64 << 10  # bytes of an answer above which it counts as held until its client has taken it
SHARE = 4  # one in so many of the calls that are open at once may be of a client without a token
AGE = 600  # seconds for which a connection is used; the library's only means against a client that answers pings and reads no answer


class Arrivals:
    """The places of messages that are arriving."""

    def __init__(self, service: Service) -> None:
        self._service, settings = service, service.settings
        self.places = max(1, settings.held_bytes // settings.body_bytes)
        self._free = asyncio.Semaphore(self.places)

    async def read(self, context: Context, method: str) -> Any:
        """The message of a call. Raises Refused where no place is free for as long as a request may take, or it is no message of this
        method; AbortError, the call being over, where it takes longer than --read-timeout."""
        limit = self._service.settings.read_timeout
        try:
            async with asyncio.timeout(limit) if self._free.locked() else contextlib.nullcontext():
                await self._free.acquire()
        except TimeoutError:
            wanted = f"at most {self.places} that arrive at once"
            raise Refused(Kind.MEMORY_FULL, "message", wanted, "more", "try again later", retry_after=1) from None
        timer = asyncio.get_running_loop().call_later(limit, self._late, context)
        try:
            message = await context.read()
        finally:
            timer.cancel()
            self._free.release()
        if message is None or message is grpc.aio.EOF:
            raise tensors.invalid("message", f"the protocol's message for {method}", "none" if message is grpc.aio.EOF else "other bytes")
        return message

    def _late(self, context: Context) -> None:
        wanted = f"a whole request within {self._service.settings.read_timeout:g} s"
        refused = self._service.failed(None, Refused(Kind.SLOW_SENDER, "message", wanted, "a part of it"))
        self._cutting = asyncio.ensure_future(_abort(context, refused))  # kept: the loop does not


def most_calls(settings: Settings) -> int:
    """That are open at once; the library refuses others."""
    return settings.queue + settings.connections


class Strangers:
    """Health checks without the token of a server that has one. A client that leaves their answers in the library keeps its calls open,
    and they may not take all that there are."""

    def __init__(self, service: Service) -> None:
        self._service, self._open = service, 0
        self._most = max(1, most_calls(service.settings) // SHARE)

    def count(self, context: Context, authorization: str | None) -> None:
        """Until the library is done with the call. Raises Refused, which needs no window of the client's, where too many are open."""
        try:
            self._service.admit(authorization)
        except Refused:
            if self._open >= self._most:
                wanted = f"at most {self._most} without a token at once"
                raise Refused(Kind.MEMORY_FULL, "calls", wanted, "more", "try again later, or send the token", retry_after=1) from None
            self._open += 1
            context.add_done_callback(self._leave)

    def _leave(self, context: Context) -> None:
        self._open -= 1


async def _abort(context: Context, refused: Refused) -> None:
    with contextlib.suppress(grpc.aio.AbortError, grpc.aio.BaseError):
        await context.abort(grpc.StatusCode[refused.kind.code], str(refused))


def count_answer(bodies: Bodies, context: Context, size: int) -> None:
    """Counts an answer with the bodies until the library is done with the call. Raises Refused where others wait to be read and there is no
    room beside them."""
    if size <= WATCHED:
        return
    bodies.reserve(size)
    context.add_done_callback(lambda _: bodies.unread(-size))


def options(settings: Settings) -> list[tuple[str, int]]:
    """Of the library's server."""
    patience = max(1000, round(settings.write_timeout * 500))  # milliseconds
    return [
        ("grpc.max_receive_message_length", settings.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 32 << 10),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.bdp_probe", 0),  # it would enlarge what is taken of messages that nobody has asked for
        ("grpc.keepalive_time_ms", patience),  # a peer that does not even answer pings is cut off
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", AGE * 1000),
        ("grpc.max_connection_age_grace_ms", round((settings.timeout + settings.read_timeout + settings.write_timeout) * 1000)),
    ]
