"""Limits: what is too large, too slow, too much or no HTTP is refused, and the server goes on."""

from __future__ import annotations

import gc
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_parts import Gate, Running, binary, certificate, images, request, serving, until, write

import cosparse
from cosparse.engine.serve import models as served
from cosparse.engine.serve import turns
from cosparse.engine.serve.body import Bodies
from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.settings import Settings


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("limits") / "small.cosparse")


@pytest.fixture(scope="module")
def strict(file: Path) -> Iterator[Running]:
    """Small limits, so that they are soon passed."""
    with serving(file, body_bytes=20_000, held_bytes=60_000, read_timeout=0.3, connections=8) as running:
        yield running


@pytest.fixture
def gate(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The engine of servers made after this; it answers once `gate.open` is set."""
    made = Gate(cosparse.load(file, threads=1))
    monkeypatch.setattr(served, "load", lambda *_, **__: made)
    yield made
    made.open.set()


def send(port: int, *parts: bytes, close: bool = False) -> bytes:
    """What comes back on a plain connection until the server closes it or nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


HEAD = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\n"


def test_a_body_too_large_by_its_header(strict: Running) -> None:
    status, got, headers = strict.ask("POST", "/v2/models/small/infer", b"x" * 50_000)
    assert (status, headers["connection"]) == (413, "close")
    assert got["error"] == "body: expected at most 20000 bytes, got 50000 bytes; send fewer images at once"


def test_a_body_too_large_that_does_not_say_so(strict: Running) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (4096, b"x" * 4096) for _ in range(6)) + b"0\r\n\r\n"
    assert send(strict.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunks).startswith(b"HTTP/1.1 413")


