"""What the engine tells while it works: the logger `cosparse`, and COSPARSE_LOG, which sends it to standard error."""

from __future__ import annotations

import logging
import os

from cosparse.errors import Error

LEVELS = ("debug", "info", "warning", "error")


def logger() -> logging.Logger:
    """The logger `cosparse`. COSPARSE_LOG=debug|info|warning|error gives it that level and a handler on standard error; without it the
    program's own logging configuration decides. Raises Error for another value."""
    log = logging.getLogger("cosparse")
    level = os.environ.get("COSPARSE_LOG", "")
    if not level:
        return log
    if level not in LEVELS:
        raise Error("COSPARSE_LOG", f"one of {', '.join(LEVELS)}", repr(level))
    log.setLevel(level.upper())
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s cosparse %(levelname)s: %(message)s"))
        log.addHandler(handler)
    return log
