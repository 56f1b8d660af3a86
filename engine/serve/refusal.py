"""What a server answers when it does not compute: one kind for each reason, with its HTTP status and its gRPC code."""

from __future__ import annotations

import enum

from cosparse.errors import Error


class Kind(enum.Enum):
    """reason (the label in the metrics), HTTP status, name of the gRPC code."""

    INVALID = ("invalid", 400, "INVALID_ARGUMENT")
    UNAUTHORIZED = ("unauthorized", 401, "UNAUTHENTICATED")
    FORBIDDEN = ("forbidden", 403, "PERMISSION_DENIED")
    UNKNOWN_MODEL = ("unknown_model", 404, "NOT_FOUND")
    SLOW_SENDER = ("slow_sender", 408, "DEADLINE_EXCEEDED")
    TOO_LARGE = ("too_large", 413, "INVALID_ARGUMENT")
    ENCODING = ("encoding", 415, "INVALID_ARGUMENT")
    QUEUE_FULL = ("queue_full", 429, "RESOURCE_EXHAUSTED")
    INTERNAL = ("internal", 500, "INTERNAL")
    NOT_READY = ("not_ready", 503, "UNAVAILABLE")
    MEMORY_FULL = ("memory_full", 503, "RESOURCE_EXHAUSTED")
    TIMEOUT = ("timeout", 504, "DEADLINE_EXCEEDED")

    @property
    def reason(self) -> str:
        return self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]

    @property
    def code(self) -> str:
        return self.value[2]


class Refused(Error):
    """A request that is not answered. `retry_after`: whole seconds after which another try makes sense, or None where it makes none.
    `counted`: whether the metrics have it."""

    def __init__(
        self, kind: Kind, about: str, expected: str = "", got: str = "", next_step: str = "", *, retry_after: int | None = None
    ) -> None:
        super().__init__(about, expected, got, next_step)
        self.kind = kind
        self.retry_after = retry_after
        self.counted = False


class Closed(Exception):
    """The batcher takes nothing more: its model was exchanged or removed. Whoever sees it asks for the model again."""
