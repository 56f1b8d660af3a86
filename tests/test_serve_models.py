"""Models that are loaded, exchanged and removed, also under load."""

from __future__ import annotations

import http.client
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_parts import Running, binary, images, index, request, serving, until, write

import cosparse
from cosparse.engine.serve import models
from cosparse.engine.serve.folder import checksum
from cosparse.engine.serve.latencies import SAMPLES, SECONDS, Latencies
from cosparse.engine.serve.models import warm_batches


def exchange(source: Path, target: Path) -> None:
    """As a careful user does it: a copy beside it, then a rename."""
    copy = target.with_name(f".{target.name}.new")
    shutil.copy(source, copy)
    os.replace(copy, target)


@pytest.mark.parametrize(("most", "batches"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))])
def test_batches_that_are_warmed_up(most: int, batches: tuple[int, ...]) -> None:
    assert warm_batches(most) == batches


def test_models_come_and_go_with_their_files(tmp_path: Path) -> None:
    write(tmp_path / "a.cosparse")
    with serving(tmp_path, poll=0.05) as server:
        write(tmp_path / "b" / "1" / "model.cosparse", seed=1)
        until(lambda: ("b", "1") in index(server) and index(server)["b", "1"][0] == "READY")
        write(tmp_path / "b" / "2" / "model.cosparse", seed=2)
        until(lambda: server.infer(images(1), "b")[1].get("model_version") == "2")
        shutil.rmtree(tmp_path / "b" / "2")
        until(lambda: server.infer(images(1), "b")[1].get("model_version") == "1")
        (tmp_path / "a.cosparse").unlink()
        until(lambda: server.infer(images(1), "a")[0] == 404)
        assert set(index(server)) == {("b", "1")}
        assert server.metric('cosparse_model_ready{model="a",version="1"}') == 0


def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cosparse")
    digest = checksum(path)
    with serving(tmp_path, poll=0.05) as server:
        path.write_bytes(path.read_bytes()[:-1])
        until(lambda: index(server)["a", "1"][1] != "")
        assert index(server)["a", "1"][0] == "READY"
        assert "a.cosparse" in index(server)["a", "1"][1]
        status, got, _ = server.infer(images(1), "a")
        assert (status, got["parameters"]["checksum"]) == (200, digest)
        assert server.metric('cosparse_model_loads_total{model="a",outcome="failed"}') == 1
        (tmp_path / "c.cosparse").write_bytes(b"nothing")
        until(lambda: index(server).get(("c", "1"), ("",))[0] == "UNAVAILABLE" and "loaded" not in index(server)["c", "1"][1])
        status, got, headers = server.infer(images(1), "c")
        assert (status, headers["retry-after"]) == (503, "2")
        assert got["error"].startswith("model 'c': expected a model that is ready, got ")
        assert server.ask("GET", "/v2/health/ready")[0] == 200  # a file that came later takes nobody out of service
        write(path, seed=3)
        (tmp_path / "c.cosparse").unlink()
        until(lambda: ("c", "1") not in index(server))
        until(lambda: server.infer(images(1), "a")[1]["parameters"]["checksum"] == checksum(path))


def test_the_server_is_ready_when_all_files_of_the_start_are_loaded_and_then_while_any_is(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.cosparse"), tmp_path / "bad.cosparse"
    bad.write_bytes(b"nothing")
    with serving(tmp_path, poll=0.05) as server:
        assert server.infer(images(1), "good")[0] == 200
        assert server.ask("GET", "/v2/health/ready")[0] == 503  # so that a rollout stops
        write(bad, seed=1)
        until(lambda: server.ask("GET", "/v2/health/ready")[0] == 200)
        good.unlink()
        until(lambda: ("good", "1") not in index(server))
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        bad.unlink()
        until(lambda: server.ask("GET", "/v2/health/ready")[0] == 503)


def test_a_file_that_changes_while_it_is_loaded_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = write(tmp_path / "a.cosparse"), models.load

    def while_it_changes(*arguments: Any, **options: Any) -> Any:
        loaded = real(*arguments, **options)
        monkeypatch.setattr(models, "load", real)
        write(path, seed=5)
        return loaded

    monkeypatch.setattr(models, "load", while_it_changes)
    with serving(tmp_path, poll=0.05) as server:
        assert "expected a file that stays while it is loaded, got another one" in server.infer(images(1), "a")[1].get("error", "")
        until(lambda: server.infer(images(1), "a")[0] == 200)
        assert server.infer(images(1), "a")[1]["parameters"]["checksum"] == checksum(path)


def test_clients_load_and_unload_where_they_may(tmp_path: Path) -> None:
    import tritonclient.grpc
    import tritonclient.http

    path = write(tmp_path / "a.cosparse")
    with serving(tmp_path, control=True) as server:
        for module, address in ((tritonclient.http, f"127.0.0.1:{server.port}"), (tritonclient.grpc, server.grpc)):
            client = module.InferenceServerClient(address)
            client.unload_model("a")
            assert server.infer(images(1), "a")[0] == 404
            write(path, seed=7)
            client.load_model("a")
            assert server.infer(images(1), "a")[1]["parameters"]["checksum"] == checksum(path)
            for action in (client.load_model, client.unload_model):
                with pytest.raises(tritonclient.utils.InferenceServerException, match=r"model 'nobody': expected"):
                    action("nobody")
            client.close()
        path.write_bytes(b"damaged")
        status, got, _ = server.ask("POST", "/v2/repository/models/a/load")
        assert status == 400
        assert got["error"].startswith("model 'a': expected a file that can be loaded, got ")
        assert server.infer(images(1), "a")[0] == 200


def test_pages_of_others_load_and_unload_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.cosparse")
    with serving(tmp_path, control=True) as server:
        here, path = f"127.0.0.1:{server.port}", "/v2/repository/models/a"
        for origin in (
            "https://example.org",
            "null",
            "http://127.0.0.1",
            f"http://127.0.0.1:{server.port + 1}",
            f"http://{here}.example.org",
            "",
        ):
            for action in ("load", "unload"):
                status, got, _ = server.ask("POST", f"{path}/{action}", headers={"Origin": origin})
                wanted = f"header Origin: expected none, or the server's own address, got {origin!r}; ask from no other page"
                assert (status, got["error"]) == (403, wanted)
        # Names that lead to this machine.
        for host in (f"example.org:{server.port}", "example.org", f"localhost.example.org:{server.port}", "127.0.0.1.example.org", ""):
            assert (
                server.ask("POST", f"{path}/unload", headers={"Origin": f"http://{host}", "Host": host})[0] == 403
            )  # a name for this machine
        assert server.infer(images(1), "a")[0] == 200
        for headers in (
            {"Origin": f"http://{here}"},
            {"Origin": "http://[::1]:9", "Host": "[::1]:9"},
            {"Origin": "HTTP://LOCALHOST:1", "Host": "localhost:1"},
            {},
        ):
            assert server.ask("POST", f"{path}/unload", headers=headers)[0] == 200
            assert server.ask("POST", f"{path}/load", headers=headers)[0] == 200


def test_a_server_that_still_loads_is_live_and_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path, poll=0.05) as server:  # nothing to serve yet
        assert server.ask("GET", "/v2/health/live")[0] == 200
        assert server.ask("GET", "/v2/health/ready")[:2] == (503, {"ready": False})
        server.server.models.started = False
        assert "one that still loads" in server.infer(images(1), "a")[1]["error"]
        server.server.models.started = True
        write(tmp_path / "a.cosparse")
        until(lambda: server.ask("GET", "/v2/health/ready")[0] == 200)


def batchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("batcher-")}


def test_reload_under_load_loses_nothing_and_mixes_nothing(tmp_path: Path) -> None:
    """Every answer is whole and from the model that it names."""
    served = write(tmp_path / "served" / "m.cosparse")
    sources = [write(tmp_path / f"{seed}.cosparse", seed=seed) for seed in range(3)]
    x = images(2)
    want = {checksum(path): cosparse.load(path, threads=1)(x) for path in sources}
    stop, wrong, seen = threading.Event(), [], set()
    before = batchers()

    def ask(server: Running) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        while not stop.is_set():
            connection.request("POST", "/v2/models/m/infer", request(x))
            answer = connection.getresponse()
            text: Any = answer.read()
            if answer.status != 200:
                wrong.append(text)
                continue
            import json

            got = json.loads(text)
            digest = got["parameters"]["checksum"]
            seen.add(digest)
            if np.abs(np.array(got["outputs"][0]["data"]).reshape(2, 10) - want[digest]).max() > 1e-4:
                wrong.append(digest)
        connection.close()

    with serving(served.parent, poll=0.05) as server:
        clients = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for source in (sources[1], sources[2], sources[0], sources[1]):
                exchange(source, served)
                until(lambda source=source: server.infer(x, "m")[1]["parameters"]["checksum"] == checksum(source))
        finally:
            stop.set()
            for client in clients:
                client.join(20)
        assert not wrong
        assert seen == set(want)
        assert server.metric("cosparse_request_failures_total") == 0
        until(lambda: len(batchers() - before) == 1)  # old ones are gone


def test_latencies_are_bounded() -> None:
    latencies = Latencies()
    for _ in range(10 * SAMPLES):
        latencies.add(0.001)
    assert sum(row["count"] for row in latencies.rows()) == 10 * SAMPLES
    assert all(row["p50_ms"] == row["p99_ms"] == 1.0 for row in latencies.rows())
    assert all(len(kept) <= SAMPLES for kept in latencies._kept.values())
    for second in range(2 * SECONDS):
        latencies._kept[second - 10**6] = []
        latencies._counts[second - 10**6] = 0
    latencies._kept.pop(next(reversed(latencies._kept)))
    latencies._kept = type(latencies._kept)({k: v for k, v in latencies._kept.items() if k < 0})
    latencies.add(0.001)
    assert len(latencies._kept) == SECONDS


def test_binary_requests_survive_a_reload_between_finding_and_running(tmp_path: Path) -> None:
    """A batcher that closes after its model was found: the request goes to the new one."""
    path = write(tmp_path / "m.cosparse")
    with serving(tmp_path) as server:
        models = server.server.models
        old = models.find("m")
        write(path, seed=5)
        models.sync()
        find, run, asked = models.find, old.batcher.run, []

        async def closed(*arguments: Any) -> Any:
            asked.append(arguments)
            return await run(*arguments)

        old.batcher.run = closed
        models.find = lambda name, version="": find(name, version) if asked else old  # type: ignore[method-assign]
        body, headers = binary(images(1))
        status, _, _ = server.ask("POST", "/v2/models/m/infer", body, headers)
        assert status == 200
        assert len(asked) == 1
