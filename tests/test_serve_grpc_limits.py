"""Clients over gRPC that read no answers or send slowly: what they hold is bounded, the others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
from http2_client import DATA, FIRST_WINDOW, HEADERS, SETTINGS, WINDOW, Http2
from serve_parts import Running, images, serving, until, write
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import InferenceServerException

WIDE = 50_000  # classes: an answer for one image has 200 kB


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unread")
    write(folder / "small.cosparse")
    write(folder / "wide.cosparse", classes=WIDE)
    return folder


def message(x: np.ndarray, model: str = "wide") -> bytes:
    made = messages.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return made.SerializeToString()


def infer(server: Running, x: np.ndarray, model: str = "small") -> np.ndarray:
    value = client.InferInput("x", list(x.shape), "FP32")
    value.set_data_from_numpy(x)
    with client.InferenceServerClient(server.grpc) as triton:
        return triton.infer(model, [value]).as_numpy("linear")


def live(server: Running) -> bool:
    """As a client without a token sees it."""
    with suppress(InferenceServerException), client.InferenceServerClient(server.grpc) as triton:
        return triton.is_server_live()
    return False


def port(server: Running) -> int:
    return int(server.grpc.rsplit(":", 1)[1])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_answers_that_are_not_read_are_counted_and_bounded(place: Path) -> None:
    text, size, most = message(images(1)), WIDE * 4, 4_000_000
    refused = 'cosparse_request_failures_total{model="",reason="memory_full"}'
    with serving(place, held_bytes=most, body_bytes=1_000_000) as server:
        held = server.server.service.bodies
        with Http2(port(server)) as one, Http2(port(server)) as other:
            for count in range(60):
                (one if count % 2 else other).call(text)
                until(lambda count=count: server.metric("cosparse_requests_total") > count)
            assert most - 2 * size < held._unread <= held._held <= most
            before = resident()
            for count in range(200):
                one.call(text)
                until(lambda count=count: server.metric("cosparse_requests_total") > 60 + count)
            until(lambda: server.metric(refused) > 230)
            assert held._unread <= most
            assert resident() < before + 50 * size  # a quarter of what they would take
            with pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*bytes of bodies at once, got more; try again later"):
                infer(server, images(1), "wide")
            assert infer(server, images(2)).shape == (2, 10)  # small answers, and HTTP, go on
            assert server.infer(images(1))[0] == 200
        until(lambda: held._unread == held._held == 0)
        assert infer(server, images(1), "wide").shape == (1, WIDE)
        until(lambda: held._unread == 0)


def test_an_answer_counts_until_it_has_left(place: Path) -> None:
    """A client whose window takes all of the answer: the library has sent it."""
    with serving(place) as server, Http2(port(server), window=1 << 24) as one:
        stream = one.call(message(images(8)))
        until(lambda: server.metric('cosparse_requests_total{model="wide",protocol="grpc"}') == 1)
        found = one.frames(1.0)
        assert sum(len(payload) for kind, at, payload in found if (kind, at) == (DATA, stream)) > 8 * WIDE * 4
        until(lambda: server.server.service.bodies._unread == 0)


def test_a_client_that_answers_no_pings_is_cut_off(place: Path) -> None:
    with serving(place, write_timeout=2.0) as server, Http2(port(server)) as one:
        one.call(message(images(8)))
        until(lambda: server.server.service.bodies._unread > 0)
        assert one.ended(15)
        until(lambda: server.server.service.bodies._unread == 0)


@pytest.fixture(scope="module")
def narrow(place: Path) -> Iterator[Running]:
    """One message at a time may arrive."""
    with serving(place, held_bytes=1_500_000, body_bytes=1_000_000, read_timeout=1.5) as server:
        yield server


def test_a_slow_sender_is_cut_off_and_those_behind_it_go_on(narrow: Running) -> None:
    slow = 'cosparse_request_failures_total{model="",reason="slow_sender"}'
    before = narrow.metric(slow)
    with Http2(port(narrow)) as one:
        stream = one.call(b"x" * 1000, whole=False)
        found: list[Any] = []
        start = time.monotonic()
        time.sleep(0.3)
        waiting = threading.Thread(target=lambda: found.append(infer(narrow, images(1))))
        waiting.start()
        (text,) = (payload for kind, at, payload in one.frames(1.8) if (kind, at) == (HEADERS, stream))
        assert b"message: expected a whole request within 1.5 s, got a part of it" in text
        waiting.join(10)
        assert found[0].shape == (1, 10)
        assert time.monotonic() - start > 1.2
        assert narrow.metric(slow) == before + 1
        stream = one.call(message(images(1), "small"))  # the connection is as good as before
        assert any((kind, at) == (DATA, stream) for kind, at, _ in one.frames(0.5))


def test_no_place_for_as_long_as_a_request_may_take(narrow: Running) -> None:
    with Http2(port(narrow)) as one:
        streams = [one.call(b"x" * 1000, whole=False) for _ in range(3)]
        texts = [payload for kind, _, payload in one.frames(2.2) if kind == HEADERS]
        assert any(b"expected at most 1 that arrive at once, got more; try again later" in text for text in texts)
        assert any(b"retry-after" in text for text in texts)
        assert len(streams) == 3
    until(lambda: infer(narrow, images(1)).shape == (1, 10))


def test_what_has_no_place_is_not_taken(narrow: Running) -> None:
    """More than a window of a message is asked for only where it has a place."""
    with Http2(port(narrow)) as one:
        first, second = (one.call(b"x" * 20_000, whole=False) for _ in range(2))
        found = one.frames(0.7)
        allowed = {at: sum(int.from_bytes(p, "big") for k, a, p in found if (k, a) == (WINDOW, at)) for at in (first, second)}
        (settings,) = (payload for kind, _, payload in found if kind == SETTINGS and payload)
        stated = {settings[i : i + 2]: int.from_bytes(settings[i + 2 : i + 6], "big") for i in range(0, len(settings), 6)}
        assert stated.get(b"\0\4", FIRST_WINDOW) == FIRST_WINDOW
        assert allowed[first] > 0
        assert allowed[second] == 0
    until(lambda: infer(narrow, images(1)).shape == (1, 10))


def test_the_token_comes_before_the_message(place: Path) -> None:
    with serving(place, token="secret") as server, Http2(port(server)) as one:
        for token in (None, "Bearer wrong"):
            stream = one.call(b"x" * 1000, whole=False, token=token)
            assert any(b"header Authorization" in payload for kind, at, payload in one.frames(0.5) if (kind, at) == (HEADERS, stream))


def test_calls_without_a_token_keep_nobody_out(place: Path) -> None:
    """Neither by messages that never come, nor by answers for which the client has no window."""
    with serving(place, token="secret", read_timeout=1.5, queue=100, connections=100, held_bytes=10**6, body_bytes=10**6) as server:
        with Http2(port(server)) as one, client.InferenceServerClient(server.grpc) as triton:
            streams = [one.call(b"", whole=False, method="ServerLive") for _ in range(40)]
            begun = time.monotonic()
            assert triton.is_server_ready()
            assert triton.is_model_ready("small", headers={"authorization": "Bearer secret"})
            assert time.monotonic() - begun < 1.0
            answered: set[int] = set()
            until(lambda: answered.update(at for kind, at, _ in one.frames(0.2) if kind == DATA) or answered == set(streams))
        with Http2(port(server), window=0) as one, client.InferenceServerClient(server.grpc) as triton:
            for _ in range(250):
                one.call(b"", method="ServerLive")
            refused: list[bytes] = []
            wanted = b"at most 50 without a token at once"
            until(lambda: refused.extend(text for _, _, text in one.frames(0.2) if wanted in text) or len(refused) >= 250 - 50)
            assert len(refused) == 250 - 50
            assert triton.is_model_ready("small", headers={"authorization": "Bearer secret"})
            assert triton.is_server_live(headers={"authorization": "Bearer secret"})
        until(lambda: live(server))


def test_many_numbers_come_and_go_in_parts(place: Path) -> None:
    x = images(700)
    request = messages.ModelInferRequest(model_name="small")
    request.inputs.add(name="x", datatype="FP32", shape=x.shape).contents.fp32_contents.extend(x.ravel().tolist())
    wide = messages.ModelInferRequest(model_name="wide")
    wide.inputs.add(name="x", datatype="FP32", shape=(1, 3, 8, 8)).contents.fp32_contents.extend(x[0].ravel().tolist())
    with serving(place) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        got = np.array(stub.ModelInfer(request).outputs[0].contents.fp32_contents, np.float32)
        np.testing.assert_allclose(got.reshape(700, 10), infer(server, x), atol=1e-5)
        got = np.array(stub.ModelInfer(wide).outputs[0].contents.fp32_contents, np.float32)
        np.testing.assert_allclose(got.reshape(1, WIDE), infer(server, x[:1], "wide"), atol=1e-5)
        request.inputs[0].shape[0] = 701
        with pytest.raises(grpc.RpcError, match=r"expected 538368 bytes for shape \[701, 3, 8, 8\], got 537600 bytes"):
            stub.ModelInfer(request)


def test_a_call_without_a_message(place: Path) -> None:
    with serving(place) as server, grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="message: expected the protocol's message for ModelInfer, got none") as info:
            call(iter(()), timeout=20)
        assert info.value.code() is grpc.StatusCode.INVALID_ARGUMENT
