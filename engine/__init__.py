"""Artifacts and the engine that runs them. Needs numpy and safetensors, never torch."""

from cosparse.engine.engine import Engine, load

__all__ = ["Engine", "load"]
