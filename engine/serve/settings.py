"""How a server is set up: one frozen record, checked when it is made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cosparse.errors import Error

MIB = 1 << 20
MOST_BATCH = 4096
MOST_WORKERS = 256


@dataclass(frozen=True)
class Settings:
    """Sizes in bytes, times in seconds. Ports: 0 takes a free one; grpc_port None serves HTTP alone."""

    source: Path  # an artifact, or a folder of them
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int | None = 8081
    threads: int | None = None
    dtype: str = "float32"
    workers: int = 1  # calls of one model's engine at once
    max_batch: int = 16
    max_delay: float = 0.0
    queue: int = 256  # requests that wait, for each model
    timeout: float = 30.0  # from the whole request to its answer
    read_timeout: float = 10.0  # from a request's first byte to its last
    write_timeout: float = 30.0  # without a byte of an answer that its client takes
    body_bytes: int = 32 * MIB
    held_bytes: int = 256 * MIB  # of all bodies together, and of answers that wait to be read
    model_bytes: int | None = None  # activations of one call of a model, and its packed weights; None: what the machine has left
    connections: int = 1024
    max_scale: float | None = None  # pixels of an input over those of the example; None: the example's size alone
    poll: float = 2.0  # between two looks at the folder; 0: never
    control: bool = False  # whether clients may load and unload models
    token: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    drain: float = 30.0  # for requests in flight when the server is told to stop
    drain_delay: float = 0.0  # between "not ready" and the end of accepting, for load balancers

    def __post_init__(self) -> None:
        for name in ("threads", "workers", "max_batch", "queue", "body_bytes", "held_bytes", "model_bytes", "connections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Error(_option(name), "at least 1", str(value))
        if self.max_batch > MOST_BATCH:
            raise Error("--max-batch", f"at most {MOST_BATCH}", str(self.max_batch), "every size up to it is warmed up")
        if self.workers > MOST_WORKERS:
            raise Error("--workers", f"at most {MOST_WORKERS}", str(self.workers), "each is a thread that calls an engine of many threads")
        if self.body_bytes >= 1 << 31:
            raise Error("--max-body", "less than 2048 MiB, the limit of a gRPC message", f"{self.body_bytes >> 20} MiB")
        for name in ("timeout", "read_timeout", "write_timeout", "drain"):
            if not 0 < getattr(self, name) < 1e6:
                raise Error(_option(name), "seconds above 0", str(getattr(self, name)))
        for name in ("max_delay", "poll", "drain_delay"):
            if not 0 <= getattr(self, name) < 1e6:
                raise Error(_option(name), "0 or more", str(getattr(self, name)))
        for name in ("http_port", "grpc_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port < 65536:
                raise Error(_option(name), "a port from 0 to 65535", str(port))
        if self.max_scale is not None and not 0 < self.max_scale <= 1024:
            raise Error("--max-scale", "a number above 0, at most 1024", str(self.max_scale))
        if self.dtype not in ("float32", "bfloat16"):
            raise Error("--dtype", "float32 or bfloat16", repr(self.dtype), "int8 needs a calibration, which an artifact does not hold")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise Error("--tls-certificate, --tls-key", "both or neither", "one of them")

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address, an IPv6 one in brackets or without, is this machine's own to everybody."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _option(name: str) -> str:
    kind, _, unit = name.partition("_")
    return f"--max-{kind}" if unit == "bytes" else "--" + name.replace("_", "-")
