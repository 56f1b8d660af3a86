"""`cosparse serve` as a process: options, ports, JSON, SIGTERM while requests are in flight, and no torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from serve_parts import Gate, binary, images, request, serving, until, write

import cosparse
from cosparse.cli import run
from cosparse.engine.serve import models, turns


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("process") / "small.cosparse")


@contextmanager
def process(
    file: Path, tmp_path: Path, *options: str, before: str = ":", **environment: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """before: a command of the shell that starts it."""
    where = tmp_path / "started.json"
    command = [sys.executable, "-m", "cosparse", "serve", str(file), "--http-port", "0", "--grpc-port", "0", "--json", str(where), *options]
    command = ["sh", "-c", f'{before}; exec "$@"', "sh", *command]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, text=True, env={**os.environ, **environment})
    try:
        until(lambda: where.exists() or server.poll() is not None, 60)
        assert server.poll() is None, (tmp_path / "log").read_text()
        yield server, json.loads(where.read_text())
    finally:
        server.kill()
        server.wait(20)


def test_it_drains_on_sigterm(file: Path, tmp_path: Path) -> None:
    """A request that is on its way when the signal comes is answered; a new connection is refused; the status is 0."""
    with process(file, tmp_path, "--threads", "1", "--max-delay", "1000") as (server, started):
        port = int(started["http"].rsplit(":", 1)[1])
        assert started["pid"] == server.pid
        assert started["models"] == [{"name": "small", "version": "1", "state": "READY", "reason": ""}]
        body = request(images(1)).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(0.3)  # it waits for others, for a second
            server.send_signal(signal.SIGTERM)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert server.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [event["event"] for event in events][-1] == "stopped"
    assert {"loaded", "ready", "draining"} <= {event["event"] for event in events}
    assert all({"time", "level", "event"} <= event.keys() for event in events)


def test_stopped_under_load_it_refuses_what_it_cannot_answer_in_time_and_its_status_is_0(tmp_path: Path) -> None:
    """A thread that is inside the engine when the process ends would abort it."""
    slow = write(tmp_path / "slow.cosparse", channels=32, size=32)
    body, headers = binary(images(2048, shape=(3, 32, 32)))
    head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    whole = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with process(slow, tmp_path, "--threads", "1", "--drain", "1", "--max-batch", "512") as (server, started):
        port = int(started["http"].rsplit(":", 1)[1])
        clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(6)]
        for client in clients:
            client.sendall(whole)
        server.send_signal(signal.SIGTERM)
        answers = [b"".join(iter(partial(client.recv, 1 << 20), b"")) for client in clients]
        assert server.wait(60) == 0, (tmp_path / "log").read_text()
    refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200")]
    assert refused
    for answer in refused:
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer
        error = "server: expected to run until the answer, got told to stop; try again later"
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": error}
    assert "trace" not in (tmp_path / "log").read_text().lower()


def test_while_it_drains_each_answer_is_its_connections_last(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no request is lost: neither one in flight, nor one within the delay, nor one of a client that had not been told."""
    gate = Gate(cosparse.load(file, threads=1))
    monkeypatch.setattr(models, "load", lambda *_, **__: gate)
    monkeypatch.setattr(turns, "LAST", 5.0)
    get, body = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", request(images(1)).encode()
    running = serving(file, drain_delay=1.0)
    server = running.__enter__()
    ending = threading.Thread(target=running.__exit__, args=(None, None, None))
    flying, coming, late = (socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(3))
    with flying, coming, late:
        try:
            for connection in (coming, late):
                connection.sendall(get)
                answer = b""
                while not answer.endswith(b"}"):
                    answer += connection.recv(4096)
                assert b"connection: close" not in answer
            flying.sendall(b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            until(lambda: gate.entered == 1)
        finally:
            ending.start()
        until(lambda: server.server.service.draining)
        gate.open.set()
        coming.sendall(get)
        answers = [b"".join(iter(partial(connection.recv, 4096), b"")) for connection in (flying, coming)]
        until(lambda: refused(server.port))
        late.sendall(get)
        answers.append(b"".join(iter(partial(late.recv, 4096), b"")))
    ending.join(20)
    assert not ending.is_alive()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer


def refused(port: int) -> bool:
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) != 0