def test_a_client_that_waits_to_be_told_is_told(strict: Running) -> None:
    assert send(strict.port, HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_slow_senders_are_cut_off(strict: Running) -> None:
    body = send(strict.port, HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert body.startswith(b"HTTP/1.1 408")
    assert b"body: expected a whole request within 0.3 s, got 1 bytes of it" in body
    headers = send(strict.port, b"POST /v2/mod")
    assert headers.startswith(b"HTTP/1.1 408")
    assert b"headers: expected them within 0.3 s" in headers
    assert send(strict.port) == b""  # who says nothing gets nothing
    assert strict.metric('cosparse_request_failures_total{model="small",reason="slow_sender"}') == 1


def test_a_body_that_ends_early_is_nobodys_request(strict: Running) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        until(lambda: strict.metric("cosparse_body_bytes") == 1)
    until(lambda: strict.metric('cosparse_request_failures_total{model="small",reason="disconnected"}') == 1)
    assert strict.metric("cosparse_body_bytes") == 0
    assert strict.infer(images(1))[0] == 200


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: " + b"b" * 40_000 + b"\r\n", b"431"),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 8_000, b"431"),
        (b"GET /v2 HTTP/1.1\r\na: " + b"b" * 33_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 33_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\na: " + b"b" * 17_000 + b"\r\n\r\n", b"431"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\nGET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 8_000 + b"\r\n", b"431"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", b"400"),
        (HEAD + b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: -5\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_what_is_not_http(strict: Running, message: bytes, status: bytes) -> None:
    answer = send(strict.port, message)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert strict.infer(images(1))[0] == 200


WHOLE = request(images(1)).encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n%s\r\n" + b"%x\r\n%s\r\n0\r\n" % (len(WHOLE), WHOLE)
CLOSE = b"Connection: close\r\n"


def test_trailers_are_counted_as_headers_and_never_taken_for_them(file: Path, strict: Running) -> None:
    trailer = b"Content-Encoding: gzip\r\n\r\n"
    answers = send(strict.port, CHUNKED % b"" + trailer + CHUNKED % CLOSE + trailer)
    assert answers.count(b"HTTP/1.1 200") == 2
    with serving(file, token="secret") as server:
        for many in (b"A:\r\n" * 10_000, b"A" * 40_000):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
                connection.sendall(CHUNKED % b"Authorization: Bearer secret\r\n")
                until(lambda: server.server.service.bodies._held == len(WHOLE))
                connection.sendall(many)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 431"), answer[:100]
            assert b"headers: expected at most 32768 bytes, got more" in answer
            until(lambda: server.server.service.bodies._held == 0)
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:  # who has an answer gets no other
                connection.sendall(CHUNKED % b"")
                assert connection.recv(4096).startswith(b"HTTP/1.1 401")
                connection.sendall(many)
                assert b"431" not in b"".join(iter(lambda: connection.recv(4096), b""))


def test_another_protocol_that_is_offered_is_declined(strict: Running) -> None:
    """As Java's HttpClient offers it with every first request."""
    offer = b"Connection: Upgrade, HTTP2-Settings%s\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    post = HEAD + offer + b"Content-Length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE.replace(b"%", b"%%"))
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    answers = send(strict.port, (post + get) % (b"", b""), (CHUNKED % (offer % b"") + b"\r\n" + get % b", close"))
    assert answers.count(b"HTTP/1.1 200") == 4
    assert answers.count(b'{"live":true}') == 2
    assert send(strict.port, b"CONNECT x:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_requests_that_wait_for_the_answers_before_theirs_are_few(strict: Running) -> None:
    """Those that are too many are not answered: the connection ends with the answers that are due."""
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    few = turns.WAITING + 1  # with the one in front
    answers = send(strict.port, get * (few - 1) + get.replace(b"Host", CLOSE + b"Host"))
    assert answers.count(b"HTTP/1.1 200") == few
    answers = send(strict.port, get * 8000)
    assert answers.count(b"HTTP/1.1 200") == few
    assert answers.count(b"connection: close") == 1
    assert b"connection: close" in answers.rpartition(b"HTTP/1.1 200")[2]


def test_nothing_is_read_while_requests_wait(file: Path, gate: Gate) -> None:
    """Whatever asks for it: the first request for its body, uvicorn after each answer."""
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(file) as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE) + get)
        until(lambda: gate.entered == 1)
        connection.sendall(get * 200)
        time.sleep(0.2)  # in which they could arrive
        (held,) = [found for found in gc.get_objects() if isinstance(found, turns.Turns) and found.pipeline]
        assert len(held.pipeline) == 1
        gate.open.set()
        assert b"200" in connection.recv(100)


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not(tmp_path: Path, tls: bool) -> None:
    body, headers = binary(images(64))
    whole = HEAD.replace(b"small", b"wide") + b"".join(f"{key}: {value}\r\n".encode() for key, value in headers.items())
    whole += CLOSE + b"Content-Length: %d\r\n\r\n" % len(body) + body
    size, wide = 64 * 50_000 * 4, write(tmp_path / "wide.cosparse", classes=50_000)
    context = ssl._create_unverified_context() if tls else None

    def asking(server: Running) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        made = context.wrap_socket(made) if context else made
        made.sendall(whole)
        return made

    # Long enough for the second answer while the first is held, on a machine that is slow or watched by a sanitizer.
    with serving(wide, write_timeout=1.5, held_bytes=size + 4_000_000, **(certificate(tmp_path) if tls else {})) as server:
        held = server.server.service.bodies
        with asking(server):
            until(lambda: held._unread > size / 4)  # what the system's buffers do not hold is counted
            with asking(server) as other:
                head, _, text = b"".join(iter(lambda: other.recv(4096), b"")).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503")
                assert b"retry-after: 1" in head
                assert b"bytes of bodies at once" in text
            until(lambda: held._unread == held._held == 0)
        with asking(server) as slow:
            taken = 0
            while taken < size:
                part = slow.recv(1 << 19)
                assert part, taken
                if taken >> 19 < (taken := taken + len(part)) >> 19:
                    time.sleep(0.07)


def test_a_compressed_body(strict: Running) -> None:
    status, got, _ = strict.infer(images(1), headers={"Content-Encoding": "gzip"})
    assert status == 415
    assert got["error"] == "header Content-Encoding: expected none, got a compressed body; send it as it is"


def test_too_many_connections(strict: Running) -> None:
    opened = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(8)]
    try:
        answer = send(strict.port)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
    finally:
        for connection in opened:
            connection.close()
    until(lambda: strict.infer(images(1))[0] == 200)


