"""The served models: loaded, warmed up and exchanged in the background, looked up by requests.

A model is `READY` from the end of its warm-up. A file that changes is loaded beside the old one, and the name then points to the new one in
one assignment: a request sees the one or the other. The old one works off its queue and goes. A file that cannot be loaded changes nothing;
the reason is in the log, in the index and on the status page.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cosparse.engine.engine import Engine, ValueSpec, load
from cosparse.engine.serve.aside import Aside
from cosparse.engine.serve.batcher import SHORT, Batcher, Ran
from cosparse.engine.serve.counts import Counts
from cosparse.engine.serve.folder import File, Key, Look, checksum, deleted, scan, unchanged
from cosparse.engine.serve.latencies import Latencies
from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.refusal import Kind, Refused
from cosparse.engine.serve.settings import Settings
from cosparse.engine.serve.traffic import Traffic
from cosparse.errors import ArtifactError, Error

log = logging.getLogger("cosparse.serve")

LONGEST_REASON = 2000  # characters of why a file cannot be loaded that are logged and shown
HELD = 0.010
"""Seconds for which a call that has no other beside it may hold the event loop, where it is the only worker's that it takes the place of.
The two hand-overs that it spares cost 0.1 to 0.5 ms; health checks and metrics wait for it."""


@dataclass(eq=False)
class Model:
    """One loaded version. `digest` is the artifact's checksum, which tells versions of one name apart."""

    name: str
    version: str
    file: File
    digest: str
    engine: Engine
    batcher: Batcher
    load_seconds: float
    counts: Counts
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def inputs(self) -> tuple[ValueSpec, ...]:
        return self.engine.inputs

    @property
    def outputs(self) -> tuple[ValueSpec, ...]:
        return self.engine.outputs


class Stopping(Exception):
    """The server was told to stop: what is being loaded is given up."""


