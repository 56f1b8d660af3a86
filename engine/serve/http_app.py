"""HTTP: the routes of the Open Inference Protocol v2, its repository extension, metrics and the status page, as an ASGI application.

Every refusal is `{"error": TEXT}` with the status of its kind, `Retry-After` where another try makes sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import metadata as packages
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cosparse.engine.serve import http_infer, metrics, page, statistics, tensors
from cosparse.engine.serve.body import Disconnected, Receive
from cosparse.engine.serve.direct import ANSWER, BODY, WATCHED, Gathered, authorization, lines
from cosparse.engine.serve.models import Model
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.service import Service
from cosparse.engine.serve.settings import Settings, is_loopback

EXTENSIONS = ["binary_tensor_data", *statistics.EXTENSIONS]
OPEN = ("/v2/health/live", "/v2/health/ready", "/", "/status.js", "/status.css")  # without a token: probes, and a page that holds no data
INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
PIECE = 256 << 10  # bytes of an answer that are handed to the connection at once: TLS does not tell what it has beyond a few of them
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Infer:
    """POST .../infer, plain ASGI and reached before the other routes: it is the one whose time counts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str, version: str) -> None:
        service, headers = self._service, dict(scope["headers"])
        gathered: Gathered | None = scope.pop(BODY, None)  # connections keep their scopes
        whole = scope.pop(ANSWER, None)
        model: Model | None = None
        try:
            model = service.models.find(name, version)  # this and the queue before the body is read: a refusal should cost little
            if model.batcher.full:
                wanted, wait = f"a queue of at most {service.settings.queue} requests", model.batcher.retry_after()
                raise Refused(Kind.QUEUE_FULL, f"model '{model.name}'", wanted, "a full one", "try again later", retry_after=wait)
        except Refused as refused:
            await _refuse(send, service.failed(model, refused))
            return
        stated = headers.get(http_infer.HEADER.encode())
        header_length = None if stated is None else stated.decode("latin-1")
        try:
            async with service.bodies.read(headers, receive, gathered.view if gathered else None) as body:

                def parse(found: Model) -> http_infer.Request:
                    if gathered is not None and gathered.parsed is not None and gathered.parsed[0] is found:
                        return gathered.parsed[1]
                    return http_infer.parse(body, header_length, found, service.settings.max_scale)

                apart, caller = http_infer.large(body, header_length), scope.get("client")
                text, length = await service.infer(
                    name, version, "http", parse, http_infer.answer, caller=caller, apart=apart, long=http_infer.long
                )
            if len(text) > WATCHED:
                with service.bodies.answering(len(text)):
                    await _send(send, text, length)
                return
        except Disconnected:
            service.metrics.failures.labels(model.name, "disconnected").inc()
            return
        except Refused as refused:
            if not refused.counted:  # from reading the body or sending the answer
                service.failed(model, refused)
            await _refuse(send, refused)
            return
        except Exception as error:  # a fault of ours outside of `infer`, which is to be answered and counted like one inside
            with contextlib.suppress(RuntimeError):  # of an answer that has begun; its connection is closed
                await _refuse(send, service.failed(model, error))
            return
        if whole is None or not whole(lines(text, length)):
            await _send(send, text, length)


