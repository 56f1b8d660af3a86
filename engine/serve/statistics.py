"""Two extensions of the protocol, model configuration and statistics: Triton's perf_analyzer and the like ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve import tensors
from cosparse.engine.serve.models import Model, Models
from cosparse.engine.serve.settings import Settings

EXTENSIONS = ("model_configuration", "model_repository", "statistics")
"""Of the server, over both protocols."""


def statistics(models: Models, name: str, version: str) -> dict[str, Any]:
    """Of one model, or of all where no name is given. Raises Refused as `Models.find`."""
    found = [models.find(name, version)] if name else models.all()
    return {"model_stats": [{"name": model.name, "version": model.version, **model.counts.rows()} for model in found]}


def configuration(model: Model, settings: Settings) -> dict[str, Any]:
    """In the words of Triton's ModelConfig; `dims` are without the batch."""

    def rows(specs: Sequence[ValueSpec]) -> list[dict[str, Any]]:
        kind = f"TYPE_{tensors.DATATYPE}"
        return [{"name": spec.name, "data_type": kind, "dims": tensors.public_shape(spec, settings.max_scale)[1:]} for spec in specs]

    return {
        "name": model.name,
        "platform": "cosparse",
        "backend": "cosparse",
        "max_batch_size": settings.max_batch,
        "input": rows(model.inputs),
        "output": rows(model.outputs),
        "dynamic_batching": {"max_queue_delay_microseconds": round(1e6 * settings.max_delay)},
    }
