"""`cosparse serve`: artifacts behind the Open Inference Protocol v2, HTTP and gRPC."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosparse.cli.output import JsonOption, emit, table
from cosparse.cli.values import ThreadsOption
from cosparse.errors import Error

if TYPE_CHECKING:
    from cosparse.engine.serve.server import Started

SWITCH_INTERVAL = 0.0005  # seconds that a thread keeps the interpreter when another wants it: an answer should not wait 5 ms for it


def command(
    source: Annotated[Path, typer.Argument(help="An artifact, or a folder: NAME.cosparse or NAME/VERSION/model.cosparse.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one of the machine.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port for HTTP; 0: a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC; 0: a free one, -1: no gRPC.")] = 8081,
    threads: ThreadsOption = None,
    dtype: Annotated[str, typer.Option(help="What convolutions multiply: float32 or bfloat16.")] = "float32",
    workers: Annotated[int, typer.Option(help="Batches of one model that are computed at once.")] = 1,
    max_batch: Annotated[int, typer.Option(help="Images that are computed together at most.")] = 16,
    max_delay: Annotated[float, typer.Option(help="Milliseconds that a request waits for others while the engine is idle.")] = 0.0,
    queue: Annotated[int, typer.Option(help="Requests that wait at most, for each model; more are refused.")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds that an answer may take.")] = 30.0,
    read_timeout: Annotated[float, typer.Option(help="Seconds that a request may take to arrive.")] = 10.0,
    write_timeout: Annotated[float, typer.Option(help="Seconds after which a client that reads nothing of its answer is cut off.")] = 30.0,
    max_body: Annotated[int, typer.Option(help="Largest request, MiB.")] = 32,
    max_held: Annotated[int, typer.Option(help="Memory for all requests, and answers that wait to be read, MiB.")] = 256,
    max_model: Annotated[
        int | None, typer.Option(help="Weights of a model, and activations of a call, MiB each. Default: what the machine has left.")
    ] = None,
    connections: Annotated[int, typer.Option(help="HTTP connections at once.")] = 1024,
    max_scale: Annotated[
        float | None,
        typer.Option(help="Allow other heights and widths, of at most this many times the example's pixels. Default: its size alone."),
    ] = None,
    poll: Annotated[float, typer.Option(help="Seconds between two looks at the folder; 0: never.")] = 2.0,
    control: Annotated[bool, typer.Option("--control", help="Let clients load and unload models.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must send. Default: COSPARSE_TOKEN, else none is asked for.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate chain, PEM; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    drain: Annotated[float, typer.Option(help="Seconds that requests in flight have when the server is stopped.")] = 30.0,
    drain_delay: Annotated[float, typer.Option(help="Seconds between 'not ready' and the end of accepting.")] = 0.0,
    log_format: Annotated[str, typer.Option(help="json or text.")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    json: JsonOption = None,
) -> None:
    """Serve networks over HTTP and gRPC (Open Inference Protocol v2) until SIGTERM. --json: where it listens, once it is ready."""
    if log_format not in ("json", "text"):
        raise Error("--log-format", "json or text", repr(log_format))
    if log_level not in ("debug", "info", "warning", "error"):
        raise Error("--log-level", "debug, info, warning or error", repr(log_level))
    from cosparse.engine.serve import log, server
    from cosparse.engine.serve.folder import scan
    from cosparse.engine.serve.settings import MIB, Settings

    settings = Settings(
        source=source,
        host=host,
        http_port=http_port,
        grpc_port=None if grpc_port == -1 else grpc_port,
        threads=threads,
        dtype=dtype,
        workers=workers,
        max_batch=max_batch,
        max_delay=max_delay / 1e3,
        queue=queue,
        timeout=timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        body_bytes=max_body * MIB,
        held_bytes=max_held * MIB,
        model_bytes=max_model * MIB if max_model is not None else None,
        connections=connections,
        max_scale=max_scale,
        poll=poll,
        control=control,
        token=_token(token_file),
        tls_certificate=_readable("--tls-certificate", tls_certificate),
        tls_key=_readable("--tls-key", tls_key),
        drain=drain,
        drain_delay=drain_delay,
    )

    def started(found: Started) -> None:
        rows = [(row["name"], row["version"], row["state"], row["reason"]) for row in found.models]
        title = f"{found.http}" + (f", gRPC {found.grpc}" if found.grpc else "")
        shown = table(title, ("model", "version", "state", "reason"), rows, left=("model", "state", "reason"))
        emit({**asdict(found), "pid": os.getpid()}, json, shown)

    scan(source)  # what is wrong with it is said before anything begins
    log.set_up(log_format, log_level)
    sys.setswitchinterval(SWITCH_INTERVAL)
    server.run(settings, started)


def _token(file: Path | None) -> str:
    """A token that is set but empty would open the server to everybody, so it is an error."""
    try:
        given = file.read_text(encoding="utf-8").strip() if file else os.environ.get("COSPARSE_TOKEN")
    except UnicodeDecodeError:
        given = ""
    except OSError as error:
        raise Error(f"--token-file {file}", "a file that can be read", error.strerror or type(error).__name__, "check the path") from error
    if given is None:
        return ""
    if not given or not given.isascii() or not given.isprintable() or " " in given:
        raise Error(f"--token-file {file}" if file else "COSPARSE_TOKEN", "a token of printable ASCII without spaces", "another text")
    return given


def _readable(option: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise Error(option, "a file", str(path), "check the path")
    return path
