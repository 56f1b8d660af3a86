"""Load for a server, from one process: connections that each send a request when the last one is answered, or at given times.

HTTP with binary tensors; httptools parses the answers. `Load` holds latencies in seconds, statuses, and how many answers `check` rejected.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy
import orjson

HEADER = b"inference-header-content-length"


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


class Connection(asyncio.Protocol):
    """One request at a time: `await ask(bytes)` gives status, headers, body."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self.open = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        answer = (self._parser.get_status_code(), self._headers, b"".join(self._parts))
        self._headers, self._parts = {}, []
        self._parser = httptools.HttpResponseParser(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed before the answer"))

    async def ask(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


Check = Callable[[dict[bytes, bytes], bytes], bool]


async def drive(
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
    load, start = Load(), time.perf_counter()
    due = _times(start, rate, clients, count, seconds)

    async def one(place: int) -> None:
        connection = await connect(port)
        for turn, at in enumerate(due):
            if rate:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
            sent = at if rate else time.perf_counter()
            if seconds and sent >= start + seconds:
                break
            try:
                if not connection.open:
                    connection = await connect(port)
                status, headers, body = await connection.ask(requests[(place + turn) % len(requests)])
            except OSError:
                load.broken += 1
                continue
            load.statuses[status] += 1
            (load.latencies if status == 200 else load.refusals).append(time.perf_counter() - sent)
            load.without_retry_after += status in (429, 503) and b"retry-after" not in headers
            load.wrong += status == 200 and check is not None and not check(headers, body)
        connection.close()

    await asyncio.gather(*(one(place) for place in range(clients)))
    load.seconds = time.perf_counter() - start
    return load


def _times(start: float, rate: float, clients: int, count: int, seconds: float) -> Iterator[float]:
    """When requests are due; one sequence that all connections take from."""
    most = count or (round(rate * seconds) if rate else 0)
    number = 0
    while not most or number < most:
        yield start + number / rate if rate else start
        number += 1


def output(headers: dict[bytes, bytes], body: bytes) -> tuple[str, numpy.ndarray]:
    """The checksum of the model that answered, and its first output."""
    length = int(headers[HEADER])
    told = orjson.loads(body[:length])
    shape = told["outputs"][0]["shape"]
    return told["parameters"]["checksum"], numpy.frombuffer(body, numpy.float32, offset=length, count=int(numpy.prod(shape))).reshape(shape)