async def _send(send: Send, text: bytes, length: int | None) -> None:
    kind = b"application/json" if length is None else b"application/octet-stream"
    out = [(b"content-type", kind), (b"content-length", str(len(text)).encode())]
    if length is not None:
        out.append((http_infer.HEADER.encode(), str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": out})
    if len(text) > PIECE:
        view = memoryview(text)
        for start in range(0, len(text), PIECE):  # each waits until the ones before have left
            await send({"type": "http.response.body", "body": view[start : start + PIECE], "more_body": start + PIECE < len(text)})
        return
    await send({"type": "http.response.body", "body": text})


def application(service: Service) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application, the check of the token in front of it."""
    app: Any = Starlette(routes=_routes(service), exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _fault})
    app.router.redirect_slashes = False  # a redirect names the host that the client has sent
    infer = Infer(service)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if service.settings.token and scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                service.admit(authorization(scope["headers"]))
            except Refused as refused:
                await _refuse(send, service.failed(None, refused))
                return
        try:
            if scope["type"] == "http" and scope["method"] == "POST" and (place := INFER.fullmatch(scope["path"])):
                await infer(scope, receive, send, place["name"], place["version"] or "")
                return
            await app(scope, receive, send)
        except asyncio.CancelledError:  # the time to drain is over
            stopped = Refused(Kind.NOT_READY, "server", "to run until the answer", "told to stop", "try again later", retry_after=2)
            with contextlib.suppress(RuntimeError):  # of an answer that has begun; its connection is closed
                await _refuse(send, service.failed(None, stopped), close=True)

    return guarded


def _routes(service: Service) -> list[Route]:
    models, settings = service.models, service.settings

    async def server(request: Request) -> Response:
        return JSONResponse({"name": "cosparse", "version": packages.version("cosparse"), "extensions": EXTENSIONS})

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def model_ready(request: Request) -> Response:
        model = models.find(request.path_params["name"], request.path_params.get("version", ""))
        return JSONResponse({"name": model.name, "ready": not service.draining}, 503 if service.draining else 200)

    async def model(request: Request) -> Response:
        found = models.find(request.path_params["name"], request.path_params.get("version", ""))
        return JSONResponse(tensors.metadata(found, models.versions(found.name), settings.max_scale))

    async def config(request: Request) -> Response:
        found = models.find(request.path_params["name"], request.path_params.get("version", ""))
        return JSONResponse(statistics.configuration(found, settings))

    async def stats(request: Request) -> Response:
        named = request.path_params.get("name", ""), request.path_params.get("version", "")
        return JSONResponse(statistics.statistics(models, *named))

    async def index(request: Request) -> Response:
        return JSONResponse(models.index())

    async def load(request: Request) -> Response:
        service.allow_control()
        _refuse_other_pages(request, settings)
        await models.aside(partial(models.load, request.path_params["name"]))
        return JSONResponse({})

    async def unload(request: Request) -> Response:
        service.allow_control()
        _refuse_other_pages(request, settings)
        await models.aside(partial(models.unload, request.path_params["name"]))
        return JSONResponse({})

    async def scrape(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def status(request: Request) -> Response:
        shown = await asyncio.to_thread(models.status)
        return Response(
            orjson.dumps({"ready": service.ready, "models": shown, "index": models.index()}),
            media_type="application/json",
            headers={"cache-control": "no-store"},
        )

    async def not_quite(request: Request) -> Response:
        """The route answers 405 to other methods. A POST goes to `Infer`, unless its path ends with an escaped line's end."""
        raise HTTPException(404)

    one = "/v2/models/{name}"
    each = (one, f"{one}/versions/{{version}}")
    return [
        *(Route(f"{base}/infer", not_quite, methods=["POST"]) for base in each),
        *(Route(f"{base}/ready", model_ready) for base in each),
        *(Route(f"{base}/config", config) for base in each),
        *(Route(f"{base}/stats", stats) for base in each),
        Route("/v2/models/stats", stats),  # of all models; metadata of one that is called so are at its version
        *(Route(base, model) for base in each),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2", server),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", unload, methods=["POST"]),
        Route("/metrics", scrape),
        Route("/status", status),
        *page.routes(),
    ]


def _refuse_other_pages(request: Request, settings: Settings) -> None:
    """A browser lets any page send a POST without a body to any address that it reaches, the loopback one among them, and says who does. A
    page whose name its owner led to this machine (DNS rebinding) says the same name in both headers. Raises Refused."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is None:
        return
    elsewhere = settings.loopback and not is_loopback(re.sub(r":\d*$", "", host))
    if elsewhere or origin.partition("://")[2].lower() != host.lower():
        raise Refused(Kind.FORBIDDEN, "header Origin", "none, or the server's own address", repr(origin[:128]), "ask from no other page")


def _body(refused: Refused) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    text = orjson.dumps({"error": str(refused).encode("utf-8", "replace").decode()})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(refused.retry_after).encode()))
    if refused.kind is Kind.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.kind in (Kind.TOO_LARGE, Kind.SLOW_SENDER):
        headers.append((b"connection", b"close"))  # the rest of the body is not worth reading
    return text, headers


async def _refuse(send: Send, refused: Refused, *, close: bool = False) -> None:
    text, headers = _body(refused)
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _refused(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused(Kind.INTERNAL, "server", "an answer", type(error).__name__)
    text, headers = _body(refused)
    return Response(text, refused.kind.status, {key.decode(): value.decode() for key, value in headers})


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or another method."""
    status = getattr(error, "status_code", 500)
    expected = "a path of the Open Inference Protocol v2" if status == 404 else "another method"
    got = f"{request.method} {request.url.path[:200]}"
    return JSONResponse({"error": f"request: expected {expected}, got {got}"}, status, getattr(error, "headers", None))


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"server: expected an answer, got {type(error).__name__}; its log has the reason"}, 500)
