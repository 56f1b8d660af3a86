"""The server's life: listen, load, be ready, watch the folder, drain, end.

It listens before it has loaded, and says `ready: false` until every model is warm. On SIGTERM or SIGINT it is no longer ready, waits
`drain_delay`, stops accepting, answers what is in flight for at most `drain` seconds, refuses the rest, and ends when nothing is loaded
and no engine computes, or after ENDING seconds more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn

from cosparse.engine.serve import descriptors, grpc_app
from cosparse.engine.serve.connection import connection_class
from cosparse.engine.serve.direct import Direct
from cosparse.engine.serve.http_app import application
from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.models import Models
from cosparse.engine.serve.service import Service
from cosparse.engine.serve.settings import Settings
from cosparse.errors import Error

ENDING = 30.0  # seconds for loading and calls of the engines that go on when the time to drain is over: they cannot be broken off
RETRY = 2.0  # seconds after a first look at the folder that failed, where it is not looked at again

log = logging.getLogger("cosparse.serve")


@dataclass(frozen=True)
class Started:
    """Where the server listens, and what it serves, once it is ready."""

    http: str
    grpc: str | None
    models: list[dict[str, str]]


class _Http(uvicorn.Server):
    """Signals are handled here, for both protocols. `handshake`: seconds for that of TLS, until which nothing else sees a connection."""

    def __init__(self, config: uvicorn.Config, handshake: float) -> None:
        super().__init__(config)
        self._handshake = handshake

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        config, loop = self.config, asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            return config.http_protocol_class(config=config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]

        limit = self._handshake if config.ssl else None
        self.servers = [
            await loop.create_server(connection, sock=each, ssl=config.ssl, ssl_handshake_timeout=limit, backlog=config.backlog)
            for each in sockets or []
        ]
        self.started = True

    def drain(self) -> None:
        for connection in self.server_state.connections:
            connection.drain()  # type: ignore[union-attr]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """`await Server(settings).run()`; `stop()` from the event loop ends it as SIGTERM does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.service = Service(settings, self.metrics, self.models)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def run(self, started: Callable[[Started], None] = lambda started: None, *, signals: bool = True) -> None:
        """Until it is stopped. `started` is called once all models that load are ready."""
        settings, loop = self.settings, asyncio.get_running_loop()
        if not settings.loopback and not settings.token:
            log.warning("open to the network without a token", extra={"host": settings.host})
        _check_tls(settings)
        listener = _listen(settings)
        http = _Http(_config(self.service), settings.read_timeout)
        rpc, rpc_address = None, None
        if settings.grpc_port is not None:
            rpc, port = _rpc(self.service, listener)
            rpc_address = _address(settings.host, port)
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        serving = asyncio.create_task(http.serve([listener]))
        if rpc is not None:
            await rpc.start()
        address = f"{'https' if settings.tls_key else 'http'}://{_address(settings.host, listener.getsockname()[1])}"
        working = asyncio.create_task(self._load_and_watch(lambda: started(Started(address, rpc_address, self.models.index()))))
        working.add_done_callback(_ended)
        try:
            await asyncio.wait({asyncio.create_task(self._stop.wait()), serving}, return_when=asyncio.FIRST_COMPLETED)
            await self._drain(http, serving, rpc)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            if not await asyncio.to_thread(self.models.close, ENDING):
                log.error("still loading or computing", extra={"seconds": ENDING})
        log.info("stopped")

    async def _load_and_watch(self, ready: Callable[[], None]) -> None:
        """Never ends by an error: whatever it is, the log has it and the next look may find better."""
        while not await self._look(settle=False):
            await asyncio.sleep(self.settings.poll or RETRY)
        gc.collect()
        gc.freeze()  # what is there now stays: no later collection need look at it
        log.info("ready" if self.models.ready else "not ready", extra={"models": len(self.models.all())})
        try:
            ready()
        except Exception as error:  # such as a full disk: whoever wanted to know does not, and all others are served
            log.error(
                "ready, but not reported", exc_info=None if isinstance(error, Error | OSError) else error, extra={"reason": str(error)}
            )
        while self.settings.poll:
            await asyncio.sleep(self.settings.poll)
            await self._look(settle=True)

    async def _look(self, *, settle: bool) -> bool:
        """Whether the folder could be read."""
        try:
            await self.models.aside(partial(self.models.sync, settle=settle))
        except (Error, OSError) as error:
            log.error("folder not read", extra={"reason": str(error)})
        except Exception as error:
            log.error("folder not read", exc_info=error)
        else:
            return True
        return False

    async def _drain(self, http: _Http, serving: asyncio.Task[None], rpc: Any) -> None:
        log.info("draining")
        self.service.draining = True
        http.drain()
        self.models.stop()
        await asyncio.sleep(self.settings.drain_delay)
        http.should_exit = True
        if rpc is not None:
            await asyncio.gather(rpc.stop(self.settings.drain), serving)
        else:
            await serving
        left = http.server_state  # what was cancelled at the end of the time says so; who does not read that is cut off
        for _ in range(2):
            if left.tasks:
                await asyncio.wait(set(left.tasks), timeout=1.0)
            for connection in list(left.connections):
                connection.transport.abort()


def _address(host: str, port: int | None) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ended(watching: asyncio.Task[None]) -> None:
    """What ends the watching other than the server's end would else be heard of by nobody."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        log.error("folder no longer watched", exc_info=error)


def _check_tls(settings: Settings) -> None:
    """Raises Error where certificate and key are none, or not each other's: the libraries say less, and later."""
    if settings.tls_certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        got = getattr(error, "reason", None) or error.strerror or type(error).__name__
        wanted = f"a certificate chain and its key without a password, PEM, in {settings.tls_certificate} and {settings.tls_key}"
        raise Error("--tls-certificate, --tls-key", wanted, got, "check the files") from error


def _listen(settings: Settings) -> socket.socket:
    """The HTTP socket. Raises Error where the address cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(settings.host, settings.http_port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, UnicodeError) as error:  # the second: a name that none can be
        got = getattr(error, "strerror", None) or str(error)
        raise Error(
            "--host, --http-port", f"an address to listen on, {_address(settings.host, settings.http_port)}", got, "choose another"
        ) from error
    return made


def _rpc(service: Service, listener: socket.socket) -> tuple[Any, int]:
    try:
        return grpc_app.server(service)
    except (RuntimeError, OSError) as error:
        listener.close()
        wanted = f"an address to listen on, {_address(service.settings.host, service.settings.grpc_port)}"
        raise Error("--host, --grpc-port", wanted, str(error), "choose another") from error


def _config(service: Service) -> uvicorn.Config:
    settings = service.settings
    return uvicorn.Config(
        application(service),
        http=connection_class(settings, service.bodies, Direct(service)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def run(settings: Settings, started: Callable[[Started], None]) -> None:
    """Runs a server in this process until a signal ends it, on uvloop where that is installed."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop

    descriptors.allow(settings.connections)

    async def main() -> None:
        await Server(settings).run(started)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
