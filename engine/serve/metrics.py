"""What a server counts, for Prometheus. One registry for each server, so that two in a process do not mix.

The label `model` takes the names of served models alone; requests for others have it empty, so that nobody can make series at will.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cosparse.engine.serve.batcher import Ran

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The series. docs/serving.md has their meaning in a table, which a test compares with this."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        model = ("model",)
        self.requests = Counter("cosparse_requests_total", "Requests answered with a result", ("model", "protocol"), registry=own)
        self.failures = Counter("cosparse_request_failures_total", "Requests refused or failed", ("model", "reason"), registry=own)
        self.request_seconds = Histogram(
            "cosparse_request_seconds", "From the whole request to its answer", model, buckets=SECONDS, registry=own
        )
        self.queue_seconds = Histogram("cosparse_queue_seconds", "Time in the queue", model, buckets=SECONDS, registry=own)
        self.compute_seconds = Histogram("cosparse_compute_seconds", "Time of one call of the engine", model, buckets=SECONDS, registry=own)
        self.batch_images = Histogram("cosparse_batch_images", "Images in one call of the engine", model, buckets=IMAGES, registry=own)
        self.images = Counter("cosparse_images_total", "Images computed", model, registry=own)
        self.queue_requests = Gauge("cosparse_queue_requests", "Requests that wait now", model, registry=own)
        self.body_bytes = Gauge("cosparse_body_bytes", "Bytes of requests held now", registry=own)
        self.model_ready = Gauge("cosparse_model_ready", "1 where the model answers", ("model", "version"), registry=own)
        self.loads = Counter("cosparse_model_loads_total", "Models loaded, or that failed to", ("model", "outcome"), registry=own)

    def observer(self, name: str) -> Observer:
        return Observer(self, name)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Observer:
    """The series of one model, looked up once. Called from the batcher's workers."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._queue, self._compute = metrics.queue_seconds.labels(name), metrics.compute_seconds.labels(name)
        self._batch, self._images = metrics.batch_images.labels(name), metrics.images.labels(name)

    def __call__(self, ran: Ran) -> None:
        self._compute.observe(ran.compute)
        self._batch.observe(ran.images)
        self._images.inc(ran.images)
        for seconds in ran.waited:
            self._queue.observe(seconds)
