"""The status page: three static files, which ask `/status` for what they show. They hold no data themselves, so they need no token."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).parent
HEADERS = {"content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
           "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}  # fmt: skip


def routes() -> list[Route]:
    return [_file("/", "status.html"), _file("/status.js", "status.js"), _file("/status.css", "status.css")]


def _file(path: str, name: str) -> Route:
    async def give(request: Request) -> Response:
        return FileResponse(FOLDER / name, headers=HEADERS)

    return Route(path, give)