def test_an_answer_to_a_connection_that_was_refused_meanwhile_is_no_fault(file: Path, tmp_path: Path) -> None:
    """Nor is it written: neither that of the request in work, nor that of the one behind it."""
    body = request(images(1)).encode()
    post = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with process(file, tmp_path, "--threads", "1", "--max-delay", "300") as (server, started):
        with socket.create_connection(("127.0.0.1", int(started["http"].rsplit(":", 1)[1])), timeout=20) as connection:
            connection.sendall(post * 2 + b"rubbish\r\n\r\n")
            assert b"".join(iter(partial(connection.recv, 4096), b"")).startswith(b"HTTP/1.1 400")
        server.send_signal(signal.SIGTERM)  # it ends when the request has been computed
        assert server.wait(20) == 0
    assert "ASGI" not in (tmp_path / "log").read_text()


def test_the_event_loops_own_messages_are_lines_of_the_log() -> None:
    program = (
        "import logging; from cosparse.engine.serve import log; log.set_up('json', 'info'); logging.getLogger('asyncio').error('a\\nb')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stderr)["event"] == "a\nb"


def test_it_does_not_end_before_the_calls_that_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(cosparse.load(file, threads=1))
    monkeypatch.setattr(models, "load", lambda *_, **__: gate)
    answers, ended, before = [], threading.Event(), set(threading.enumerate())

    def serve() -> None:
        with serving(file, drain=0.1) as server:
            asker = threading.Thread(target=lambda: answers.append(server.infer(images(1))[0]))
            asker.start()
            until(lambda: gate.entered == 1)
        asker.join(20)
        ended.set()

    thread = threading.Thread(target=serve)
    thread.start()
    until(lambda: answers == [503])
    assert not ended.wait(1.0)
    gate.open.set()
    assert ended.wait(20)
    thread.join(20)
    assert not [other for other in set(threading.enumerate()) - before if other.name.startswith("batcher-")]


LOADS_LONG = """
import os, signal, sys, threading, time
from pathlib import Path
from cosparse.engine.serve import models, server
from cosparse.engine.serve.settings import Settings
real, begun, what = models.load, [], sys.argv[2]
def load(path, **options):
    begun.append(path)
    engine = real(path, **options)
    if what == "a file":
        time.sleep(0.5)
    elif what == "a batch":
        engine.warmup = lambda batches: (begun.append(batches), time.sleep(0.5))
    else:
        time.sleep(60)  # as a call of C++ would, which cannot be broken off
    return engine
models.load = load
server.ENDING = 2.0
def stop():
    while len(begun) < int(sys.argv[3]):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop, daemon=True).start()
server.run(Settings(Path(sys.argv[1]), http_port=0, grpc_port=0, threads=1, drain=0.1), lambda started: None)
print(len(begun))
"""


@pytest.mark.parametrize(("what", "begun", "most"), [("a file", 1, 1.5), ("a batch", 2, 1.5), ("without end", 1, 4.0)])
def test_told_to_stop_while_it_loads_it_ends_in_time(tmp_path: Path, what: str, begun: int, most: float) -> None:
    """Of eight models it begins no second one, of one it warms up no second batch, and what does not end it does not wait for."""
    for number in range(8):
        write(tmp_path / f"m{number}.cosparse")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LOADS_LONG, str(tmp_path), what, str(begun)], capture_output=True, text=True, timeout=50, check=False
    )
    took = time.monotonic() - start
    assert (done.returncode, done.stdout) == (0, f"{begun}\n"), done.stderr
    assert took < most + 8.0  # the imports and the start among it


def test_who_asks_for_a_model_while_the_server_stops_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.cosparse")
    with serving(tmp_path, control=True) as server:
        server.server.models.stop()
        status, got, _ = server.ask("POST", "/v2/repository/models/a/load")
        assert (status, got["error"]) == (503, "server: expected to run until the model is loaded, got told to stop; try again later")


def test_it_serves_and_watches_on_where_nobody_can_be_told_that_it_is_ready(tmp_path: Path) -> None:
    """The device that is always full stands for a full disk."""
    folder = tmp_path / "models"
    write(folder / "a.cosparse")
    command = [sys.executable, "-m", "cosparse", "serve", str(folder), "--http-port", "0", "--grpc-port", "-1", "--threads", "1"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*command, "--poll", "0.1", "--json", "/dev/full"], stdout=subprocess.DEVNULL, stderr=log)

    def events() -> list[tuple[str, str]]:
        found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.endswith("}")]
        return [(event["event"], event.get("model", "")) for event in found]

    try:
        until(lambda: ("ready, but not reported", "") in events(), 60)
        write(folder / "b.cosparse", seed=1)
        until(lambda: ("loaded", "b") in events())
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait(20)


