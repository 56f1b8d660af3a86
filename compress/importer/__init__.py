"""From a PyTorch module to the graph of docs/artifact.md: `from_torch(model, example)`."""

from cosparse.compress.importer.known import require_importable
from cosparse.compress.importer.walk import from_torch

__all__ = ["from_torch", "require_importable"]
