"""ATen operation -> handler: the one list of what can be imported."""

from __future__ import annotations

from collections.abc import Callable

from cosparse.compress.importer.call import Handler

HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler under ATen names without overload and in-place mark (`relu` for aten.relu.default and aten.relu_.default)."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register