class Models:
    """Reads are from the event loop and never wait; `sync`, `load` and `unload` take seconds: `await models.aside(...)`. `close` waits for
    them no longer than it is told."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics, self._traffic = settings, metrics, Traffic()
        self._ready: dict[Key, Model] = {}  # replaced as a whole, never changed
        self._trouble: dict[Key, str] = {}
        self._failed: dict[Key, File] = {}  # files that could not be loaded: not tried again before they change
        self._seen: dict[Key, File] = {}
        self._lone = False  # whether what is served is, or was, one artifact and no folder
        self._ignored: dict[str, str] = {}  # what was passed over at the last look: path -> why
        self._retired: list[threading.Thread] = []  # of closed batchers, and perhaps still at work
        self._unloaded: set[str] = set()  # by a client; they stay away until one asks for them
        self.aside = Aside()
        self._working = threading.Lock()
        self._stopping = threading.Event()
        self.started = False  # whether all that was there at the start has been tried
        self._complete = False  # whether all that was there has answered at once, if only for a while

    @property
    def ready(self) -> bool:
        """Whether every model of the start has been loaded, and any answers. A file that comes later and cannot be loaded does not take the
        others out of service."""
        return self.started and self._complete and bool(self._ready)

    def all(self) -> list[Model]:
        return [model for _, model in sorted(self._ready.items(), key=lambda item: (item[0][0], int(item[0][1])))]

    def versions(self, name: str) -> list[str]:
        return sorted((version for known, version in self._ready if known == name), key=int)

    def find(self, name: str, version: str = "") -> Model:
        """The model of this name; without a version, the highest. Raises Refused: not there, or not ready."""
        ready = self._ready
        if version:
            model = ready.get((name, version))
        else:
            numbers = [int(found) for known, found in ready if known == name]
            model = ready.get((name, str(max(numbers)))) if numbers else None
        if model is not None:
            return model
        asked = f"model '{name[:128]}'" + (f", version '{version[:16]}'" if version else "")
        trouble = self._trouble.get((name, version or "1")) or next((why for key, why in self._trouble.items() if key[0] == name), None)
        if trouble and (not version or (name, version) in self._trouble):
            raise Refused(Kind.NOT_READY, asked, "a model that is ready", trouble, "try again later", retry_after=2)
        if not self.started:
            raise Refused(Kind.NOT_READY, asked, "a server that is ready", "one that still loads", "try again later", retry_after=2)
        names = ", ".join(sorted({model.name for model in ready.values()})[:10]) or "none"
        raise Refused(
            Kind.UNKNOWN_MODEL, asked, f"one of the models served here ({names})", "another name or version", "see /v2/repository/index"
        )

    def index(self) -> list[dict[str, str]]:
        """One row for each model and version: name, version, state, reason."""
        ready = self._ready
        rows = [{"name": k[0], "version": k[1], "state": "READY", "reason": self._trouble.get(k, "")} for k in ready]
        rows += [
            {"name": k[0], "version": k[1], "state": "UNAVAILABLE", "reason": why} for k, why in self._trouble.items() if k not in ready
        ]
        return sorted(rows, key=lambda row: (row["name"], int(row["version"])))

    def sync(self, *, settle: bool = False, only: str = "") -> None:
        """Makes what is served equal to what lies on disk. settle: leave files alone that changed since the last look, as they may still be
        written; only: one name."""
        with self._working:
            look = self._look()
            for path, why in look.ignored.items():
                if self._ignored.get(path) != why:
                    log.warning("passed over", extra={"path": path, "reason": why})
            self._ignored = look.ignored
            kept = {key: file for key, file in self._seen.items() if look.unseen.intersection((file.path, *file.path.parents))}
            found = kept | look.found
            for key in [key for key in [*self._ready, *self._trouble] if key not in found or key[0] in self._unloaded]:
                self._remove(key)
            for key, file in look.found.items():
                if key[0] in self._unloaded:
                    continue
                current = self._ready.get(key)
                if (only and key[0] != only) or self._failed.get(key) == file or (current and current.file == file):
                    continue
                if self._stopping.is_set():
                    return
                if not (settle and self._seen.get(key) != file):
                    self._load(key, file)
            self._seen = found
            self._complete |= bool(self._ready) and not self._trouble.keys() - self._ready.keys()
            self.started = True

    def _look(self) -> Look:
        """What lies on disk. A lone artifact that was served and is deleted is nothing to serve; one that never was there is an error."""
        source = self._settings.source
        self._lone |= any(file.path == source for file in self._seen.values())
        return Look() if self._lone and deleted(source) else scan(source)

    def load(self, name: str) -> None:
        """Loads a name (anew where its file changed), all versions. Raises Refused where there is none or it cannot be loaded."""
        try:
            if not any(key[0] == name for key in self._look().found):
                wanted = "a file of this name in the repository"
                raise Refused(Kind.UNKNOWN_MODEL, f"model '{name[:128]}'", wanted, "none", "put it there first")
            with self._working:
                self._unloaded.discard(name)
                self._failed = {key: file for key, file in self._failed.items() if key[0] != name}
            self.sync(only=name)
        except Refused:
            raise
        except (Error, OSError) as error:  # its text has a path, which is not the client's business
            log.error("folder not read", extra={"reason": str(error)})
            raise Refused(
                Kind.NOT_READY, "model repository", "a folder that can be read", "none", "try again later", retry_after=2
            ) from error
        if self._stopping.is_set():
            raise Refused(Kind.NOT_READY, "server", "to run until the model is loaded", "told to stop", "try again later", retry_after=2)
        if trouble := [why for key, why in self._trouble.items() if key[0] == name]:
            raise Refused(Kind.INVALID, f"model '{name}'", "a file that can be loaded", trouble[0])

    def unload(self, name: str) -> None:
        self.find(name)
        with self._working:
            self._unloaded.add(name)
            for key in [key for key in self._ready if key[0] == name]:
                self._remove(key)

    def stop(self) -> None:
        """Loads no further file, and warms up no further batch of the one that is being loaded. From any thread, and at once."""
        self._stopping.set()

    def close(self, seconds: float) -> bool:
        """Stops, and waits until nothing is loaded and no engine computes any more, that long at most; whether so."""
        end = time.monotonic() + seconds
        self.stop()
        if not self._working.acquire(timeout=seconds):
            return False
        try:
            for key in list(self._ready):
                self._remove(key)
        finally:
            self._working.release()
        for thread in self._retired:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._retired)

    def _retire(self, batcher: Batcher) -> None:
        batcher.close()
        self._retired = [thread for thread in (*self._retired, *batcher.threads) if thread.is_alive()]

    def _load(self, key: Key, file: File) -> None:
        name, version = key
        first = key not in self._ready
        if first:
            self._trouble[key] = "it is being loaded"
        try:
            model = self._make(key, file)
        except Stopping:
            return
        except Exception as error:  # one file that cannot be loaded is no reason to leave the others alone
            known = isinstance(error, Error | OSError | MemoryError | RuntimeError)
            self._failed[key] = file
            text = str(error) or type(error).__name__
            reason = _short(text)
            self._trouble[key] = _short(self._public(file, text)) if known else f"{type(error).__name__}; the server's log has the reason"
            self._metrics.loads.labels(name, "failed").inc()
            log.error("not loaded", exc_info=None if known else error, extra={"model": name, "version": version, "reason": reason})
            return
        old = self._ready.get(key)
        self._ready = {**self._ready, key: model}
        self._trouble.pop(key, None)
        self._failed.pop(key, None)
        self._metrics.loads.labels(name, "loaded").inc()
        self._metrics.model_ready.labels(name, version).set(1)
        self._metrics.queue_requests.labels(name).set_function(lambda: self._depth(name))
        log.info(
            "loaded" if old is None else "reloaded",
            extra={"model": name, "version": version, "checksum": model.digest, "seconds": round(model.load_seconds, 3)},
        )
        if old is not None:
            self._retire(old.batcher)

    def _public(self, file: File, text: str) -> str:
        """For clients: they see the repository, not where it lies."""
        source = self._settings.source
        shown = file.path.name if file.path == source else str(file.path.relative_to(source))
        return text.replace(str(file.path), shown)

    def _make(self, key: Key, file: File) -> Model:
        settings, start = self._settings, time.monotonic()
        digest = checksum(file.path)
        engine = load(file.path, threads=settings.threads, dtype=settings.dtype, max_memory=settings.model_bytes)
        if not unchanged(file):
            raise ArtifactError(str(file.path), "a file that stays while it is loaded", "another one", "it is loaded again when it rests")
        for batch in warm_batches(settings.max_batch):
            if self._stopping.is_set():
                raise Stopping
            engine.warmup((batch,))
        if self._stopping.is_set():
            raise Stopping
        counts, series = Counts(), self._metrics.observer(key[0])

        def observe(ran: Ran) -> None:
            counts.ran(ran)
            series(ran)

        batcher = Batcher(
            engine,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            queue=settings.queue,
            workers=settings.workers,
            short=HELD if settings.workers == 1 else SHORT,
            traffic=self._traffic,
            observe=observe,
        )
        return Model(key[0], key[1], file, digest, engine, batcher, time.monotonic() - start, counts)

    def _remove(self, key: Key) -> None:
        self._trouble.pop(key, None)
        self._failed.pop(key, None)
        model = self._ready.get(key)
        if model is None:
            return
        self._ready = {other: kept for other, kept in self._ready.items() if other != key}
        self._metrics.model_ready.labels(*key).set(0)
        log.info("removed", extra={"model": key[0], "version": key[1]})
        self._retire(model.batcher)

    def _depth(self, name: str) -> int:
        return sum(model.batcher.depth for model in self._ready.values() if model.name == name)

    def status(self) -> list[dict[str, Any]]:
        """What the status page shows of each model."""
        rows: list[dict[str, Any]] = []
        for model in self.all():
            engine = model.engine
            rows.append(
                {
                    "name": model.name,
                    "version": model.version,
                    "network": engine.name,
                    "checksum": model.digest,
                    "dtype": engine.dtype,
                    "isa": engine.isa,
                    "threads": engine.threads,
                    "weight_bytes": engine.weight_bytes,
                    "load_seconds": round(model.load_seconds, 3),
                    "queue": model.batcher.depth,
                    "plan": str(engine.plan),
                    "latencies": model.latencies.rows(),
                }
            )
        return rows


def _short(text: str) -> str:
    """A file that cannot be loaded may have its say in the reason, of many MB."""
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}... ({len(text)} characters in all)"


def warm_batches(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most` itself."""
    sizes = {most} | {1 << power for power in range(most.bit_length()) if 1 << power <= most}
    return tuple(sorted(sizes))
