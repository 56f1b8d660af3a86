"""gRPC: the service `inference.GRPCInferenceService`, on grpc.aio and the protocol's messages as tritonclient ships them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import metadata as packages
from typing import Any

import grpc
import numpy
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve import grpc_limits, statistics, tensors
from cosparse.engine.serve.large_json import PAUSE
from cosparse.engine.serve.models import Model
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.service import Service

Context = Any  # grpc.aio.ServicerContext
OPEN = ("ServerLive", "ServerReady")
AT_ONCE = 16 << 10  # numbers of a repeated field that are read or made at once


class Inference(stubs.GRPCInferenceServiceServicer):
    """Methods that are not here are not offered: `Guard` refuses them."""

    def __init__(self, service: Service) -> None:
        self._service, self._models = service, service.models

    async def ServerLive(self, request: Any, context: Context) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:
        return messages.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(self, request: Any, context: Context) -> Any:
        try:
            self._models.find(request.name, request.version)
        except Refused as refused:
            if refused.kind is not Kind.NOT_READY:
                raise
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=not self._service.draining)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        return messages.ServerMetadataResponse(name="cosparse", version=packages.version("cosparse"), extensions=statistics.EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        model = self._models.find(request.name, request.version)
        found = tensors.metadata(model, self._models.versions(model.name), self._service.settings.max_scale)
        found.pop("properties")
        return messages.ModelMetadataResponse(**found)

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        found = statistics.configuration(self._models.find(request.name, request.version), self._service.settings)
        return json_format.ParseDict({"config": found}, messages.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        found = statistics.statistics(self._models, request.name, request.version)
        return json_format.ParseDict(found, messages.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:
        return messages.RepositoryIndexResponse(models=self._models.index())

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:
        self._service.allow_control()
        await self._models.aside(partial(self._models.load, request.model_name))
        return messages.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:
        self._service.allow_control()
        await self._models.aside(partial(self._models.unload, request.model_name))
        return messages.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Any, context: Context) -> Any:
        scale = self._service.settings.max_scale
        with self._service.bodies.hold(request.ByteSize()):
            made = await self._service.infer(
                request.model_name,
                request.model_version,
                "grpc",
                lambda model: Parsed(request, model, scale),
                _answer,
                context.time_remaining(),
                caller=context.peer(),
                apart=sum(len(tensor.contents.fp32_contents) for tensor in request.inputs) > AT_ONCE,
                long=lambda parsed, outputs: not parsed.raw and sum(outputs[place].size for place in parsed.outputs) > AT_ONCE,
            )
        grpc_limits.count_answer(self._service.bodies, context, made.ByteSize())
        return made


class Parsed:
    """The tensors of a ModelInferRequest, checked; raw where the request has `raw_input_contents`."""

    def __init__(self, request: Any, model: Model, max_scale: float | None) -> None:
        self.id = request.id
        self.raw = bool(request.raw_input_contents)
        tensors.check_names(model, [tensor.name for tensor in request.inputs])
        if self.raw and len(request.raw_input_contents) != len(request.inputs):
            raise tensors.invalid("raw_input_contents", f"{len(request.inputs)} of them", str(len(request.raw_input_contents)))
        found = {}
        for place, tensor in enumerate(request.inputs):
            spec = next(spec for spec in model.inputs if spec.name == tensor.name)
            if "shared_memory_region" in tensor.parameters:
                raise tensors.invalid(f"input '{spec.name}'", "data in the request", "shared memory", "send the tensor's bytes")
            shape = tensors.check(spec, tensor.datatype, list(tensor.shape), max_scale)
            if self.raw:
                found[spec.name] = tensors.from_bytes(spec, request.raw_input_contents[place], shape)
            else:
                found[spec.name] = _numbers(spec, tensor.contents.fp32_contents, shape)
        self.arrays = tuple(found[spec.name] for spec in model.inputs)
        self.outputs = tensors.wanted_outputs(model, [tensor.name for tensor in request.outputs])
        stated = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
        self.timeout = stated / 1e6 if stated > 0 else None


def _answer(model: Model, request: Parsed, outputs: tuple[numpy.ndarray, ...]) -> Any:
    made = messages.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    made.parameters["checksum"].string_param = model.digest
    for place in request.outputs:
        array = outputs[place]
        tensor = made.outputs.add(name=model.outputs[place].name, datatype=tensors.DATATYPE, shape=array.shape)
        if request.raw:
            made.raw_output_contents.append(array.astype("<f4", copy=False).tobytes())
        else:
            flat = array.ravel()
            for start in range(0, flat.size, AT_ONCE):
                tensor.contents.fp32_contents.extend(flat[start : start + AT_ONCE].tolist())
                _pause(flat.size)
    return made


def _numbers(spec: ValueSpec, given: Any, shape: tuple[int, ...]) -> numpy.ndarray:
    """From a repeated field, AT_ONCE at a time."""
    tensors.check_bytes(spec, 4 * len(given), shape)
    array = numpy.empty(len(given), numpy.float32)
    for start in range(0, len(given), AT_ONCE):
        array[start : start + AT_ONCE] = given[start : start + AT_ONCE]
        _pause(len(given))
    return array.reshape(shape)


def _pause(numbers: int) -> None:
    """Lets other threads run between two parts of many numbers, which are not read or made on the event loop."""
    if numbers > AT_ONCE:
        time.sleep(PAUSE)


class Guard(grpc.aio.ServerInterceptor):
    """The token, and what is raised made into a status."""

    def __init__(self, service: Service) -> None:
        self._service, self._arrivals, self._strangers = service, grpc_limits.Arrivals(service), grpc_limits.Strangers(service)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler, method = await continuation(details), details.method.rpartition("/")[2]
        inner: Any = handler.unary_unary if handler is not None and method in vars(Inference) else None
        service, arrivals, strangers = self._service, self._arrivals, self._strangers
        given = next((value for key, value in details.invocation_metadata or () if key == "authorization"), None)

        def read(data: bytes) -> Any:
            try:
                return handler.request_deserializer(data)
            except DecodeError:  # here the library would answer UNKNOWN
                return None

        async def guarded(parts: Any, context: Context) -> Any:
            try:
                if inner is not None and method in OPEN:
                    strangers.count(context, given)
                    return await inner(None, context)  # no place is taken and no message waited for: nobody has vouched for the caller
                service.admit(given)
                if inner is None:
                    wanted = f"method {method[:128]}: expected one that this server offers, got another; docs/serving.md lists them"
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, wanted)
                return await inner(await arrivals.read(context, method), context)
            except grpc.aio.AbortError:
                raise
            except Refused as error:
                refused = error if error.counted else service.failed(None, error)
            except Exception as error:
                refused = service.failed(None, error)
            more = () if refused.retry_after is None else (("retry-after", str(refused.retry_after)),)
            refused.__traceback__ = None  # it refers to this frame, and to the frames of the call with its messages
            await context.abort(grpc.StatusCode[refused.kind.code], str(refused), more)

        # On the wire it is the same, also as streams of which nothing is read; here it is the handler that asks for the message.
        return grpc.stream_unary_rpc_method_handler(guarded, read, handler.response_serializer if inner is not None else None)


def server(service: Service) -> tuple[grpc.aio.Server, int]:
    """A server bound to its port, not yet started, and the port. Raises RuntimeError or OSError where the port is taken."""
    settings = service.settings
    options, most = grpc_limits.options(settings), grpc_limits.most_calls(settings)
    made = grpc.aio.server(interceptors=[Guard(service)], options=options, maximum_concurrent_rpcs=most)
    stubs.add_GRPCInferenceServiceServicer_to_server(Inference(service), made)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    if settings.tls_certificate and settings.tls_key:
        pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
        port = made.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = made.add_insecure_port(address)
    return made, port
