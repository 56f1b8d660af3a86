"""The serving benchmark runs, in small, and says what it measured; its client counts what goes wrong."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from serve_parts import images, serving, write

import cosparse
from cosparse.bench.serving import client
from cosparse.bench.serving.__main__ import main
from cosparse.bench.serving.client import drive, message


def test_three_parts_of_it(tmp_path: Path) -> None:
    path, result = write(tmp_path / "small.cosparse"), tmp_path / "out.json"
    arguments = [str(path), "--only", "overhead,latency,soak", "--seconds", "0.5", "--soak", "200", "--clients", "4", "--json", str(result)]
    assert main(arguments) in (0, 1)  # the bars are for a quiet machine
    parts = json.loads(result.read_text())["parts"]
    assert parts["overhead"]["overhead_ms"] > 0
    assert len(parts["latency"]["rounds"]) == 7
    assert not any(found["failures"] for found in parts["latency"]["rounds"])
    assert parts["soak"]["requests"] == 200
    assert parts["soak"]["statuses"] == {"200": 200}
    assert len(parts["soak"]["rss_mb"]) == 10


def test_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path / "small.cosparse")), "--only", "speed"]) == 2
    assert "--only: expected some of overhead, batching, latency, reload, overload, soak, got speed" in capsys.readouterr().err


def test_its_client_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for ask in (lambda: drive(port, [b"x"], clients=1, count=1), lambda: client.Connection(port).ask(b"x")):
            with pytest.raises(cosparse.Error, match=r"server: expected an answer within 0.05 s, got none; its log may say why"):
                ask()


def test_its_client_counts_connections_that_break() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def close_two() -> None:
            for _ in range(2):
                rude.accept()[0].close()

        closer = threading.Thread(target=close_two)
        closer.start()
        load = drive(rude.getsockname()[1], [b"x"], clients=1, count=1)
        closer.join(5)
    assert (load.broken, load.failures, load.latencies) == (1, 1, [])


def test_its_client_counts_refusals_and_keeps_the_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "small.cosparse")
    good = message("/v2/models/small/infer", images(1), "x")
    bad = message("/v2/models/nobody/infer", images(1), "x")
    with serving(path) as server:
        load = drive(server.port, [good, bad], clients=2, count=20)
        assert sum(load.statuses.values()) == 20
        assert load.failures == load.statuses[404] == len(load.refusals) > 0
        paced = drive(server.port, [good], clients=2, rate=50, seconds=0.4)
        assert paced.statuses == {200: 20}
        assert paced.seconds >= 0.3
