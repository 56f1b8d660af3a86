"""Triton's interpreter, quicker: what it does once a call of a device function, once a number or once an operation is done less often."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def patch_once_a_launch() -> None:
    """What a launch or a device function before has put in place is left alone until the launch ends, which takes its own away again.
    Nothing where this version of Triton has other insides."""
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


def reduce_by_slices() -> None:
    """tl.reduce by a function of ours calls it once a slice, in the same order, not once a number: such functions are elementwise."""
    if not hasattr(interpreter, "ReduceOps") or not hasattr(interpreter.ReduceOps, "generic_reduce"):
        return
    by_number = interpreter.ReduceOps.generic_reduce

    def by_slices(self: Any, input: Any) -> Any:
        if self.axis is None or self.axis < 0:
            return by_number(self, input)
        slices = [np.moveaxis(one.handle.data, self.axis, 0) for one in input]
        done: Any = ()
        for at in range(len(slices[0])):
            taken = tuple(self.to_tensor(whole[at], one.dtype) for whole, one in zip(slices, input, strict=True))
            done = self.combine_fn.fn(*done, *taken) if done else taken
            done = done if isinstance(done, tuple) else (done,)
        numbers = [y.handle.data.astype(x.handle.data.dtype) for x, y in zip(input, done, strict=True)]
        if self.keep_dims:
            numbers = [np.expand_dims(y, self.axis) if x.handle.data.ndim > 1 else y for x, y in zip(input, numbers, strict=True)]
        elif slices[0].ndim == 1:
            numbers = [y.reshape(()) for y in numbers]
        return [self.to_tensor(y, x.dtype) for x, y in zip(input, numbers, strict=True)]

    interpreter.ReduceOps.generic_reduce = by_slices


def look_types_up_once() -> None:
    """numpy's type for one of Triton's is kept, where each call makes a table of all."""
    if not hasattr(interpreter, "_get_np_dtype"):
        return
    table, look = {}, interpreter._get_np_dtype

    def looked_up(kind: Any) -> np.dtype:
        name = kind.scalar.name
        if name not in table:
            table[name] = look(kind)
        return table[name]

    interpreter._get_np_dtype = looked_up


def ask_nothing_in_vain() -> None:
    """Whether whole numbers overflow is worked out at each addition and product, and then told to an assertion that does nothing unless
    debugging."""
    builder = getattr(interpreter, "interpreter_builder", None)
    options = getattr(builder, "options", None)
    if hasattr(options, "sanitize_overflow") and not getattr(options, "debug", True):
        builder.options = replace(options, sanitize_overflow=False)


def share_shapes() -> None:
    """Blocks of one shape share what their types and tensors know of it, where each makes and checks it anew."""
    of_types: dict[Any, dict[str, Any]] = {}
    of_tensors: dict[str, dict[str, Any]] = {}
    make_type, make_tensor = tl.core.block_type.__init__, tl.core.tensor.__init__

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *[getattr(size, "value", size) for size in shape])
        if key not in of_types:
            make_type(self, element_ty, shape)
            of_types[key] = {name: value for name, value in vars(self).items() if name != "element_ty"}
        self.__dict__.update(of_types[key], element_ty=element_ty)

    def tensor(self: Any, handle: Any, type: Any) -> None:
        key = type.name if type.is_block() else ""
        if key not in of_tensors:
            make_tensor(self, handle, type)
            of_tensors[key] = {name: value for name, value in vars(self).items() if name not in ("handle", "type", "dtype")}
        self.__dict__.update(of_tensors[key], handle=handle, type=type, dtype=type.scalar)

    tl.core.block_type.__init__, tl.core.tensor.__init__ = block_type, tensor
