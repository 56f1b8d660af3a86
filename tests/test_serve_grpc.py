"""Open Inference Protocol v2 over gRPC, by tritonclient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
from serve_parts import Gate, Running, images, serving, until, write
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import InferenceServerException

import cosparse
from cosparse.engine.serve import models as served


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("grpc") / "small.cosparse")


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[Running]:
    with serving(file, max_batch=4, body_bytes=100_000) as running:
        yield running


@pytest.fixture
def triton(server: Running) -> Iterator[Any]:
    with client.InferenceServerClient(server.grpc) as made:
        yield made


def value(x: np.ndarray) -> client.InferInput:
    made = client.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return made


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_tritonclient_gets_the_engines_numbers(triton: Any, file: Path, count: int) -> None:
    x = images(count)
    got = triton.infer("small", [value(x)], outputs=[client.InferRequestedOutput("linear")], request_id="7")
    np.testing.assert_allclose(got.as_numpy("linear"), cosparse.load(file, threads=1)(x), atol=1e-5)
    assert got.get_response().id == "7"
    assert got.get_response().parameters["checksum"].string_param.startswith("blake2b-256:")


def test_numbers_instead_of_bytes(server: Running, file: Path) -> None:
    x = images(2)
    request = messages.ModelInferRequest(model_name="small")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    tensor.contents.fp32_contents.extend(x.ravel().tolist())
    with grpc.insecure_channel(server.grpc) as channel:
        got = stubs.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not got.raw_output_contents
    found = np.array(got.outputs[0].contents.fp32_contents, np.float32).reshape(2, 10)
    np.testing.assert_allclose(found, cosparse.load(file, threads=1)(x), atol=1e-5)


def test_tritonclient_sees_server_and_models(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("small")
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND"):
        triton.is_model_ready("nobody")
    assert triton.get_server_metadata().name == "cosparse"
    found = triton.get_model_metadata("small")
    assert (found.name, list(found.versions), list(found.inputs[0].shape)) == ("small", ["1"], [-1, 3, 8, 8])
    assert triton.get_model_repository_index().models[0].state == "READY"


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda r: setattr(r, "model_name", "../x"), "NOT_FOUND", "model '../x': expected one of the models served here"),
        (lambda r: setattr(r, "model_version", "9"), "NOT_FOUND", "model 'small', version '9'"),
        (lambda r: setattr(r.inputs[0], "datatype", "INT8"), "INVALID_ARGUMENT", "input 'x': expected datatype FP32, got 'INT8'"),
        (lambda r: r.inputs[0].shape.append(3), "INVALID_ARGUMENT", r"input 'x': expected shape \[-1, 3, 8, 8\]"),
        (lambda r: r.inputs[0].shape.__setitem__(0, 2**30), "INVALID_ARGUMENT", "bytes for shape"),
        (lambda r: r.inputs[0].shape.__setitem__(0, 0), "INVALID_ARGUMENT", "a shape of whole numbers above 0"),
        (lambda r: setattr(r.inputs[0], "name", "z"), "INVALID_ARGUMENT", "expected the inputs x, each once, got z"),
        (lambda r: r.raw_input_contents.append(b""), "INVALID_ARGUMENT", "raw_input_contents: expected 1 of them, got 2"),
        (lambda r: r.raw_input_contents.__setitem__(0, b"abc"), "INVALID_ARGUMENT", "expected 768 bytes for shape"),
        (lambda r: r.outputs.add(name="zz"), "INVALID_ARGUMENT", "output 'zz': expected one of linear"),
        (lambda r: r.ClearField("raw_input_contents"), "INVALID_ARGUMENT", "expected 768 bytes for shape .* got 0 bytes"),
        (lambda r: r.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "a"), "INVALID_ARGUMENT", "shared memory"),
        (lambda r: r.raw_input_contents.__setitem__(0, b"0" * 200_000), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server: Running, triton: Any, make: Any, code: str, message: str) -> None:
    x = images(1)
    request = messages.ModelInferRequest(model_name="small", raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    make(request)
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError, match=message) as info:
        stubs.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert info.value.code().name == code
    assert triton.infer("small", [value(x)]).as_numpy("linear").shape == (1, 10)


def test_closed_and_unknown_methods(triton: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"PERMISSION_DENIED.*expected a server started with --control"):
        triton.unload_model("small")
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED"):
        triton.get_trace_settings("small")


def test_the_token(file: Path) -> None:
    with serving(file, token="secret") as server, client.InferenceServerClient(server.grpc) as triton:
        assert triton.is_server_ready()
        for headers in (None, {"authorization": "Bearer wrong"}):
            with pytest.raises(InferenceServerException, match=r"UNAUTHENTICATED.*header Authorization"):
                triton.infer("small", [value(images(1))], headers=headers)
        assert triton.infer("small", [value(images(1))], headers={"authorization": "Bearer secret"}).as_numpy("linear").shape == (1, 10)


def test_what_is_not_offered_is_said_so_after_the_token(file: Path) -> None:
    """A stream, a method of the protocol, one of nobody's, another service: in one form, and without waiting for a message."""
    good = [("authorization", "Bearer secret")]
    with serving(file, token="secret") as server, grpc.insecure_channel(server.grpc) as channel:
        service = "/inference.GRPCInferenceService"
        for path in (f"{service}/ModelStreamInfer", f"{service}/SystemSharedMemoryStatus", f"{service}/Nope", "/x.Y/ServerLive"):
            call = channel.stream_stream(path)
            for metadata, code, text in (
                ((), "UNAUTHENTICATED", "header Authorization: expected 'Bearer' and the server's token, got none"),
                (good, "UNIMPLEMENTED", f"method {path.rpartition('/')[2]}: expected one that this server offers, got another; docs/"),
            ):
                with pytest.raises(grpc.RpcError) as info:
                    list(call(iter(()), metadata=metadata, timeout=20))
                assert info.value.code().name == code
                assert info.value.details().startswith(text)


def test_deadlines_and_a_full_queue(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(cosparse.load(file, threads=1))
    monkeypatch.setattr(served, "load", lambda *_, **__: gate)
    with serving(file, queue=1, max_batch=1) as server, client.InferenceServerClient(server.grpc) as triton:
        try:
            found: list[Any] = []
            for count in range(2):
                triton.async_infer("small", [value(images(1))], lambda result, error: found.append(error))
                until(lambda count=count: gate.entered == 1 and server.metric("cosparse_queue_requests") == count)
            with pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*a queue of at most 1 requests"):
                triton.infer("small", [value(images(1))])
            gate.open.set()
            until(lambda: len(found) == 2)
            assert found == [None, None]
            gate.open.clear()
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED"):
                triton.infer("small", [value(images(1))], timeout=50_000)  # parameter, in microseconds
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED|Deadline"):
                triton.infer("small", [value(images(1))], client_timeout=0.05)
        finally:
            gate.open.set()


def test_bytes_that_are_no_message(server: Running) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as info:
            call(b"\xff\xff\xff", timeout=20)
    assert info.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.value.details() == "message: expected the protocol's message for ModelInfer, got other bytes"
