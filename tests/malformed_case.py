"""A malformed artifact: how to make it, and what its refusal must say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from artifact_parts import Parts, take_apart
from sample_graphs import every_op

from cosparse.engine.graph import Graph
from cosparse.errors import ArtifactError, Error

Mutation = Callable[[Parts], None]


@dataclass(frozen=True)
class Case:
    """`says` are the parts that the message must hold: the thing, what was expected, what was got."""

    id: str
    mutate: Mutation
    says: tuple[str, ...]
    error: type[Error] = ArtifactError
    graph: Callable[[], Graph] = every_op

    def to_bytes(self) -> bytes:
        parts = take_apart(self.graph())
        self.mutate(parts)
        return parts.to_bytes()


def case(id: str, mutate: Mutation, *says: str, error: type[Error] = ArtifactError) -> Case:
    return Case(id, mutate, says, error)


def entry(tensor: str, /, **fields: Any) -> Mutation:
    """Other fields in the header's entry of a tensor; None takes one away."""
    return lambda parts: _update(parts.header[tensor], fields)


def network(**fields: Any) -> Mutation:
    return lambda parts: _update(parts.network, fields)


def node(name: str, /, **fields: Any) -> Mutation:
    return lambda parts: _update(parts.node(name), fields)


def attrs(name: str, /, **values: Any) -> Mutation:
    return lambda parts: _update(parts.node(name)["attrs"], values)


def tensors(name: str, /, **roles: Any) -> Mutation:
    return lambda parts: _update(parts.node(name)["tensors"], roles)


def first_input(**fields: Any) -> Mutation:
    return lambda parts: _update(parts.network["inputs"][0], fields)


def poke(tensor: str, index: int, value: float) -> Mutation:
    """Another value at one place of a tensor."""

    def mutate(parts: Parts) -> None:
        parts.array(tensor).reshape(-1)[index] = value

    return mutate


def exchange(tensor: str, array: numpy.ndarray) -> Mutation:
    return lambda parts: parts.exchange(tensor, array)


def network_text(edit: Callable[[str], str]) -> Mutation:
    return lambda parts: setattr(parts, "edit_network", edit)


def header_text(edit: Callable[[str], str]) -> Mutation:
    return lambda parts: setattr(parts, "edit_header", edit)


def file_bytes(edit: Callable[[bytes], bytes]) -> Mutation:
    return lambda parts: setattr(parts, "edit_file", edit)


def both(*mutations: Mutation) -> Mutation:
    def mutate(parts: Parts) -> None:
        for mutation in mutations:
            mutation(parts)

    return mutate


def _update(target: dict[str, Any], fields: dict[str, Any]) -> None:
    for key, value in fields.items():
        if value is None:
            del target[key]
        else:
            target[key] = value
