"""The server's log: one JSON object a line on standard error, or plain lines for people."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _USUAL}


class Lines(logging.Formatter):
    """`time`, `level`, `event`, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": time, "level": record.levelname.lower(), "event": record.getMessage(), **fields(record)}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        more = "".join(f" {key}={value}" for key, value in fields(record).items())
        text = f"{self.formatTime(record)} {record.levelname.lower()}: {record.getMessage()}{more}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(form: str, level: str) -> None:
    """form: "json" or "text". The loggers of cosparse, uvicorn and its event loop; those of the program that embeds a server stay alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines() if form == "json" else Plain())
    for name, least in (("cosparse", level), ("uvicorn", "warning"), ("asyncio", "warning"), ("py.warnings", "warning")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least.upper())
        logger.propagate = False
    logging.captureWarnings(True)