def test_the_memory_of_all_bodies_is_bounded(strict: Running) -> None:
    opened = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(5)]
    try:
        for connection in opened:
            connection.sendall(HEAD + b"Content-Length: 19000\r\n\r\n" + b"x" * 18_000)
        found = [connection.recv(65536) for connection in opened]
        assert sum(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer for answer in found) == 2
        assert sum(answer.startswith(b"HTTP/1.1 408") for answer in found) == 3
    finally:
        for connection in opened:
            connection.close()
    assert strict.metric("cosparse_body_bytes") == 0


def test_the_memory_of_requests_over_grpc_is_bounded_with_them(file: Path, gate: Gate) -> None:
    """What a library has assembled counts too, for as long as it waits for its answer."""
    import tritonclient.grpc as client

    x = images(20)
    value = client.InferInput("x", list(x.shape), "FP32")
    value.set_data_from_numpy(x)
    with (
        serving(file, max_batch=1, held_bytes=2 * x.nbytes + 2000, timeout=20) as server,
        client.InferenceServerClient(server.grpc) as triton,
    ):
        found: list[Any] = []
        waiting = [threading.Thread(target=lambda: found.append(triton.infer("small", [value]))) for _ in range(2)]
        for count, thread in enumerate(waiting):
            thread.start()
            until(lambda count=count: server.metric("cosparse_body_bytes") >= (count + 1) * x.nbytes)
        with pytest.raises(
            client.InferenceServerException, match=r"RESOURCE_EXHAUSTED.*bytes of bodies at once, got more; try again later"
        ):
            triton.infer("small", [value])
        gate.open.set()
        for thread in waiting:
            thread.join(20)
        assert [answer.as_numpy("linear").shape for answer in found] == [(20, 10)] * 2
        assert triton.infer("small", [value]).as_numpy("linear").shape == (20, 10)
        until(lambda: server.metric("cosparse_body_bytes") == 0)
        assert server.metric('cosparse_request_failures_total{model="",reason="memory_full"}') == 1


def test_an_answer_in_parts_has_its_room_before_it_is_computed(file: Path, gate: Gate) -> None:
    gate.open.set()
    body, headers = binary(images(50))  # the answer: 2000 bytes
    held = len(body) + 1500
    with serving(file, max_batch=1, held_bytes=held) as server:
        status, got, answered = server.ask("POST", "/v2/models/small/infer", body, headers)
        assert (status, answered["retry-after"]) == (503, "1")
        assert got["error"] == f"body: expected at most {held} bytes of bodies at once, got more; try again later"
        assert 0 < gate.entered < 10
        body, headers = binary(images(20))
        assert server.ask("POST", "/v2/models/small/infer", body, headers)[0] == 200
        until(lambda: server.metric("cosparse_body_bytes") == 0)


def test_an_answer_that_never_has_room_says_so(tmp_path: Path) -> None:
    bodies = Bodies(Settings(tmp_path, held_bytes=1000), Metrics())
    reason = "answer: expected at most 1000 bytes, got 1001 bytes; send fewer images at once"
    with pytest.raises(Refused, match=reason) as refused, bodies.in_parts(1001):
        pass
    assert refused.value.kind is Kind.TOO_LARGE


