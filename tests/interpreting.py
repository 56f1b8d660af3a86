"""Triton's interpreter, quicker: it puts its own functions into triton.language at each call of a device function, not at each launch."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def patch_once_a_launch() -> None:
    """What a launch or a device function before has put in place is left alone until the launch ends, which takes its own away again.

    Nothing where this version of Triton has other insides.
    """
    if not hasattr(interpreter, "_LangPatchScope") or not hasattr(interpreter, "_patch_lang"):
        return
    patch, call = interpreter._patch_lang, interpreter.GridExecutor.__call__
    in_place: set[ModuleType] = set()
    needed: dict[Any, set[ModuleType]] = {}

    def patched(fn: Any) -> Any:
        if fn not in needed:
            modules = filter(inspect.ismodule, fn.__globals__.values())
            needed[fn] = {module for module in modules if module in (tl, tl.core)}
        if needed[fn] and needed[fn] <= in_place:
            return interpreter._LangPatchScope()
        in_place.update(needed[fn])
        return patch(fn)

    def launch(self: Any, *arguments: Any, **options: Any) -> Any:
        in_place.clear()
        try:
            return call(self, *arguments, **options)
        finally:
            in_place.clear()

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patched, launch
