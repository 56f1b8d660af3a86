"""Other runtimes, given the same network with its dense weights: what the engine has to beat.

A peer is built from the artifact's own graph (`cosparse.bench.dense.densify`), so that any artifact can be compared without the code that
made it, and computes the same function. The table below is the one list of peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Protocol

import numpy as np

from cosparse.engine.graph import Graph
from cosparse.errors import Error

Arrays = tuple[np.ndarray, ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Runner:
    """One way in which a peer runs the network: `run` gives the outputs, `bind` a call that repeats one run without converting anything."""

    label: str
    run: Callable[[Arrays], Arrays]
    bind: Callable[[Arrays], Callable[[], object]]


class Runtime(Protocol):
    """What the module of a peer offers."""

    def runners(self, graph: Graph, shapes: Shapes, threads: int) -> Sequence[Runner]:
        """Every way to run the dense `graph` that is worth a comparison; `shapes` maps all values to their shapes in this run."""

    def save(self, graph: Graph, shapes: Shapes, folder: Path) -> Path:
        """Writes the dense `graph` in the form that the runtime loads; the file's path."""

    def load(self, path: Path, shapes: Shapes, threads: int) -> Callable[[Arrays], Arrays]:
        """Loads what `save` wrote."""


@dataclass(frozen=True)
class Peer:
    """A runtime that can be compared."""

    name: str
    package: str
    module: str

    def installed(self) -> bool:
        return util.find_spec(self.package) is not None

    def runtime(self) -> Runtime:
        """The peer's module; Error where its package is not installed."""
        if not self.installed():
            next_step = f"pip install {self.package}, or leave it out of --against"
            raise Error(f"peer {self.name}", f"the package {self.package}", "none", next_step)
        return import_module(self.module)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch", "torch", "cosparse.bench.peers.torch_peer"),
        Peer("onnxruntime", "onnxruntime", "cosparse.bench.peers.onnxruntime_peer"),
    )
}


def find(name: str) -> Peer:
    """The peer of that name; Error that lists those that exist."""
    if name not in PEERS:
        raise Error("peer", f"one of {', '.join(PEERS)}", repr(name))
    return PEERS[name]
