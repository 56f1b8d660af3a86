"""Other runtimes, given the same network with its dense weights: what the engine has to beat.

A peer is built from the artifact's own graph (`cosparse.bench.dense.densify`), so that any artifact can be compared without the code that
made it, and computes the same function. The table below is the one list of peers. A peer may offer several ways to run a network in one
dtype (layouts, precision of what is not quantised); the fastest of them stands for the peer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Protocol

import numpy as np

from cosparse.engine.graph import Graph
from cosparse.errors import Error, UnsupportedError

Arrays = tuple[np.ndarray, ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Runner:
    """One way in which a peer runs the network: `run` gives the outputs, `bind` a call that repeats one run without converting anything.

    Inputs and outputs of `run` are float32 whatever the `dtype` in which the peer computes.
    """

    label: str
    run: Callable[[Arrays], Arrays]
    bind: Callable[[Arrays], Callable[[], object]]
    dtype: str = "float32"


class Runtime(Protocol):
    """What the module of a peer offers."""

    def ways(self, dtype: str) -> Sequence[str]:
        """Labels of every way to run a network in `dtype` that is worth a comparison."""

    def save(self, graph: Graph, shapes: Shapes, folder: Path, dtype: str, samples: Sequence[Arrays]) -> Path:
        """Writes the dense `graph` in the form that the runtime loads; the file's path.

        `shapes` maps all values to their shapes in this run. `samples` are inputs of those shapes, for calibration where `dtype` needs it.
        """

    def load(self, path: Path, shapes: Shapes, threads: int, dtype: str, label: str) -> Runner:
        """Loads what `save` wrote for this dtype."""


@dataclass(frozen=True)
class Peer:
    """A runtime that can be compared.

    `dtypes` maps what it computes in to the packages that this needs besides `package`; `program` is a compiler that it calls while it
    runs, which the environment variable CXX may replace.
    """

    name: str
    package: str
    module: str
    dtypes: Mapping[str, tuple[str, ...]]
    program: str = ""

    def missing(self, dtype: str = "float32") -> str | None:
        """How to get the first thing that is not here and that `dtype` needs; None if nothing is missing."""
        for package in (self.package, *self.dtypes[dtype]):
            if util.find_spec(package) is None:
                return f"pip install {package}"
        if self.program and shutil.which(os.environ.get("CXX", self.program)) is None:
            return f"install {self.program}, or name another with CXX"
        return None

    def installed(self, dtype: str = "float32") -> bool:
        """Whether it can run networks in `dtype` here."""
        return dtype in self.dtypes and self.missing(dtype) is None

    def require(self, dtype: str) -> None:
        """Raises Error where the peer does not offer `dtype` or where something that it needs is missing."""
        if dtype not in self.dtypes:
            raise UnsupportedError(f"peer {self.name}", f"a dtype of {', '.join(self.dtypes)}", dtype, "leave it out of --against")
        if (remedy := self.missing(dtype)) is not None:
            wanted = ", ".join(filter(None, (self.package, *self.dtypes[dtype], self.program)))
            raise Error(f"peer {self.name}", f"{wanted} for {dtype}", "not all of them", f"{remedy}, or leave it out of --against")

    def runtime(self, dtype: str = "float32") -> Runtime:
        """The peer's module, once `require` is satisfied."""
        self.require(dtype)
        return import_module(self.module)

    def runners(
        self, graph: Graph, shapes: Shapes, threads: int, dtype: str = "float32", samples: Sequence[Arrays] = (), folder: Path | None = None
    ) -> list[Runner]:
        """Every way to run the dense `graph` in `dtype`; what the runtime loads is kept in `folder` where one is given."""
        runtime = self.runtime(dtype)
        with tempfile.TemporaryDirectory(prefix="cosparse-") as temporary:
            path = runtime.save(graph, shapes, folder or Path(temporary), dtype, samples)
            return [runtime.load(path, shapes, threads, dtype, label) for label in runtime.ways(dtype)]


TORCH: dict[str, tuple[str, ...]] = {"float32": (), "bfloat16": ()}
PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch", "torch", "cosparse.bench.peers.torch_peer", TORCH),
        Peer("torch.compile", "torch", "cosparse.bench.peers.torch_compile_peer", TORCH, program="g++"),
        Peer("onnxruntime", "onnxruntime", "cosparse.bench.peers.onnxruntime_peer", {"float32": ("onnx",), "int8": ("onnx",)}),
        Peer(
            "openvino",
            "openvino",
            "cosparse.bench.peers.openvino_peer",
            {"float32": ("onnx",), "bfloat16": ("onnx",), "int8": ("onnx", "nncf")},
        ),
    )
}


def find(name: str) -> Peer:
    """The peer of that name; Error that lists those that exist."""
    if name not in PEERS:
        raise Error("peer", f"one of {', '.join(PEERS)}", repr(name))
    return PEERS[name]


def installed(dtype: str = "float32") -> tuple[str, ...]:
    """Names of the peers that can run networks in `dtype` here."""
    return tuple(name for name, peer in PEERS.items() if peer.installed(dtype))
