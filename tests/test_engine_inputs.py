"""Inputs that steps read where the caller has them, beside those that are copied into the engine's memory first; against the reference,
whole numbers, so that answers are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from chains import add, layer
from engines import engine_of, graph_of

from cosparse.engine.graph import Graph
from cosparse.kernels import reference

STRIDED = {"stride": (2, 2)}


def networks() -> dict[str, Graph]:
    """First layers that copy what they read (few channels and a window), alone and beside readers that do not."""
    image = {"x": (3, 33, 47)}
    first, small = layer("first", "x", 16, 3, 7, **STRIDED), layer("small", "x", 16, 3, 1, seed=3, **STRIDED)
    second = layer("second", "x", 16, 3, 3, seed=5, **STRIDED)
    even = layer("even", "x", 8, 3, 3, seed=7)  # rows of whole vectors: copied with its padding, without stride
    return {
        "one": graph_of([first, layer("then", "first", 8, 16)], image),
        "both copy": graph_of([first, second, add("sum", "first", "second")], image),
        "one copies": graph_of([first, small, add("sum", "first", "small")], image),
        "an output too": graph_of([first], image, ["first", "x"]),
        "with its padding": graph_of([even], {"x": (3, 18, 32)}),
        "and added to": graph_of([layer("same", "x", 3, 3, 3), add("sum", "same", "x")], {"x": (3, 18, 32)}),
        "two inputs": graph_of(
            [first, layer("other", "z", 16, 2, 3, seed=9, **STRIDED), add("sum", "first", "other")], image | {"z": (2, 33, 47)}
        ),
        "through a pair": graph_of([first, layer("wide", "first", 16, 16, 3, seed=11, groups=16), layer("then", "wide", 8, 16)], image),
    }


def whole(shape: Sequence[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 3, tuple(shape), endpoint=True).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", networks())
def test_answers_are_exact_for_every_batch(name: str, threads: int) -> None:
    graph = networks()[name]
    engine = engine_of(graph, threads=threads)
    for batch in (1, 2, 3, 17):
        arrays = [whole((batch, *spec.shape[1:]), seed) for seed, spec in enumerate(graph.inputs)]
        want = reference.run(graph, *arrays)
        for _ in range(2):  # in fresh memory and in used
            got = engine(*arrays)
            for one, expected in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
                assert np.array_equal(one, expected)


def test_inputs_need_no_alignment_and_stay_as_they_are() -> None:
    graph = networks()["one copies"]
    engine = engine_of(graph)
    memory = np.full(2 * 3 * 33 * 47 + 3, np.nan, np.float32)
    x = memory[1:-2].reshape(2, 3, 33, 47)
    x[:] = whole(x.shape, 1)
    before = x.copy()
    (want,) = reference.run(graph, x)
    assert np.array_equal(engine(x), want)
    assert np.array_equal(x, before)
    apart = np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    assert np.array_equal(engine(apart), want)


def test_a_profile_reads_them_too() -> None:
    engine = engine_of(networks()["one"])
    x = whole((1, 3, 33, 47), 2)
    answer = engine(x)
    assert len(engine.profile(x, repeat=2)) >= 2
    assert np.array_equal(engine(x), answer)
