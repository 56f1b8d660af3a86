"""Who may ask and where: the token, TLS, addresses, settings that make no sense."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from serve_parts import certificate, images, request, serving, write

import cosparse
from cosparse.engine.serve import server
from cosparse.engine.serve.settings import Settings


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("access") / "small.cosparse")


def test_the_token(file: Path) -> None:
    with serving(file, token="secret") as server:
        for given in (None, "Bearer wrong", "Basic secret", "secret", "Bearer ", "Bearer sécret"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1").decode("latin-1")}
            status, got, answer = server.infer(images(1), headers=headers)
            assert (status, answer["www-authenticate"]) == (401, "Bearer")
            assert got["error"].startswith("header Authorization: expected 'Bearer' and the server's token, got ")
            assert "secret" not in got["error"]
        assert server.infer(images(1), headers={"Authorization": "Bearer secret"})[0] == 200
        for path, status in (
            ("/metrics", 401),
            ("/status", 401),
            ("/v2", 401),
            ("/v2/health/ready", 200),
            ("/v2/health/live", 200),
            ("/", 200),
        ):
            assert server.ask("GET", path)[0] == status


def test_tls_over_both_protocols(file: Path, tmp_path: Path) -> None:
    import urllib.request

    import grpc
    import tritonclient.grpc as client

    made = certificate(tmp_path)
    with serving(file, **made) as server:
        context = ssl.create_default_context(cafile=str(made["tls_certificate"]))
        call = urllib.request.Request(f"{server.started.http}/v2/models/small/infer", request(images(1)).encode())
        with urllib.request.urlopen(call, context=context, timeout=10) as answer:
            assert answer.status == 200
        channel = grpc.ssl_channel_credentials(made["tls_certificate"].read_bytes())
        with client.InferenceServerClient(server.grpc, ssl=True, creds=channel) as triton:
            assert triton.is_model_ready("small")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "--max-batch: expected at least 1, got 0"),
        ({"max_batch": 4097}, "--max-batch: expected at most 4096, got 4097; every size"),
        ({"workers": 100_000}, "--workers: expected at most 256, got 100000; each is a thread"),
        ({"body_bytes": 1 << 31}, "--max-body: expected less than 2048 MiB, the limit of a gRPC message, got 2048 MiB"),
        ({"write_timeout": 0}, "--write-timeout: expected seconds above 0, got 0"),
        ({"body_bytes": 0}, "--max-body: expected at least 1, got 0"),
        ({"model_bytes": -1}, "--max-model: expected at least 1, got -1"),
        ({"timeout": 0}, "--timeout: expected seconds above 0, got 0"),
        ({"max_delay": -1}, "--max-delay: expected 0 or more, got -1"),
        ({"http_port": 70000}, "--http-port: expected a port from 0 to 65535, got 70000"),
        ({"max_scale": 0.0}, "--max-scale: expected a number above 0, at most 1024, got 0.0"),
        ({"dtype": "int8"}, "--dtype: expected float32 or bfloat16, got 'int8'"),
        ({"tls_key": Path("k")}, "--tls-certificate, --tls-key: expected both or neither, got one of them"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cosparse.Error, match=message):
        Settings(Path(), **options)


def test_loopback() -> None:
    assert all(Settings(Path(), host=host).loopback for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"))
    assert not any(Settings(Path(), host=host).loopback for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"))


def test_an_address_of_ipv6_has_brackets() -> None:
    assert [server._address(host, 80) for host in ("::1", "127.0.0.1", "localhost")] == ["[::1]:80", "127.0.0.1:80", "localhost:80"]


def test_a_certificate_that_is_none(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(cosparse.Error, match=r"--tls-certificate, --tls-key: expected a certificate chain and its key .* got .*; check"):  # noqa: SIM117
        with serving(file, tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / "cert.pem"):
            pass


def test_a_host_that_is_no_name(file: Path) -> None:
    with pytest.raises(cosparse.Error, match=r"--host, --http-port: expected an address to listen on, x{300}:0, got .*; choose another"):
        server._listen(Settings(source=file, host="x" * 300, http_port=0))
