"""A server in a thread of this process, on free ports, and small clients for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_net import small_net

from cosparse.engine import artifact
from cosparse.engine.serve.server import Server, Started
from cosparse.engine.serve.settings import Settings

SHAPE = (3, 8, 8)


def write(path: Path, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    artifact.write(path, small_net(seed=seed, **options))
    return path


def images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@dataclass
class Running:
    server: Server
    port: int
    grpc: str
    started: Started

    def ask(self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, JSON (or text), headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.getheader("content-type", "")
            return answer.status, json.loads(text) if kind.startswith("application/json") else text, answer.headers
        finally:
            connection.close()

    def infer(self, x: np.ndarray, name: str = "small", headers: dict[str, str] | None = None, **more: Any) -> tuple[int, Any, Any]:
        return self.ask("POST", f"/v2/models/{name}/infer", request(x, **more), headers)

    def metric(self, line: str) -> float:
        _, text, _ = self.ask("GET", "/metrics")
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.decode().splitlines() if row.startswith(line))


def index(server: Running) -> dict[tuple[str, str], tuple[str, str]]:
    """(name, version) -> state, reason."""
    return {(row["name"], row["version"]): (row["state"], row["reason"]) for row in server.ask("POST", "/v2/repository/index")[1]}


def request(x: np.ndarray, **more: Any) -> str:
    entry = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return json.dumps({"inputs": [entry], **more})


def binary(x: np.ndarray, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """A request with binary input and output."""
    entry = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}} | changes
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return text + x.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def certificate(folder: Path) -> dict[str, Path]:
    """Options of a server with a certificate of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = {"tls_certificate": folder / "cert.pem", "tls_key": folder / "key.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(made["tls_key"]),
        "-out",
        str(made["tls_certificate"]),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return made


@contextmanager
def serving(source: Path, **options: Any) -> Iterator[Running]:
    """Ready when the block begins; stopped, and its thread gone, when it ends."""
    settings = Settings(source, **({"http_port": 0, "grpc_port": 0, "threads": 1, "poll": 0, "max_batch": 8} | options))
    ready, made, failed = threading.Event(), [], []

    def begun(started: Started) -> None:
        made.append(started)
        ready.set()

    async def main() -> None:
        server = Server(settings)
        made.append(server)
        made.append(asyncio.get_running_loop())
        await server.run(begun, signals=False)

    def thread() -> None:
        try:
            asyncio.run(main())
        except Exception as error:
            failed.append(error)
        finally:
            ready.set()

    worker = threading.Thread(target=thread)
    worker.start()
    try:
        assert ready.wait(60)
        if failed:
            raise failed[0]
        server, _, started = made
        yield Running(server, int(started.http.rsplit(":", 1)[1]), started.grpc or "", started)
    finally:
        if len(made) >= 2 and worker.is_alive():
            made[1].call_soon_threadsafe(made[0].stop)
        worker.join(30)
        assert not worker.is_alive()


class Gate:
    """An engine whose calls wait until the gate is open. `entered` counts calls that have begun."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.open = threading.Event()
        self.entered = 0

    def __call__(self, *arrays: Any) -> Any:
        self.entered += 1
        assert self.open.wait(30)
        return self._engine(*arrays)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