def test_a_full_queue(file: Path, gate: Gate) -> None:
    with serving(file, queue=2, max_batch=1, timeout=20) as server:
        found: list[Any] = []
        workers = [threading.Thread(target=lambda: found.append(server.infer(images(1))[0])) for _ in range(3)]
        for count, worker in enumerate(workers):
            worker.start()
            until(lambda count=count: gate.entered == 1 and server.metric("cosparse_queue_requests") == count)
        status, got, headers = server.infer(images(1))
        assert (status, got["error"]) == (429, "model 'small': expected a queue of at most 2 requests, got a full one; try again later")
        assert int(headers["retry-after"]) >= 1
        gate.open.set()
        for worker in workers:
            worker.join(20)
        assert found == [200, 200, 200]
        assert server.infer(images(1))[0] == 200
        assert server.metric('cosparse_request_failures_total{model="small",reason="queue_full"}') == 1


def test_timeouts_of_the_server_and_of_the_request(file: Path, gate: Gate) -> None:
    with serving(file, timeout=0.2, max_batch=1) as server:
        status, got, _ = server.infer(images(1))
        assert (status, got["error"]) == (
            504,
            "model 'small': expected an answer within 0.2 s, got none yet; try again, or allow more time",
        )
        status, got, _ = server.infer(images(1), parameters={"timeout": 50_000})
        assert (status, "within 0.05 s" in got["error"]) == (504, True)
        gate.open.set()
        until(lambda: server.infer(images(1))[0] == 200)


def test_a_fault_of_ours_is_a_500_without_its_secrets(file: Path, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    gate._engine = None  # calling it raises TypeError
    gate.name, gate.inputs, gate.outputs, gate.warmup = "small", (), (), lambda batches: None  # type: ignore[attr-defined]
    gate.inputs = cosparse.load(file, threads=1).inputs  # type: ignore[attr-defined]
    gate.open.set()
    with serving(file) as server:
        status, got, _ = server.infer(images(1))
    assert (status, got["error"]) == (500, "server: expected an answer, got TypeError; its log has the reason")
    assert "engine failed" in caplog.text


def test_the_repository_is_closed_unless_asked_for(strict: Running) -> None:
    for action in ("load", "unload"):
        status, got, _ = strict.ask("POST", f"/v2/repository/models/small/{action}", "{}")
        assert status == 403
        assert got["error"] == "model repository: expected a server started with --control, got one without; change the files instead"


def test_one_connection_serves_many_requests_and_refusals(strict: Running) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=10)
    body, headers = binary(images(1))
    for turn in range(20):
        connection.request("POST", "/v2/models/small/infer", body if turn % 2 else b"{", headers if turn % 2 else {})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == (200 if turn % 2 else 400)
    connection.close()


def test_a_port_that_is_taken(file: Path, strict: Running) -> None:
    for option, port in (("http_port", strict.port), ("grpc_port", int(strict.grpc.rsplit(":", 1)[1]))):
        with pytest.raises(cosparse.Error, match=f"--host, --{option[:4]}-port: expected an address to listen on, 127.0.0.1:{port}"):  # noqa: SIM117
            with serving(file, **{option: port}):
                pass


def test_two_tokens_are_none(file: Path) -> None:
    """A proxy in front may have looked at the other one."""
    good, wrong = b"Authorization: Bearer secret\r\n", b"authorization: Bearer wrong\r\n"
    body, headers = binary(images(1))
    short = b"".join(f"{key}: {value}\r\n".encode() for key, value in headers.items())
    with serving(file, token="secret") as server:
        for given, status in ((good, b"200"), (wrong + good, b"400"), (good + wrong, b"400"), (good * 2, b"400")):
            for more, text in ((b"", WHOLE), (short, body)):
                answer = send(server.port, HEAD + CLOSE + given + more + b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
                assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
        assert answer.endswith(b'{"error":"header Authorization: expected one, got 2; send it once"}')


def test_who_does_not_begin_tls_is_cut_off(file: Path, tmp_path: Path) -> None:
    with serving(file, read_timeout=0.5, **certificate(tmp_path)) as server:
        assert send(server.port) == b""
