"""Inference requests that a connection takes itself: POST .../infer with binary tensors, up to MOST bytes, kept alive, not compressed.

The body is gathered in one piece of memory in which the tensors lie aligned, so that they are used where they lie. Once it is whole, a
call that may run on the event loop (batcher.py) is answered there and then, without a task, without ASGI's messages; any other goes to the
application as usual, its body with it. Whatever is unusual about a request is left to the application too: nothing is refused here.
"""

from __future__ import annotations

import logging
import re
import time

import numpy

from cosparse.engine.serve import http_infer
from cosparse.engine.serve.models import Model
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.service import Service

log = logging.getLogger("cosparse.serve")

PATH = re.compile(rb"/v2/models/([^/%?#]+)(?:/versions/([^/%?#]+))?/infer")
MOST = 4 << 20
PATIENCE = 0.1
"""Seconds for a body to arrive; what takes longer is read by the application, which bounds the time."""
BODY = "cosparse.body"
"""Key of an ASGI scope: a whole body, `Gathered`."""
ANSWER = "cosparse.answer"
"""Key of an ASGI scope: a function that writes an answer of 200 as a whole, given its lines but for the first; False where it cannot."""
WATCHED = 64 << 10
"""Bytes of an answer above which it counts as held until its client has read it."""

ALIGNMENT = 64
HEADER = http_infer.HEADER.encode()


class Gathered:
    """A body that arrives. `size` is what the client has announced; the memory behind `view` is touched as it arrives."""

    def __init__(self, name: str, version: str, header_length: str, size: int) -> None:
        self.name, self.version, self.header_length = name, version, header_length
        memory = numpy.empty(size + ALIGNMENT, numpy.uint8)
        start = -(memory.ctypes.data + int(header_length)) % ALIGNMENT
        self.view = memoryview(memory)[start : start + size]  # type: ignore[arg-type]
        self.taken = 0
        self.parsed: tuple[Model, http_infer.Request] | None = None  # what was read out of it, for this model

    def add(self, piece: bytes) -> None:
        self.view[self.taken : self.taken + len(piece)] = piece
        self.taken += len(piece)


class Direct:
    """What all connections share."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def draining(self) -> bool:
        return self._service.draining

    def gather(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Gathered | None:
        """Where to put the body of a POST; None where the application should read it."""
        place, stated = PATH.fullmatch(url), dict(headers)
        length, size = stated.get(HEADER, b""), stated.get(b"content-length", b"")
        if place is None or not (length.isdigit() and size.isdigit()) or len(size) > 7 or len(length) > len(size):
            return None
        service, most = self._service, min(MOST, self._service.settings.body_bytes)
        if not 0 < int(size) <= most or int(length) > min(int(size), http_infer.LARGE) or b"content-encoding" in stated:
            return None
        name, version = place[1].decode("latin-1"), (place[2] or b"").decode("latin-1")
        try:
            if service.settings.token:
                service.admit(authorization(headers))
            full = service.models.find(name, version).batcher.full
        except Refused:
            return None
        return None if full else Gathered(name, version, length.decode(), int(size))

    def answer(self, body: Gathered, caller: object) -> bytes | None:
        """The answer's lines but for the first; None where it cannot be given at once. What goes wrong on the way goes wrong again in the
        application, which says so."""
        service, start = self._service, time.perf_counter()
        if service.draining:  # the answer has to say so
            return None
        try:
            model = service.models.find(body.name, body.version)
            request = http_infer.parse(body.view, body.header_length, model, service.settings.max_scale)
            body.parsed = model, request
            outputs = model.batcher.at_once(request.arrays, caller) if request.binary else None
            if outputs is None:
                return None
            answer = lines(*http_infer.answer(model, request, outputs))
        except Exception as error:
            log.debug("left to the application", extra={"reason": str(error)})
            return None
        service.answered(model, "http", start)
        return answer


def authorization(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The header's value. Raises Refused where there are several: whoever checks them in front of this server may have seen another."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) > 1:
        raise Refused(Kind.INVALID, "header Authorization", "one", str(len(given)), "send it once")
    return given[0].decode("latin-1") if given else None


def lines(text: bytes, length: int | None) -> bytes:
    """Headers and body of an answer; length: of the JSON in a binary one."""
    if length is None:
        return b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
    return b"content-type: application/octet-stream\r\ncontent-length: %d\r\n%b: %d\r\n\r\n%b" % (len(text), HEADER, length, text)
