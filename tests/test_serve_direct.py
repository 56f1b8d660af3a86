"""Requests that the connection answers itself: the same bytes as the application's, whatever way they come; and its limits hold."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import pytest
from serve_parts import Gate, Running, binary, images, request, serving, until, write

import cosparse
from cosparse.engine.serve import direct, gathering, http_app
from cosparse.engine.serve import models as served

PATH = "/v2/models/small/infer"
CLASSES = 10


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("direct") / "small.cosparse", classes=CLASSES)


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[Running]:
    with serving(file) as running:
        yield all_short(running)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models of requests that reach the application."""
    names, usual = [], http_app.Infer.__call__

    async def called(self: http_app.Infer, scope: Any, receive: Any, send: Any, name: str, version: str) -> None:
        names.append(name)
        await usual(self, scope, receive, send, name, version)

    monkeypatch.setattr(http_app.Infer, "__call__", called)
    return names


class Client:
    """One connection; answers in the order in which they come."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.answers: list[tuple[int, dict[bytes, bytes], bytes]] = []
        self._parser = httptools.HttpResponseParser(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.answers.append((self._parser.get_status_code(), self._headers, self._body))

    def get(self, count: int) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        while len(self.answers) < count:
            data = self.socket.recv(1 << 16)
            assert data, "closed before the answer"
            self._parser.feed_data(data)
        found, self.answers = self.answers[:count], self.answers[count:]
        return found

    def ask(self, message: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        self.socket.sendall(message)
        return self.get(1)[0]


def message(body: bytes | str, headers: dict[str, str], path: str = PATH, first: str = "POST {} HTTP/1.1") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = [first.format(path), "Host: x", f"Content-Length: {len(content)}", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def all_short(running: Running) -> Running:
    """However long a busy machine makes a call of these small networks, it may run on the event loop."""
    for model in running.server.models.all():
        model.batcher._short = 60.0
    return running


def warm(client: Client, x: np.ndarray) -> None:
    """So that the pace of a call is known, and the client for the only one."""
    for _ in range(4):
        assert client.ask(message(*binary(x)))[0] == 200


def test_a_client_alone_is_answered_without_the_application(server: Running, file: Path, applied: list[str]) -> None:
    x = images(2, seed=3)
    with Client(server.port) as client:
        warm(client, x)
        before = len(applied)
        counted = server.metric('cosparse_requests_total{model="small"')
        for _ in range(5):
            status, headers, body = client.ask(message(*binary(x)))
            assert status == 200
    assert len(applied) == before
    length = int(headers[b"inference-header-content-length"])
    told = json.loads(body[:length])
    assert headers[b"content-type"] == b"application/octet-stream"
    assert b"date" in headers
    assert told["outputs"][0]["shape"] == [2, CLASSES]
    expected = cosparse.load(file, threads=1)(x)
    assert np.array_equal(np.frombuffer(body[length:], np.float32).reshape(2, CLASSES), expected)
    until(lambda: server.metric('cosparse_requests_total{model="small"') == counted + 5)


def test_whatever_the_request_the_answer_is_the_applications(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(1)
    body, headers = binary(x)
    length = headers["Inference-Header-Content-Length"]
    header = {"Inference-Header-Content-Length": length}
    mixed = json.dumps(
        {"inputs": [json.loads(request(x))["inputs"][0] | {"data": [1.0] * x.size}], "parameters": {"binary_data_output": True}}
    )
    wanted = json.loads(body[: int(length)]) | {"id": "q", "outputs": [{"name": "linear", "parameters": {"binary_data": False}}]}
    numbers = json.dumps(wanted).encode()
    messages = {
        "plain": message(body, header),
        "version": message(body, header, "/v2/models/small/versions/1/infer"),
        "no such version": message(body, header, "/v2/models/small/versions/7/infer"),
        "no such model": message(body, header, "/v2/models/other/infer"),
        "query": message(body, header, f"{PATH}?a=b"),
        "escaped": message(body, header, "/v2/models/sm%61ll/infer"),
        "json": message(request(x), {}),
        "numbers, binary answer": message(mixed, {"Inference-Header-Content-Length": str(len(mixed))}),
        "binary, answer in numbers": message(numbers + body[int(length) :], {"Inference-Header-Content-Length": str(len(numbers))}),
        "empty": message(b"", {"Inference-Header-Content-Length": "0"}),
        "length of header too large": message(body, {"Inference-Header-Content-Length": str(len(body) + 1)}),
        "length of header no number": message(body, {"Inference-Header-Content-Length": "1e3"}),
        "length of header huge": message(body, {"Inference-Header-Content-Length": "9" * 5000}),
        "more bytes": message(body + b"1234", header),
        "fewer bytes": message(body[:-4], header),
        "compressed": message(body, header | {"Content-Encoding": "gzip"}),
        "expects to be told": message(body, header | {"Expect": "100-continue"}),
        "wrong shape": message(*binary(x, shape=[1, 3, 8, 9])),
        "closes": message(body, header | {"Connection": "close"}),
        "older": message(body, header, first="POST {} HTTP/1.0"),
        "older, kept": message(body, header | {"Connection": "keep-alive"}, first="POST {} HTTP/1.0"),
        "put": message(body, header, first="PUT {} HTTP/1.1"),
    }

    def answers() -> dict[str, Any]:
        found = {}
        for name, text in messages.items():
            with Client(server.port) as client:
                warm(client, x)
                client.socket.sendall(text)
                count = 2 if name == "expects to be told" else 1
                *_, (status, head, content) = client.get(count)
                found[name] = status, {key: value for key, value in head.items() if key != b"date"}, content
        return found

    ours = answers()
    monkeypatch.setattr(direct.Direct, "gather", lambda *_: None)
    theirs = answers()
    assert ours == theirs
    assert {name for name, (status, _, _) in ours.items() if status == 200} >= {"plain", "version", "json", "closes", "older"}


@pytest.mark.parametrize("pause", [0.0, 0.005])
def test_a_body_in_pieces(server: Running, file: Path, applied: list[str], pause: float) -> None:
    x = images(8, seed=5)
    text = message(*binary(x))
    with Client(server.port) as client:
        warm(client, x)
        before = len(applied)
        for size in (1, 97, 1 << 12, len(text) - 1):
            start = 0 if size > 1 else text.index(b"\r\n\r\n") + 400  # byte by byte around the end of the JSON, at least
            client.socket.sendall(text[:start])
            for at in range(start, min(start + 12 * size, len(text)), size):
                client.socket.sendall(text[at : min(at + size, start + 12 * size)])
                time.sleep(pause)
            client.socket.sendall(text[start + 12 * size :])
            ((status, headers, body),) = client.get(1)
            assert status == 200
            got = np.frombuffer(body[int(headers[b"inference-header-content-length"]) :], np.float32)
            assert np.array_equal(got, cosparse.load(file, threads=1)(x).ravel())
        assert len(applied) < before + 4  # a busy machine may take longer than PATIENCE over one of them
    assert server.metric("cosparse_body_bytes") == 0


def test_the_application_reads_on_where_a_body_is_slow(server: Running, applied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PATIENCE", 0.01)
    text = message(*binary(images(4)))
    with Client(server.port) as client:
        warm(client, images(4))
        before = len(applied)
        client.socket.sendall(text[:-1000])
        until(lambda: len(applied) == before + 1)
        client.socket.sendall(text[-1000:])
        assert client.get(1)[0][0] == 200
        assert client.ask(text)[0] == 200
    assert len(applied) == before + 1
    assert server.metric("cosparse_body_bytes") == 0


def test_slow_senders_are_cut_off(file: Path) -> None:
    with serving(file, read_timeout=0.2) as running:
        with Client(running.port) as client:
            status, _, body = client.ask(message(*binary(images(1)))[:-1])
            assert status == 408
            assert b"body: expected a whole request within 0.2 s" in body
        assert running.metric("cosparse_body_bytes") == 0


@pytest.mark.parametrize("numbers", [(), (0,), (3, 8)], ids=["binary", "first is JSON", "some are JSON"])
def test_requests_that_come_together_are_answered_in_order(
    server: Running, file: Path, applied: list[str], numbers: tuple[int, ...]
) -> None:
    """Of those in a piece of data one at most is answered at once, so that the event loop is not held for all."""
    engine, several = cosparse.load(file, threads=1), [images(1, seed=seed) for seed in range(12)]
    texts = [message(request(x), {}) if place in numbers else message(*binary(x)) for place, x in enumerate(several)]
    with Client(server.port) as client:
        warm(client, several[0])
        before = len(applied)
        client.socket.sendall(b"".join(texts))
        for place, (x, (status, headers, body)) in enumerate(zip(several, client.get(len(texts)), strict=True)):
            assert status == 200
            if place in numbers:
                got = np.array(json.loads(body)["outputs"][0]["data"], np.float32)
            else:
                got = np.frombuffer(body[int(headers[b"inference-header-content-length"]) :], np.float32)
            assert np.allclose(got, engine(x).ravel(), rtol=1e-5, atol=1e-5), place
    assert len(applied) - before >= 9


def test_tensors_lie_aligned() -> None:
    for length in (1, 64, 131, 4000):
        for size in (length, length + 4, length + 40_000):
            body = direct.Gathered("m", "", str(length), size)
            assert len(body.view) == size
            if size > length:
                assert np.frombuffer(body.view[length:], np.uint8).ctypes.data % 64 == 0


def test_a_client_that_leaves_before_its_body_is_whole(server: Running, applied: list[str]) -> None:
    gone = 'cosparse_request_failures_total{model="small",reason="disconnected"}'
    before = server.metric(gone)
    for count in (1, 200):
        with Client(server.port) as client:
            client.socket.sendall(message(*binary(images(count)))[:-1])
            until(lambda count=count: server.metric("cosparse_body_bytes") > 768 * count)
    until(lambda: server.metric(gone) == before + 2)
    assert server.metric("cosparse_body_bytes") == 0


def test_the_memory_of_all_bodies_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PATIENCE", 30.0)
    text = message(*binary(images(8)))
    with serving(file, held_bytes=3 * len(text)) as running:
        clients = [Client(running.port) for _ in range(4)]
        for place, client in enumerate(clients):
            client.socket.sendall(text[:-1])
            if place < 3:
                until(lambda place=place: running.metric("cosparse_body_bytes") > place * 6000)
        status, headers, body = clients[3].get(1)[0]
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert b"of bodies at once" in body
        for client in clients[:3]:
            client.socket.sendall(text[-1:])
            assert client.get(1)[0][0] == 200
        for client in clients:
            client.socket.close()
        assert running.metric("cosparse_body_bytes") == 0


def test_a_request_in_arrival_is_answered_when_the_server_is_told_to_stop(
    file: Path, applied: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PATIENCE", 30.0)
    text, clients = message(*binary(images(8))), []

    def serve() -> None:
        with serving(file) as running:
            clients.append(Client(running.port))
            clients[0].socket.sendall(text[:-1])
            until(lambda: running.metric("cosparse_body_bytes") > 6000)

    thread = threading.Thread(target=serve)
    thread.start()
    until(lambda: applied == ["small"])  # the end of the block has told it
    clients[0].socket.sendall(text[-1:])
    status, headers, _ = clients[0].get(1)[0]
    assert (status, headers[b"connection"]) == (200, b"close")
    thread.join(20)
    clients[0].socket.close()
    assert not thread.is_alive()


def test_long_answers_are_counted_until_they_are_read(tmp_path: Path, applied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    paused, usual = [], gathering.Gathering._write
    monkeypatch.setattr(gathering.Gathering, "_write", lambda self, answer: paused.append(self.flow.write_paused) or usual(self, answer))
    file, x, count = write(tmp_path / "small.cosparse", classes=20_000), images(1), 0
    expected = cosparse.load(file, threads=1)(x).ravel()
    with serving(file, held_bytes=150_000) as running, Client(running.port) as client:
        all_short(running)
        warm(client, x)
        before = len(applied)
        for _ in range(3):
            status, headers, body = client.ask(message(*binary(x)))
            assert np.array_equal(np.frombuffer(body[int(headers[b"inference-header-content-length"]) :], np.float32), expected)
        assert len(applied) == before
        assert client.ask(message(request(x), {}))[0] == 200
        text, headers = binary(x)
        length = int(headers["Inference-Header-Content-Length"])
        header = json.dumps(json.loads(text[:length]) | {"parameters": {}}).encode()
        status, headers, _ = client.ask(message(header + text[length:], {"Inference-Header-Content-Length": str(len(header))}))
        assert (status, headers[b"content-type"]) == (200, b"application/json")
        assert len(applied) == before + 2  # long texts are made beside the event loop
        until(lambda: not any(isinstance(found, direct.Gathered) for found in gc.get_objects()))  # nothing keeps the bodies
        while running.metric("cosparse_body_bytes") < 64_000:  # what the system's buffers do not hold
            client.socket.sendall(message(*binary(x)))
            count += 1
        client.socket.sendall(message(*binary(x)) * 20)
        count += 20
        assert paused.count(False) > 8
        assert not any(paused)
        with Client(running.port) as other:
            status, headers, _ = other.ask(message(*binary(x)))
            assert (status, headers[b"retry-after"]) == (503, b"1")
        answers = client.get(count)
        assert {status for status, *_ in answers[:50]} == {200}
        for status, headers, body in answers:
            assert status in (200, 503)  # the last ones had no room beside their own predecessors
            if status == 200:
                assert np.array_equal(np.frombuffer(body[int(headers[b"inference-header-content-length"]) :], np.float32), expected)
        until(lambda: running.metric("cosparse_body_bytes") == 0)


def test_a_fault_of_the_engine_is_told_and_counted_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        wrong = False

        def __init__(self) -> None:
            self._engine = cosparse.load(file, threads=1)

        def __call__(self, *arrays: Any) -> Any:
            if self.wrong:
                raise ZeroDivisionError("secret")
            return self._engine(*arrays)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    engine = Failing()
    monkeypatch.setattr(served, "load", lambda *_, **__: engine)
    with serving(file) as running, Client(running.port) as client:
        warm(client, images(1))
        engine.wrong = True
        status, _, body = client.ask(message(*binary(images(1))))
        assert status == 500
        assert b"secret" not in body
        engine.wrong = False
        assert client.ask(message(*binary(images(1))))[0] == 200
        assert running.metric("cosparse_request_failures_total") == 1


def test_a_request_that_must_wait_goes_to_the_application(file: Path, applied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(cosparse.load(file, threads=1))
    monkeypatch.setattr(served, "load", lambda *_, **__: gate)
    with serving(file, workers=1) as running, Client(running.port) as one, Client(running.port) as two:
        one.socket.sendall(message(*binary(images(1))))
        until(lambda: gate.entered == 1)
        two.socket.sendall(message(*binary(images(1))))
        until(lambda: len(applied) == 2)
        gate.open.set()
        assert one.get(1)[0][0] == two.get(1)[0][0] == 200
