"""Load for a server, from one thread: connections that each send a request when the last one is answered, or at given times.

HTTP with binary tensors; httptools parses the answers. One loop around select(), whose timeouts have microseconds: asyncio's wait in whole
milliseconds, and a client of it takes twice as much of the cores that it shares with the server.
`Load` holds latencies in seconds, statuses, and how many answers `check` rejected.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy
import orjson

from cosparse.errors import Error

HEADER = b"inference-header-content-length"
PATIENCE = 60.0
"""Seconds without any answer after which a load ends with an Error."""


@dataclass
class Load:
    """`failures` are answers other than 200 and connections that broke; `wrong` answers that `check` rejected."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    broken: int = 0
    wrong: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        return self.broken + sum(count for status, count in self.statuses.items() if status != 200)

    def summary(self) -> dict[str, Any]:
        found = {"requests": sum(self.statuses.values()), "statuses": {str(k): v for k, v in self.statuses.items()}, "broken": self.broken}
        rate = self.statuses[200] / self.seconds if self.seconds else None
        return found | {"wrong": self.wrong, "per_second": rate and round(rate, 1), **percentiles(self.latencies)}


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Milliseconds; empty without latencies."""
    if not latencies:
        return {}
    low, middle, high, most = numpy.percentile(numpy.array(latencies) * 1e3, (0, 50, 99, 100))
    return {"min_ms": round(low, 4), "p50_ms": round(middle, 4), "p99_ms": round(high, 4), "max_ms": round(most, 4)}


def message(path: str, x: numpy.ndarray, name: str) -> bytes:
    """A whole request, headers included."""
    tensor = {"name": name, "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    text = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    lengths = f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + x.nbytes}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{lengths}\r\n"
    return head.encode() + text + x.tobytes()


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection:
    """One request at a time. `ask` waits for the answer; `send` and `receive` never wait, for a loop around many connections."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.sent = 0.0  # when the request in work was sent, or was due
        self._parts: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._answer: Answer | None = None
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, request: bytes) -> Answer:
        self.begin(request)
        while self.unsent:
            select.select((), (self,), (), PATIENCE)
            self.send()
        while (answer := self.receive()) is None:
            if not select.select((self,), (), (), PATIENCE)[0]:
                raise Error("server", f"an answer within {PATIENCE:g} s", "none", "its log may say why")
        return answer

    def begin(self, request: bytes) -> None:
        self.unsent = memoryview(request)
        self.send()

    def send(self) -> None:
        """What the socket takes of the request. Raises OSError where the connection is broken."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    def receive(self) -> Answer | None:
        """The answer once it is whole. Raises OSError where the connection ends before that."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionError("closed before the answer")
        self._parser.feed_data(data)
        answer, self._answer = self._answer, None
        return answer

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._parts))
        self._headers, self._parts = {}, []
        self._parser = httptools.HttpResponseParser(self)


Check = Callable[[dict[bytes, bytes], bytes], bool]


def drive(
    port: int,
    requests: list[bytes],
    *,
    clients: int,
    seconds: float = 0.0,
    count: int = 0,
    rate: float = 0.0,
    check: Check | None = None,
) -> Load:
    """`clients` connections for `seconds`, or until `count` requests. rate: requests a second of all together, at even times; a latency
    then counts from the time at which the request was due, so that no wait is hidden. 0: as fast as answers come."""
    load, idle, busy = Load(), [Connection(port) for _ in range(clients)], set[Connection]()
    start = time.perf_counter()
    most = count or (round(rate * seconds) if rate else 0)
    number = 0

    def more(now: float) -> bool:
        return (not most or number < most) and not (seconds and not rate and now >= start + seconds)

    def broke(connection: Connection) -> None:
        load.broken += 1
        busy.discard(connection)
        connection.close()
        idle.append(Connection(port))

    while busy or more(time.perf_counter()):
        now = time.perf_counter()
        while idle and more(now) and (due := start + number / rate if rate else now) <= now:
            connection = idle.pop(0)
            connection.sent = due
            busy.add(connection)
            try:
                connection.begin(requests[number % len(requests)])
            except OSError:
                broke(connection)
            number += 1
        wait = max(0.0, start + number / rate - time.perf_counter()) if rate and idle and more(now) else PATIENCE
        writing = [connection for connection in busy if connection.unsent]
        readable, writable, _ = select.select(busy, writing, (), wait)
        if not readable and not writable and wait == PATIENCE:
            raise Error("server", f"an answer within {PATIENCE:g} s", "none", "its log may say why")
        for connection in {*readable, *writable}:
            try:
                if connection.unsent:
                    connection.send()
                answer = connection.receive()
            except OSError:
                broke(connection)
                continue
            if answer is not None:
                _count(load, answer, time.perf_counter() - connection.sent, check)
                busy.remove(connection)
                idle.append(connection)
    load.seconds = time.perf_counter() - start
    for connection in idle:
        connection.close()
    return load


def _count(load: Load, answer: Answer, seconds: float, check: Check | None) -> None:
    good = answer.status == 200
    load.statuses[answer.status] += 1
    (load.latencies if good else load.refusals).append(seconds)
    load.without_retry_after += answer.status in (429, 503) and b"retry-after" not in answer.headers
    load.wrong += good and check is not None and not check(answer.headers, answer.body)


def output(headers: dict[bytes, bytes], body: bytes) -> tuple[str, numpy.ndarray]:
    """The checksum of the model that answered, and its first output."""
    length = int(headers[HEADER])
    told = orjson.loads(body[:length])
    shape = told["outputs"][0]["shape"]
    return told["parameters"]["checksum"], numpy.frombuffer(body, numpy.float32, offset=length, count=int(numpy.prod(shape))).reshape(shape)
