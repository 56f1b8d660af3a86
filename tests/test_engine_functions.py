"""sqrt, abs, exp, log and pow number by number, maximum and minimum, sums and largest numbers over axes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from engines import EPS, ISAS, check, engine_of, graph_of
from nodes import FakeNode
from nodes import node as make

EVERYWHERE = [0.0, -0.0, 1e-45, 1e-40, 1.1754944e-38, 1e-30, 1e-3, 0.49, 0.5, 0.7071, 0.70711, 0.99999994, 1.0, 1.0000001, 1.41421, 1.41422]
EVERYWHERE += [1.9999999, 2.0, 3.0, 10.0, 1e4, 1e30, 3.4028235e38, np.inf, np.nan]
FUNCTIONS = {"sqrt": [0.0], "abs": [0.0], "exp": [0.0], "log": [0.0], "pow": [1 / 3, 2.5, -0.7, 3.0]}
WANT = {"sqrt": np.sqrt, "abs": np.abs, "exp": np.exp, "log": np.log}


def run(kind: str, alpha: float, x: np.ndarray, isa: str) -> np.ndarray:
    graph = graph_of([make("activation", kind=kind, alpha=alpha, beta=0.0)], {"x": (1, 1, x.size)})
    return engine_of(graph, isa=isa)(x.reshape(1, 1, 1, -1)).ravel()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_are_accurate_everywhere(kind: str, isa: str) -> None:
    """To 4 roundings of the result, 2 of what it is the exponential of; exact at 0 and infinity, NaN of NaN and outside the domain."""
    rng = np.random.default_rng(0)
    x = np.concatenate([EVERYWHERE, -np.array(EVERYWHERE), np.exp(rng.uniform(-80, 80, 500)), rng.uniform(-90, 90, 500)]).astype(np.float32)
    for alpha in FUNCTIONS[kind]:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            want = np.where(wide < 0, np.nan, np.abs(wide) ** alpha) if kind == "pow" else WANT[kind](wide)
            exponent = np.abs(alpha * np.log(np.abs(wide))) if kind == "pow" else np.abs(wide) if kind == "exp" else np.zeros(x.size)
            got = run(kind, alpha, x, isa).astype(np.float64)
            assert np.array_equal(np.isnan(got), np.isnan(want))
            far = np.abs(want) > 3.4028235e38
            assert np.array_equal(got[far], np.sign(want[far]) * np.inf)
            normal = np.isfinite(want) & ~far & ((np.abs(want) > 1.2e-38) | (want == 0))
            bound = np.where(want == 0, 0, EPS * (4 + 2 * exponent) * np.abs(want))
            assert (np.abs(got - want) <= bound)[normal].all()


def test_an_exponent_of_0_is_refused() -> None:
    with pytest.raises(Exception, match="an exponent alpha other than 0"):
        run("pow", 0.0, np.ones(3, np.float32), "scalar")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["maximum", "minimum"])
@pytest.mark.parametrize("other", [(4, 7, 9), (4, 1, 1), (1, 7, 9), (1, 1, 1), (4, 1, 9)], ids=str)
def test_the_larger_and_the_smaller(op: str, other: tuple[int, ...], isa: str) -> None:
    """NaN where either is."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(3, *size)).astype(np.float32) for size in ((4, 7, 9), other))
    a[0, 1, 2, 3], b[2, 0, 0, 0] = np.nan, np.nan
    for names in (("x", "z"), ("z", "x")):
        got = engine_of(graph_of([FakeNode("y", op, names)], {"x": (4, 7, 9), "z": other}), isa=isa)(a, b)
        np.testing.assert_array_equal(got, getattr(np, op)(a, b))


AXES = [list(axes) for count in (1, 2, 3) for axes in combinations((1, 2, 3), count)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_sums_and_largest_numbers(axes: list[int], isa: str) -> None:
    for shape in ((1, 1, 1), (5, 1, 7), (3, 6, 17), (21, 9, 1)):
        x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
        for op in ("sum", "amax"):
            for keep in (0, 1) if axes == [2, 3] else (1,):
                graph = graph_of([make(op, axes=axes, keep=keep)], {"x": shape})
                check(graph, [x], terms=64, gain=float(np.prod(shape)), isa=isa)
                assert engine_of(graph, isa=isa)(x).shape == (x.sum if op == "sum" else x.max)(tuple(axes), keepdims=bool(keep)).shape


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_nan_is_the_largest(axes: list[int], isa: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 17)).astype(np.float32)
    x[1, 2, 3, 4] = np.nan
    got = engine_of(graph_of([make("amax", axes=axes, keep=1)], {"x": (3, 6, 17)}), isa=isa)(x)
    np.testing.assert_array_equal(got, x.max(tuple(axes), keepdims=True))
