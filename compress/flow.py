"""Which results of a run its outputs depend on: a graph of the memory that each operation reads and writes, kept while the model runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Flow(TorchDispatchMode):
    """Under it each operation is a node, behind those that last wrote the memory it reads.

    Memory counts as a whole: who reads a part of a tensor depends on all of it. A number that leaves torch (`item`) counts as an output,
    and so does a tensor that is not strided: its memory has no name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.behind: list[set[int]] = []
        self.latest: dict[int, int] = {}
        self.left: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)]
        result = func(*args, **kwargs)
        node, written = len(self.behind), [tensor for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        self.behind.append({at for tensor in read if (at := self.at(tensor)) >= 0})
        if not written or any(tensor.layout != torch.strided for tensor in (*read, *written)):
            self.left.add(node)
        self.latest |= {memory: node for tensor in written if (memory := _memory(tensor)) is not None}
        return result

    def at(self, tensor: torch.Tensor) -> int:
        """The operation that last wrote the tensor's memory; -1 where none did."""
        memory = _memory(tensor)
        return -1 if memory is None else self.latest.get(memory, -1)

    def reached(self, outputs: Iterable[Any]) -> set[int]:
        """The operations that the outputs depend on."""
        pending = [self.at(y) for y in outputs if isinstance(y, torch.Tensor)] + list(self.left)
        found: set[int] = set()
        while pending:
            node = pending.pop()
            if node >= 0 and node not in found:
                found.add(node)
                pending.extend(self.behind[node])
        return found


def _memory(tensor: torch.Tensor) -> int | None:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else None