@pytest.mark.parametrize(("hard", "got"), [(4096, 1256), (700, 700)])
def test_file_descriptors_for_the_connections_that_were_asked_for(file: Path, tmp_path: Path, hard: int, got: int) -> None:
    with process(file, tmp_path, "--threads", "1", "--connections", "1000", before=f"ulimit -Sn 300; ulimit -Hn {hard}") as (server, _):
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5] == [str(got), str(hard)]
    warned = "--connections 1000: expected 1256 file descriptors, got 700; ulimit -n 1256, or fewer connections"
    assert (warned in (tmp_path / "log").read_text()) == (got < 1256)


def test_killed_while_it_loads_and_while_it_answers_it_comes_back_on_its_port(file: Path, tmp_path: Path) -> None:
    """kill -9 leaves nothing that the next server stumbles over: neither the address nor the tuning cache."""
    cache = tmp_path / "cache"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cosparse", "serve", str(file), "--http-port", str(port), "--grpc-port", "-1", "--threads", "1"]
    for seconds in (0.7, 0.9, 1.1):
        loading = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "COSPARSE_CACHE": str(cache)}
        )
        time.sleep(seconds)
        loading.kill()
        loading.wait(20)
    body = request(images(1)).encode()
    whole = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for turn in range(2):
        (tmp_path / "started.json").unlink(missing_ok=True)
        options = ("--http-port", str(port), "--threads", "1", "--max-delay", "300")
        with (
            process(file, tmp_path, *options, COSPARSE_CACHE=str(cache)) as (server, _),
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        ):
            connection.sendall(whole)
            if turn == 0:
                time.sleep(0.1)  # the request waits in the queue
                server.kill()
                with suppress(ConnectionResetError):  # of a connection whose last bytes were not read
                    assert connection.recv(65536) == b""
            else:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert "not be written" not in (tmp_path / "log").read_text()
    whole_files = [path for path in cache.iterdir() if not path.name.endswith(".tmp")]
    assert [json.loads(path.read_text())["layers"] for path in whole_files] != []


def test_without_grpc_with_a_token_and_plain_logs(file: Path, tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    options = ("--grpc-port", "-1", "--log-format", "text", "--host", "0.0.0.0")
    with process(file, tmp_path, *options, COSPARSE_TOKEN="secret") as (server, started):
        assert started["grpc"] is None
        address = started["http"].replace("0.0.0.0", "127.0.0.1") + "/v2"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address, timeout=10)
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Authorization": "Bearer secret"}), timeout=10) as answer:
            assert json.load(answer)["name"] == "cosparse"
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    log = (tmp_path / "log").read_text()
    assert " info: ready models=1" in log
    assert "secret" not in log


def test_the_server_needs_neither_torch_nor_the_bench(file: Path, tmp_path: Path) -> None:
    program = f"""
import sys, threading, os, signal
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "scipy", "matplotlib", "onnx", "pandas", "fastapi"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from cosparse.engine.serve import server
from cosparse.engine.serve.settings import Settings
from pathlib import Path
server.run(Settings(Path({str(file)!r}), http_port=0, grpc_port=0, threads=1), lambda started: os.kill(os.getpid(), signal.SIGTERM))
sys.exit("cosparse.bench" in sys.modules or "cosparse.compress" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_cosparse_and_the_batcher_imports_no_server() -> None:
    program = (
        "import sys, cosparse, cosparse.engine.serve; sys.exit(any(m in sys.modules for m in ('uvicorn', 'grpc', 'starlette', 'orjson')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("/nothing/there",), "/nothing/there: expected an artifact or a folder of artifacts, got nothing there; check the path"),
        (("{file}", "--max-batch", "0"), "--max-batch: expected at least 1, got 0"),
        (("{file}", "--log-format", "xml"), "--log-format: expected json or text, got 'xml'"),
        (("{file}", "--log-level", "loud"), "--log-level: expected debug, info, warning or error, got 'loud'"),
        (
            ("{file}", "--tls-certificate", "no.pem", "--tls-key", "no.pem"),
            "--tls-certificate: expected a file, got no.pem; check the path",
        ),
        (("{file}", "--token-file", "{bytes}"), "a token of printable ASCII without spaces, got another text"),
        (("{file}", "--token-file", "no-file"), "--token-file no-file: expected a file that can be read, got No such file or directory"),
        (("{file}", "--max-body", "2048"), "--max-body: expected less than 2048 MiB, the limit of a gRPC message, got 2048 MiB"),
        (("{file}", "--workers", "100000"), "--workers: expected at most 256, got 100000"),
        (("{file}", "--token-file", "{empty}"), "a token of printable ASCII without spaces, got another text"),
    ],
)
def test_bad_options_are_one_sentence(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    given = [a.format(file=file, empty=tmp_path / "empty", bytes=tmp_path / "bytes") for a in arguments]
    assert run(["serve", *given]) == 2
    assert message in capsys.readouterr().err
