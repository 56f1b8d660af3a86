"""The measurements, one function each: (setting) -> a dict with what was measured, `bar` in words and `passed`."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

import cosparse
from cosparse.bench.serving.client import Connection, Load, drive, message, output, percentiles
from cosparse.bench.serving.process import server
from cosparse.engine.serve.folder import checksum

Result = dict[str, Any]

ROUNDS = 7
LEAST = 300
"""Requests of a round, so that a 99th percentile is more than the longest."""


@dataclass(frozen=True)
class Setting:
    artifact: Path
    threads: int = 1
    clients: int = 16
    seconds: float = 5.0  # of each load
    soak: int = 100_000
    max_batch: int = 16

    def images(self, count: int, seed: int = 0) -> numpy.ndarray:
        (spec,) = self.engine().inputs
        return numpy.random.default_rng(seed).normal(size=(count, *(size or 1 for size in spec.shape[1:]))).astype(numpy.float32)

    def engine(self, path: Path | None = None) -> cosparse.Engine:
        return cosparse.load(path or self.artifact, threads=self.threads)

    def requests(self, *counts: int) -> list[bytes]:
        (spec,) = self.engine().inputs
        return [message(f"/v2/models/{self.artifact.stem}/infer", self.images(count, count), spec.name) for count in counts]

    def options(self, **changed: object) -> list[str]:
        usual: dict[str, object] = {"threads": self.threads, "max_batch": self.max_batch, "log_level": "error"}
        return [word for key, value in (usual | changed).items() for word in ("--" + key.replace("_", "-"), str(value))]


def overhead(setting: Setting) -> Result:
    """One client, one image: the server's median against the engine's, call by call in turn."""
    engine, x, (request,) = setting.engine().warmup(), setting.images(1), setting.requests(1)

    served: list[float] = []
    bare: list[float] = []
    with server(setting.artifact, *setting.options()) as place:
        connection, end = Connection(place.port), time.perf_counter() + setting.seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            connection.ask(request)
            middle = time.perf_counter()
            engine(x)
            served.append(middle - start)
            bare.append(time.perf_counter() - middle)
        connection.close()
    served, bare = served[10:], bare[10:]
    added = 1e3 * float(numpy.median(served) - numpy.median(bare))
    return {
        "served": percentiles(served),
        "engine": percentiles(bare),
        "overhead_ms": round(added, 4),
        "bar": "median at most 0.5 ms above the engine's",
        "passed": bool(added <= 0.5),
    }


def batching(setting: Setting) -> Result:
    """All clients as fast as they can, with and without batches, in turn."""
    rates: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(2):
        for kind, most in (("with", setting.max_batch), ("without", 1)):
            with server(setting.artifact, *setting.options(max_batch=most)) as place:
                load = _drive(place.port, setting, setting.requests(1), seconds=setting.seconds)
            rates[kind].append(load.statuses[200] / load.seconds)
    ratio = max(rates["with"]) / max(rates["without"])
    shown = {f"per_second_{kind}": [round(rate, 1) for rate in found] for kind, found in rates.items()}
    return {**shown, "ratio": round(ratio, 3), "bar": "at least 1.5 times the throughput", "passed": bool(ratio >= 1.5)}


def latency(setting: Setting) -> Result:
    """p99 at 80 % of what the server reaches when saturated, against the median of a single client: in rounds, each with a median and a
    saturation of its own, as a shared machine is not equally fast from one minute to the next. The middle round counts."""
    requests, seconds = setting.requests(1), setting.seconds / ROUNDS
    rounds: list[Result] = []
    ratios: list[float] = []
    with server(setting.artifact, *setting.options()) as place:
        for _ in range(ROUNDS):
            alone = _drive(place.port, setting, requests, clients=1, seconds=seconds)
            full = _drive(place.port, setting, requests, seconds=seconds)
            rate = 0.8 * full.statuses[200] / full.seconds
            load = _drive(place.port, setting, requests, seconds=max(2 * seconds, LEAST / rate), rate=rate)
            ratios.append(percentiles(load.latencies)["p99_ms"] / percentiles(alone.latencies)["p50_ms"])
            shown = {"single_client": alone.summary(), "saturated": full.summary(), "at_80_percent": load.summary()}
            rounds.append({**shown, "failures": load.failures, "ratio": round(ratios[-1], 3)})
    ratio = statistics.median(ratios)
    return {
        "rounds": rounds,
        "ratio": round(ratio, 3),
        "bar": "p99 at most 3 times the batch-1 median, in the middle round",
        "passed": bool(ratio <= 3 and not any(found["failures"] for found in rounds)),
    }


def reload(setting: Setting) -> Result:
    """The file is exchanged again and again under load: no failure, and each answer is that of the model which it names."""
    other = _variant(setting.artifact)
    x = setting.images(1, 1)
    want = {checksum(path): setting.engine(path)(x) for path in (setting.artifact, other)}
    seen: set[str] = set()

    def check(headers: dict[bytes, bytes], body: bytes) -> bool:
        digest, got = output(headers, body)
        seen.add(digest)
        return digest in want and bool(numpy.allclose(got, want[digest], rtol=1e-3, atol=1e-4))

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / setting.artifact.name
        shutil.copy(setting.artifact, target)

        turns, done = 0, threading.Event()

        def exchange() -> None:
            nonlocal turns
            while not done.wait(1.5):
                turns += 1
                copy = target.with_name(".new")
                shutil.copy(other if turns % 2 else setting.artifact, copy)
                os.replace(copy, target)

        with server(Path(folder), *setting.options(poll=0.2)) as place:
            exchanger = threading.Thread(target=exchange)
            exchanger.start()
            try:
                load = _drive(place.port, setting, setting.requests(1), seconds=max(10.0, 2 * setting.seconds), check=check)
            finally:
                done.set()
                exchanger.join()
    shutil.rmtree(other.parent)
    good = not load.failures and not load.wrong and seen == set(want)
    return {
        **load.summary(),
        "exchanges": turns,
        "models_seen": len(seen),
        "bar": "no failure, both models seen, no mixed answer",
        "passed": bool(good),
    }


def overload(setting: Setting) -> Result:
    """Five times the capacity: refusals are fast and say when to come back, memory is bounded, and the server recovers."""
    requests = setting.requests(1)
    with server(setting.artifact, *setting.options(queue=32)) as place:
        full = _drive(place.port, setting, requests, seconds=setting.seconds)
        capacity, before = full.statuses[200] / full.seconds, place.rss_mb
        load = _drive(place.port, setting, requests, clients=160, seconds=setting.seconds, rate=5 * capacity)
        after = place.rss_mb
        time.sleep(2.0)
        later = _drive(place.port, setting, requests, clients=1, seconds=1.0)
    recovered = not later.failures and percentiles(later.latencies)["p50_ms"] < 3 * percentiles(full.latencies)["p50_ms"]
    return {
        "capacity_per_second": round(capacity, 1),
        "load": load.summary(),
        "refusals": percentiles(load.refusals),
        "without_retry_after": load.without_retry_after,
        "rss_mb": [round(before, 1), round(after, 1)],
        "after_2_s": later.summary(),
        "bar": "memory grows by at most 64 MB, every refusal has Retry-After, no broken connection, recovered within 2 s",
        "passed": bool(after - before <= 64 and not load.without_retry_after and not load.broken and recovered),
    }


def soak(setting: Setting) -> Result:
    """Many requests of mixed sizes: memory is flat after the first tenth."""
    requests = setting.requests(1, 2, 3, 5, 8, 13, 16, 17)
    memory = []
    with server(setting.artifact, *setting.options()) as place:
        total = Load()
        for _ in range(10):
            load = _drive(place.port, setting, requests, count=max(1, setting.soak // 10))
            memory.append(round(place.rss_mb, 1))
            total.statuses += load.statuses
            total.broken += load.broken
            total.latencies += load.latencies
            total.seconds += load.seconds
    growth = memory[-1] - memory[0]
    good = not total.failures and growth <= max(8.0, 0.05 * memory[0])
    return {
        **total.summary(),
        "rss_mb": memory,
        "bar": "no failure; memory grows by at most 5 % or 8 MB after the first tenth",
        "passed": bool(good),
    }


def _drive(port: int, setting: Setting, requests: list[bytes], *, clients: int | None = None, **how: Any) -> Load:
    return drive(port, requests, clients=clients or setting.clients, **how)


def _variant(path: Path) -> Path:
    """The same network with other weights: its last layer's turned around in sign."""
    from dataclasses import replace

    from cosparse.engine import artifact

    graph = artifact.read(path)
    place = max(i for i, node in enumerate(graph.nodes) if "values" in node.tensors)
    node = graph.nodes[place]
    turned = replace(node, tensors={**node.tensors, "values": -node.tensors["values"]})
    made = Path(tempfile.mkdtemp()) / path.name
    artifact.write(made, replace(graph, nodes=(*graph.nodes[:place], turned, *graph.nodes[place + 1 :])))
    return made


PARTS: dict[str, Callable[[Setting], Result]] = {
    "overhead": overhead,
    "batching": batching,
    "latency": latency,
    "reload": reload,
    "overload": overload,
    "soak": soak,
}
