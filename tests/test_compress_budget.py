"""The two-bisection rule: optimal against every subset, within both budgets, tight, and clear where nothing can be done."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cosparse.compress import Budget
from cosparse.compress.select import Candidates, least_cost, select, select_share
from cosparse.errors import Error


def layer(
    energy: np.ndarray, pixels: float, *, size: list[float] | None = None, basis: float = 0.0, taps: int = 1, name: str = "a"
) -> Candidates:
    return Candidates(name, energy, np.array(size or [2.0] * energy.shape[0]), pixels, basis, taps)


def energy_kept(layers: list[Candidates], keep: tuple[np.ndarray, ...]) -> float:
    return float(sum((one.energy * kept).sum() for one, kept in zip(layers, keep, strict=True)))


def cost(one: Candidates, keep: np.ndarray) -> tuple[float, float]:
    """Parameters and multiply-adds, counted the long way."""
    params = float((keep * one.size[:, None]).sum())
    used = {column // one.taps for _, column in np.argwhere(keep)}
    return params, params * one.pixels + len(used) * one.basis


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_no_subset_of_that_cost_holds_more_energy(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    layers = [
        layer(rng.exponential(size=(2, 2)), 16.0),
        layer(rng.exponential(size=(2, 2)), 4.0, size=[2.0, 1.0]),
        layer(rng.exponential(size=(1, 2)), 1.0),
    ]
    total_params = sum(float(one.size.sum()) * one.energy.shape[1] for one in layers)
    total_flops = sum(float(one.size.sum()) * one.energy.shape[1] * one.pixels for one in layers)
    chosen = select(layers, (1 - share) * total_params * 1.2, (1 - share) * total_flops, floor=0.0, fill=False)
    shapes = [one.energy.shape for one in layers]
    ends = np.cumsum([0] + [a * b for a, b in shapes])
    best = 0.0
    for bits in product([False, True], repeat=int(ends[-1])):
        flat = np.array(bits)
        keep = tuple(flat[ends[i] : ends[i + 1]].reshape(shape) for i, shape in enumerate(shapes))
        costs = [cost(one, kept) for one, kept in zip(layers, keep, strict=True)]
        if sum(p for p, _ in costs) <= chosen.params and sum(f for _, f in costs) <= chosen.flops:
            best = max(best, energy_kept(layers, keep))
    assert energy_kept(layers, chosen.keep) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_rule_explains_every_block(seed: int) -> None:
    """Kept where energy >= level size, dropped elsewhere; the levels lie on one line over the layers' pixels."""
    rng = np.random.default_rng(seed)
    layers = [layer(rng.exponential(size=(8, 90)), p, basis=3.0 * p, taps=9) for p in (64.0, 16.0, 4.0)]
    chosen = select(layers, 2000.0, 50000.0, floor=0.0, fill=False)
    for one, kept, level in zip(layers, chosen.keep, chosen.levels, strict=True):
        assert np.array_equal(kept, one.energy >= level * one.size[:, None])
    slope = (chosen.levels[0] - chosen.levels[2]) / 60
    assert slope >= 0
    assert chosen.levels[1] == pytest.approx(chosen.levels[2] + 12 * slope, rel=1e-9)


@pytest.mark.parametrize(("density", "kept"), [(0.2, (144, 5)), (1.0, (720, 24)), (1e-6, (1, 1))])
def test_a_density_keeps_the_best_blocks_of_every_layer(density: float, kept: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    layers = [layer(rng.exponential(size=(8, 90)), 64.0), layer(rng.exponential(size=(4, 6)), 1.0)]
    chosen = select_share(layers, density)
    assert tuple(int(keep.sum()) for keep in chosen.keep) == kept
    for one, keep, level in zip(layers, chosen.keep, chosen.levels, strict=True):
        assert np.array_equal(keep, one.energy >= level * one.size[:, None])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("params", "flops"), [(np.inf, 30000.0), (1500.0, np.inf), (1500.0, 30000.0), (3000.0, 12000.0)])
def test_budgets_hold_and_one_is_used_up(seed: int, params: float, flops: float) -> None:
    rng = np.random.default_rng(seed)
    layers = [layer(rng.exponential(size=(8, 90)), p, basis=2.0 * p, taps=9) for p in (16.0, 8.0, 4.0)]
    chosen = select(layers, params, flops)
    costs = [cost(one, kept) for one, kept in zip(layers, chosen.keep, strict=True)]
    assert chosen.params == sum(p for p, _ in costs) <= params
    assert chosen.flops == pytest.approx(sum(f for _, f in costs), rel=1e-12)
    assert chosen.flops <= flops
    # Nothing more fits: the cheapest block that could be added costs 2 parameters and 2 x 4 multiply-adds, at most one basis step more.
    assert params - chosen.params < 2 or flops - chosen.flops < 2 * 4 + 2 * 4


def test_ties_fill_the_budget_the_same_way_for_a_seed() -> None:
    layers = [layer(np.ones((10, 30)), 1.0), layer(np.ones((10, 30)), 1.0)]
    first, again, other = (select(layers, 500.0, seed=seed) for seed in (0, 0, 1))
    assert first.params == other.params == 500
    assert all(np.array_equal(a, b) for a, b in zip(first.keep, again.keep, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.keep, other.keep, strict=True))


def test_every_layer_keeps_its_floor() -> None:
    rng = np.random.default_rng(0)
    layers = [layer(rng.exponential(size=(10, 100)), 1.0), layer(np.zeros((10, 100)), 1.0)]
    chosen = select(layers, 400.0)
    assert chosen.keep[1].sum() == 20
    assert chosen.params == 400


def test_all_zero_network() -> None:
    chosen = select([layer(np.zeros((4, 25)), 3.0)], 100.0)
    assert chosen.params == 100


def test_impossible_budget_names_both_sides() -> None:
    layers = [layer(np.ones((10, 100)), 7.0)]
    assert least_cost(layers) == (40.0, 280.0, 0.0)
    with pytest.raises(Error, match=r"at most 39 coefficients and 1,000 multiply-adds, got 40 coefficients and 280 multiply-adds"):
        select(layers, 39.0, 1000.0)


@pytest.mark.parametrize(("field", "value"), [("flops", 1.0), ("flops", -0.1), ("params", 60), ("params", float("nan"))])
def test_shares_are_checked(field: str, value: float) -> None:
    with pytest.raises(Error, match=rf"Budget\.{field}: expected a share in \[0, 1\)"):
        Budget(**{field: value})


def test_empty_budget_is_refused() -> None:
    with pytest.raises(Error, match="expected flops, params, latency or density, got none"):
        Budget()


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_densities_are_checked(density: float) -> None:
    with pytest.raises(Error, match=r"Budget\.density: expected a share in \(0, 1\]"):
        Budget(density=density)


def test_density_stands_alone() -> None:
    with pytest.raises(Error, match="density alone"):
        Budget(flops=0.5, density=0.2)


def test_latency_is_a_latency() -> None:
    with pytest.raises(Error, match=r"Budget\.latency: expected Latency\(table=\.\.\., ms=\.\.\.\) or .*, got 3\.0"):
        Budget(flops=0.5, latency=3.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_floors_are_checked(floor: float) -> None:
    with pytest.raises(Error, match=r"Budget\.floor: expected a share in \[0, 1\)"):
        Budget(flops=0.5, floor=floor)


def test_settings_are_what_was_given() -> None:
    assert Budget(flops=0.5, params=0.4).settings() == {"flops": 0.5, "params": 0.4}
    assert Budget(density=0.2, floor=0.0).settings() == {"density": 0.2, "floor": 0.0}
