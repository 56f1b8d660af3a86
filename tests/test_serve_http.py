"""Open Inference Protocol v2 over HTTP: what works, by tritonclient and by hand, and what a hostile client gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client
from serve_parts import Running, binary, images, request, serving, write

import cosparse
from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve import Refused, http_infer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http")
    write(folder / "small.cosparse")
    write(folder / "other" / "1" / "model.cosparse", seed=1)
    write(folder / "other" / "12" / "model.cosparse", seed=2)
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Running]:
    with serving(place, max_batch=4) as running:
        yield running


@pytest.fixture(scope="module")
def engine(place: Path) -> cosparse.Engine:
    return cosparse.load(place / "small.cosparse", threads=1)


@pytest.fixture
def triton(server: Running) -> Iterator[Any]:
    made = client.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield made
    made.close()


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_tritonclient_gets_the_engines_numbers(triton: Any, engine: cosparse.Engine, count: int, as_bytes: bool) -> None:
    x = images(count)
    value = client.InferInput("x", list(x.shape), "FP32")
    value.set_data_from_numpy(x, binary_data=as_bytes)
    got = triton.infer("small", [value], outputs=[client.InferRequestedOutput("linear", binary_data=as_bytes)], request_id="7")
    np.testing.assert_allclose(got.as_numpy("linear"), engine(x), atol=1e-5)
    assert got.get_response()["id"] == "7"
    assert got.get_response()["parameters"]["checksum"].startswith("blake2b-256:")


def test_tritonclient_sees_server_and_models(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("small")
    assert not triton.is_model_ready("nobody")
    assert triton.get_server_metadata()["name"] == "cosparse"
    found = triton.get_model_metadata("other")
    assert found["versions"] == ["1", "12"]
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert found["outputs"] == [{"name": "linear", "datatype": "FP32", "shape": [-1, 10]}]
    assert [(row["name"], row["version"]) for row in triton.get_model_repository_index()] == [
        ("other", "1"), ("other", "12"), ("small", "1")
    ]  # fmt: skip


def test_versions_are_told_apart_and_the_highest_is_the_usual(server: Running, place: Path) -> None:
    x = images(1)
    for version, want in (("/versions/1", "1"), ("/versions/12", "12"), ("", "12")):
        status, got, _ = server.ask("POST", f"/v2/models/other{version}/infer", request(x))
        assert (status, got["model_version"]) == (200, want)
        wanted = cosparse.load(place / "other" / want / "model.cosparse", threads=1)(x)
        np.testing.assert_allclose(np.array(got["outputs"][0]["data"]).reshape(1, 10), wanted, atol=1e-5)


def test_nested_data_and_whole_numbers(server: Running, engine: cosparse.Engine) -> None:
    x = np.ones((1, 3, 8, 8), np.float32)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": x.astype(int).tolist()}]})
    status, got, _ = server.ask("POST", "/v2/models/small/infer", body)
    assert status == 200
    np.testing.assert_allclose(got["outputs"][0]["data"], engine(x)[0], atol=1e-5)


GOOD = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.0] * 192}
HOSTILE: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "body: expected JSON"),
    "not UTF-8": (b"\xff\xfe{}", "body: expected JSON"),
    "deep": ("[" * 100_000, "body: expected JSON"),
    "no object": ("[]", "body: expected a JSON object"),
    "no inputs": ({}, "model 'small': expected the inputs x, each once, got none"),
    "inputs no list": ({"inputs": 3}, "inputs: expected a list of objects"),
    "inputs twice": ({"inputs": [GOOD, GOOD]}, "the inputs x, each once, got x, x"),
    "another input": ({"inputs": [GOOD | {"name": "z"}]}, "the inputs x, each once, got z"),
    "a name that is no text": ({"inputs": [GOOD | {"name": ["x"]}]}, "the inputs x, each once"),
    "a name that is a number": ({"inputs": [GOOD | {"name": 0}]}, "the inputs x, each once, got a name that is int"),
    "a large name": ({"inputs": [GOOD | {"name": [[]] * 99}]}, "the inputs x, each once, got a name that is list"),
    "large datatype": ({"inputs": [GOOD | {"datatype": [[]] * 99}]}, "input 'x': expected datatype FP32, got list of 99; convert it"),
    "large shape": ({"inputs": [GOOD | {"shape": [1] * 99}]}, "a shape of whole numbers above 0, got list of 99"),
    "lists as shape": ({"inputs": [GOOD | {"shape": [[1], 2]}]}, "a shape of whole numbers above 0, got list of 2"),
    "one long text": ({"inputs": [GOOD | {"data": ["a" * 20_000, *[0] * 191]}]}, "flat or nested evenly, got str values"),
    "booleans": ({"inputs": [GOOD | {"data": [True, *[0] * 191]}]}, "flat or nested evenly, got bool values"),
    "flat and nested": ({"inputs": [GOOD | {"data": [*[0] * 191, [0]]}]}, "flat or nested evenly, got list values"),
    "nested otherwise": (
        {"inputs": [GOOD | {"data": [[[[0] * 4] * 16] * 3]}]},
        "flat or nested evenly as [1, 3, 8, 8], got 16 of 8 in a list",
    ),
    "nested less": ({"inputs": [GOOD | {"data": [[[0] * 8] * 3]}]}, "flat or nested evenly as [1, 3, 8, 8], got int"),
    "outputs": ({"inputs": [GOOD], "outputs": [{"name": "linear"}] * 2}, "outputs: expected at most 1, each once, got 2"),
    "datatype": ({"inputs": [GOOD | {"datatype": "FP64"}]}, "input 'x': expected datatype FP32, got 'FP64'; convert it"),
    "no datatype": ({"inputs": [{k: v for k, v in GOOD.items() if k != "datatype"}]}, "expected datatype FP32, got None"),
    "rank": ({"inputs": [GOOD | {"shape": [3, 8, 8]}]}, "input 'x': expected shape [-1, 3, 8, 8], got [3, 8, 8]"),
    "size": ({"inputs": [GOOD | {"shape": [1, 3, 9, 8]}]}, "input 'x': expected shape [-1, 3, 8, 8], got [1, 3, 9, 8]"),
    "channels": ({"inputs": [GOOD | {"shape": [1, 4, 8, 8]}]}, "input 'x': expected shape [-1, 3, 8, 8], got [1, 4, 8, 8]"),
    "empty batch": ({"inputs": [GOOD | {"shape": [0, 3, 8, 8], "data": []}]}, "a shape of whole numbers above 0"),
    "zero size": ({"inputs": [GOOD | {"shape": [1, 3, 0, 8], "data": []}]}, "a shape of whole numbers above 0"),
    "negative": ({"inputs": [GOOD | {"shape": [-1, 3, 8, 8]}]}, "a shape of whole numbers above 0"),
    "huge": ({"inputs": [GOOD | {"shape": [2**40, 3, 8, 8]}]}, "a shape of whole numbers above 0"),
    "large": ({"inputs": [GOOD | {"shape": [2**30, 3, 8, 8]}]}, "numbers for shape"),
    "fraction": ({"inputs": [GOOD | {"shape": [1.5, 3, 8, 8]}]}, "a shape of whole numbers above 0"),
    "boolean": ({"inputs": [GOOD | {"shape": [True, 3, 8, 8]}]}, "a shape of whole numbers above 0"),
    "shape no list": ({"inputs": [GOOD | {"shape": "1"}]}, "a shape of whole numbers above 0"),
    "no data": ({"inputs": [{k: v for k, v in GOOD.items() if k != "data"}]}, "input 'x': expected data, a list of numbers, got NoneType"),
    "too few": ({"inputs": [GOOD | {"data": [1.0]}]}, "expected 192 numbers for shape [1, 3, 8, 8], got numbers of shape [1]"),
    "texts": ({"inputs": [GOOD | {"data": ["1.5"] * 192}]}, "a list of numbers, flat or nested evenly"),
    "null": ({"inputs": [GOOD | {"data": [None] * 192}]}, "a list of numbers, flat or nested evenly"),
    "ragged": ({"inputs": [GOOD | {"data": [[1.0], [1.0, 2.0]]}]}, "a list of numbers, flat or nested evenly"),
    "beyond float32": ({"inputs": [GOOD | {"data": [1e300] * 192}]}, "input 'x': expected numbers that float32 can hold"),
    "shared memory": (
        {"inputs": [GOOD | {"parameters": {"shared_memory_region": "a"}}]},
        "expected data in the request, got shared memory",
    ),
    "parameters": ({"inputs": [GOOD | {"parameters": [1]}]}, "parameters: expected an object, got list"),
    "output": ({"inputs": [GOOD], "outputs": [{"name": "zz"}]}, "output 'zz': expected one of linear"),
    "output no object": ({"inputs": [GOOD], "outputs": ["linear"]}, "outputs: expected a list of objects"),
    "classification": ({"inputs": [GOOD], "outputs": [{"name": "linear", "parameters": {"classification": 3}}]}, "classification"),
    "id": ({"inputs": [GOOD], "id": 7}, "id: expected a text of at most 256 characters, got int"),
    "timeout": ({"inputs": [GOOD], "parameters": {"timeout": -1}}, "parameter timeout: expected microseconds"),
    "data and bytes": ({"inputs": [GOOD | {"parameters": {"binary_data_size": 768}}]}, "either data or a binary_data_size"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_a_bad_request_is_told_what_is_wrong(server: Running, case: str) -> None:
    body, message = HOSTILE[case]
    status, got, headers = server.ask("POST", "/v2/models/small/infer", body if isinstance(body, str | bytes) else json.dumps(body))
    assert status == 400
    assert message in got["error"]
    assert headers["content-type"] == "application/json"
    assert server.infer(images(1))[0] == 200


def model(name: str) -> Any:
    spec = ValueSpec(name, (None, 3, 8, 8), "float32")
    return SimpleNamespace(name="small", inputs=(spec,), outputs=(spec,))


def test_a_name_is_a_text_even_where_a_number_reads_like_it() -> None:
    body = json.dumps({"inputs": [GOOD | {"name": "0"}]}).encode()
    assert http_infer.parse(body, None, model("0"), None).arrays[0].shape == (1, 3, 8, 8)
    with pytest.raises(Refused, match="the inputs 0, each once, got a name that is int"):
        http_infer.parse(body.replace(b'"0"', b"0"), None, model("0"), None)


def test_large_json_is_read_beside_the_event_loop(server: Running, engine: cosparse.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []
    parse = http_infer.parse
    monkeypatch.setattr(http_infer, "parse", lambda *given: places.append(threading.get_ident()) or parse(*given))  # type: ignore[func-returns-value]
    x = images(700)
    nested = json.dumps({"inputs": [GOOD | {"shape": list(x.shape), "data": x.tolist()}]})
    body, headers = binary(x)
    for text, more in ((request(images(1)), {}), (body, headers), (request(x), {}), (nested, {})):
        status, got, _ = server.ask("POST", "/v2/models/small/infer", text, more)
        assert status == 200
    assert len(nested) > http_infer.LARGE
    np.testing.assert_allclose(np.array(got["outputs"][0]["data"]).reshape(700, 10), engine(x), atol=1e-4)
    assert places[0] == places[1]
    assert places[0] not in places[2:]


@pytest.mark.parametrize(
    ("changes", "length", "cut", "message"),
    [
        ({}, None, 8, "bytes of binary data"),
        ({}, "99999999", 0, "header Inference-Header-Content-Length: expected a number of at most"),
        ({}, "-1", 0, "header Inference-Header-Content-Length"),
        ({}, "ten", 0, "header Inference-Header-Content-Length"),
        ({}, "5", 0, "body: expected JSON"),
        ({"parameters": {"binary_data_size": 700}}, None, 0, "input 'x': expected 768 bytes for shape [1, 3, 8, 8], got 700 bytes"),
        ({"parameters": {"binary_data_size": -4}}, None, 0, "binary_data_size of 0 or more"),
        ({"parameters": {"binary_data_size": 10**15}}, None, 0, "bytes of binary data, got 768 bytes; the body is cut short"),
    ],
)
def test_bad_binary_requests(server: Running, changes: dict[str, Any], length: str | None, cut: int, message: str) -> None:
    body, headers = binary(images(1), **changes)
    if length is not None:
        headers = {"Inference-Header-Content-Length": length}
    status, got, _ = server.ask("POST", "/v2/models/small/infer", body[: len(body) - cut], headers)
    assert (status, message in got["error"]) == (400, True), got


def test_a_digit_of_another_kind_before_a_large_body(server: Running) -> None:
    status, got, _ = server.ask("POST", "/v2/models/small/infer", b" " * (http_infer.LARGE + 1), {"Inference-Header-Content-Length": "²"})
    assert status == 400
    assert got["error"].startswith("header Inference-Header-Content-Length: expected a number of at most")


def test_a_fault_outside_of_the_inference_is_told_and_counted(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    before = server.metric('cosparse_request_failures_total{model="small",reason="internal"}')
    monkeypatch.setattr(http_infer, "large", lambda *_: 1 / 0)
    status, got, _ = server.infer(images(1))
    assert (status, got["error"]) == (500, "server: expected an answer, got ZeroDivisionError; its log has the reason")
    assert server.metric('cosparse_request_failures_total{model="small",reason="internal"}') == before + 1


def test_bytes_that_no_input_claims(server: Running) -> None:
    body, headers = binary(images(1))
    status, got, _ = server.ask("POST", "/v2/models/small/infer", body + b"more", headers)
    assert status == 400
    assert f"body: expected {len(body)} bytes, got {len(body) + 4} bytes" in got["error"]


@pytest.mark.parametrize(
    "name", ["nobody", "..", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "a" * 3000, "small%00", "%ff", "small/versions/7"]
)
def test_names_are_looked_up_and_never_become_paths(server: Running, name: str) -> None:
    status, got, _ = server.ask("POST", f"/v2/models/{name}/infer", request(images(1)))
    assert status == 404
    assert "expected" in got["error"]
    assert "a" * 200 not in got["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/small/infer", 405),
        ("POST", "/v2/models/small/infer%0A", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/v2", 405),
        ("GET", "/metrics/", 404),
    ],
)
def test_other_paths_and_methods(server: Running, method: str, path: str, status: int) -> None:
    found, got, _ = server.ask(method, path)
    assert (found, "expected" in got["error"]) == (status, True)


def test_server_model_and_health(server: Running) -> None:
    assert server.ask("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert server.ask("GET", "/v2")[1]["extensions"] == ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
    assert server.ask("GET", "/v2/models/other/versions/1/ready")[:2] == (200, {"name": "other", "ready": True})
    status, got, _ = server.ask("GET", "/v2/models/nobody")
    assert status == 404
    assert got["error"].startswith("model 'nobody': expected one of the models served here (other, small), got another name or version")


def test_metrics_count_successes_failures_and_batches(server: Running) -> None:
    before = server.metric('cosparse_requests_total{model="small",protocol="http"}')
    refused = server.metric('cosparse_request_failures_total{model="small",reason="invalid"}')
    unknown = server.metric('cosparse_request_failures_total{model="",reason="unknown_model"}')
    computed = server.metric('cosparse_images_total{model="small"}')
    server.infer(images(3))
    server.infer(images(1, shape=(3, 9, 9)))
    server.infer(images(1), "no-such-model")
    assert server.metric('cosparse_requests_total{model="small",protocol="http"}') == before + 1
    assert server.metric('cosparse_request_failures_total{model="small",reason="invalid"}') == refused + 1
    assert server.metric('cosparse_request_failures_total{model="",reason="unknown_model"}') == unknown + 1
    assert server.metric('cosparse_images_total{model="small"}') == computed + 3
    assert server.metric("cosparse_model_ready") == 3
    assert server.metric("cosparse_body_bytes") == 0
    assert "no-such-model" not in server.ask("GET", "/metrics")[1].decode()


def test_other_sizes_only_where_the_server_allows_them(place: Path) -> None:
    with serving(place / "small.cosparse", max_scale=4.0) as server:
        assert server.ask("GET", "/v2/models/small")[1]["inputs"][0]["shape"] == [-1, 3, -1, -1]
        for size in ((16, 16), (5, 7), (1, 1)):
            x = images(2, shape=(3, *size))
            want = cosparse.load(place / "small.cosparse", threads=1)(x)
            status, got, _ = server.infer(x)
            assert status == 200
            np.testing.assert_allclose(np.array(got["outputs"][0]["data"]).reshape(2, 10), want, atol=1e-5)
        status, got, _ = server.infer(images(1, shape=(3, 17, 16)))
        assert status == 400
        assert "or other heights and widths of at most 4 times its pixels, got [1, 3, 17, 16]" in got["error"]
