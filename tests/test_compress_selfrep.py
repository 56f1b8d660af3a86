"""Self-representation: two solvers of one problem agree, planted filters come out on top, twins are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from cosparse.compress import selfrep
from cosparse.errors import Error

SHAPES = [(24, 40), (64, 30), (17, 17), (1, 5), (5, 1)]  # n filters of d weights


def gram(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(d, n))
    return x.T @ x


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_irls_and_fista_agree(n: int, d: int, share: float) -> None:
    g = gram(n, d)
    lam = share * selfrep.lambda_max(g)
    fast, plain = selfrep.irls(g, lam), selfrep.fista(g, lam)
    assert fast.converged
    assert plain.converged
    assert fast.objective == pytest.approx(plain.objective, rel=1e-6)
    # At equal objective a row that hardly pays may still be a little longer or shorter.
    np.testing.assert_allclose(fast.importance, plain.importance, atol=5e-3 * plain.importance.max(initial=1.0))


@pytest.mark.parametrize("share", [1e-3, 0.1])
def test_twins_zeros_and_a_reordered_choice_agree_with_fista(share: float) -> None:
    x = np.random.default_rng(7).normal(size=(12, 20))
    x = np.concatenate([x, 2 * x[:, :3], x[:, 5:6], np.zeros((12, 2))], axis=1)
    g, everything = x.T @ x, np.random.default_rng(8).permutation(26)
    for used in (None, everything, everything[:11]):
        lam = share * selfrep.lambda_max(g, used)
        fast, plain = selfrep.irls(g, lam, used, tolerance=1e-9), selfrep.fista(g, lam, used)
        assert fast.converged
        assert fast.objective == pytest.approx(plain.objective, rel=1e-6)
        assert fast.objective == pytest.approx(selfrep.objective(g, fast.z, lam, used), rel=1e-12)
        assert fast.importance[np.isin(fast.used, [24, 25])].max(initial=0.0) == 0


def test_ridge_is_the_solution_of_its_system() -> None:
    """With rows at norms far apart, in any order."""
    g, alive, lam = gram(15, 9), np.array([11, 2, 7, 14, 0, 5]), 0.7
    for chosen in (alive, np.arange(15), np.arange(15)[::-1]):
        norms = 10 ** np.random.default_rng(9).uniform(-6, 1, len(chosen))
        got, fit = selfrep._ridge(g, lam, chosen, norms)
        wanted = np.linalg.solve(g[np.ix_(chosen, chosen)] + lam * np.diag(1 / (2 * norms)), g[chosen])
        np.testing.assert_allclose(got / norms[:, None], wanted / norms[:, None], rtol=1e-7, atol=1e-7)
        assert fit == pytest.approx(selfrep.objective(g, got, 0.0, chosen), rel=1e-9)


@pytest.mark.parametrize("n", [1, selfrep.BLOCK, selfrep.BLOCK + 1])
def test_a_sweep_minimises_over_one_row_after_the_other(n: int) -> None:
    """In blocks with running changes as by the definition: the whole residual for every row."""
    g, lam = gram(n, 40), 30.0
    start = np.random.default_rng(n).normal(size=(n, n)) / n
    rows, plain = start.copy(), start.copy()
    for i in range(n):
        left = g[i] - g[i] @ plain + g[i, i] * plain[i]
        plain[i] = max(0.0, 1 - lam / (2 * np.linalg.norm(left))) / g[i, i] * left
    fall = selfrep._sweep(g, g, rows, lam)
    np.testing.assert_allclose(rows, plain, atol=1e-12)
    assert fall == pytest.approx(selfrep.objective(g, start, lam) - selfrep.objective(g, rows, lam), rel=1e-9)


@pytest.mark.parametrize("taken", [3, 25])
def test_a_start_leads_to_the_same_optimum(taken: int) -> None:
    """Both where only rows at 0 went and where others have to take over; also from rows that are all 0."""
    g = gram(40, 25)
    lam = 0.2 * selfrep.lambda_max(g)
    whole = selfrep.irls(g, lam)
    left = np.sort(np.argsort(whole.importance, kind="stable")[taken:])
    cold = selfrep.irls(g, lam, left)
    for start in (whole.z[left], np.zeros((len(left), 40))):
        warm = selfrep.irls(g, lam, left, start=start)
        assert warm.converged
        assert warm.objective == pytest.approx(cold.objective, rel=1e-6)
        np.testing.assert_allclose(warm.importance, cold.importance, atol=5e-3 * cold.importance.max())


def test_objective_is_what_the_matrices_say() -> None:
    x = np.random.default_rng(1).normal(size=(11, 7))
    z = np.random.default_rng(2).normal(size=(3, 7))
    used = np.array([5, 0, 2])
    wanted = np.square(x - x[:, used] @ z).sum() + 0.7 * np.linalg.norm(z, axis=1).sum()
    assert selfrep.objective(x.T @ x, z, 0.7, used) == pytest.approx(wanted, rel=1e-12)


def test_optimality_condition_holds() -> None:
    """At the optimum the residual's row is lambda Z_i / ||Z_i|| where the row is used, and no longer than lambda where it is not."""
    g = gram(40, 15)
    lam = 0.3 * selfrep.lambda_max(g)
    got = selfrep.irls(g, lam, tolerance=1e-11)
    pull, norms = 2 * (g - g @ got.z), got.importance
    strong = norms > 0.05 * norms.max()
    assert 0 < strong.sum() < 40
    np.testing.assert_allclose(pull[strong], lam * got.z[strong] / norms[strong, None], atol=2e-3 * lam)
    assert np.linalg.norm(pull[norms == 0], axis=1).max(initial=0.0) <= lam * (1 + 1e-4)


def test_nothing_is_used_above_lambda_max() -> None:
    g = gram(12, 20)
    assert selfrep.irls(g, 1.05 * selfrep.lambda_max(g)).importance.max() == 0
    assert selfrep.fista(g, 1.05 * selfrep.lambda_max(g)).importance.max() == 0
    assert selfrep.irls(g, 0.9 * selfrep.lambda_max(g)).importance.max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_planted_filters_come_out_on_top(seed: int) -> None:
    """Six filters of which 34 others are mixtures, with a little noise."""
    rng = np.random.default_rng(seed)
    sources = rng.normal(size=(100, 6))
    mixed = sources @ (rng.uniform(-1, 1, size=(6, 34)) / np.sqrt(6)) + 0.01 * rng.normal(size=(100, 34))
    places = rng.permutation(40)
    x = np.concatenate([sources, mixed], axis=1)[:, np.argsort(places)]
    planted = set(places[:6].tolist())
    g = x.T @ x
    top = np.argsort(-selfrep.irls(g, 0.1 * selfrep.lambda_max(g)).importance)[:6]
    assert set(top.tolist()) == planted
    assert set(selfrep.rank(g)[-6:].tolist()) == planted


def test_rank_is_what_asking_anew_each_time_gives() -> None:
    g, left, order = gram(32, 20), np.arange(32), []
    while len(left) > 1:
        importance = selfrep.irls(g, 0.1 * selfrep.lambda_max(g, left), left).importance
        going = left[np.lexsort((np.diag(g)[left], importance))[:4]][: len(left) - 1]
        order.append(set(going.tolist()))
        left = np.setdiff1d(left, going)
    got = selfrep.rank(g).tolist()
    assert [set(got[i : i + 4]) for i in range(0, 28, 4)] == order[:7]
    assert got[-1] == left[0]


def test_one_of_two_twins_goes_and_the_other_stays() -> None:
    """Alike, both look weak; asked again after one is gone, the other carries both."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 12))
    x = np.concatenate([x, 1.4 * x[:, :1]], axis=1)
    order = selfrep.rank(x.T @ x, batch=1e-9)
    assert order[0] in (0, 12)
    assert {0, 12} - {int(order[0])} != {int(order[1])}


def test_twins_do_not_go_in_one_batch() -> None:
    """Sixteen pairs, eight filters a batch: what is left in the middle holds one of each pair."""
    x = np.random.default_rng(6).normal(size=(60, 16))
    order = selfrep.rank((both := np.concatenate([x, x], axis=1)).T @ both, batch=0.25)
    assert {int(filter_) % 16 for filter_ in order[-16:]} == set(range(16))


def test_rank_is_an_order_of_all_filters_and_puts_zeros_first() -> None:
    x = np.random.default_rng(5).normal(size=(9, 13))
    x[:, [3, 8]] = 0
    order = selfrep.rank(x.T @ x, batch=0.3)
    assert sorted(order.tolist()) == list(range(13))
    assert set(order[:2].tolist()) == {3, 8}
    assert selfrep.rank(np.zeros((4, 4))).tolist() == [0, 1, 2, 3]


def test_only_the_filters_given_write_the_others() -> None:
    g = gram(20, 30)
    used = np.array([14, 3, 9])
    lam = 0.05 * selfrep.lambda_max(g, used)
    fast, plain = selfrep.irls(g, lam, used), selfrep.fista(g, lam, used)
    assert fast.z.shape == (3, 20)
    np.testing.assert_allclose(fast.z, plain.z, atol=1e-4 * np.abs(plain.z).max())


def test_admm_keeps_the_diagonal_at_zero_and_is_optimal() -> None:
    """The subgradient of the l1 variant, entry by entry."""
    g = gram(18, 12)
    lam = 0.1 * np.abs(g - np.diag(np.diag(g))).max()
    got = selfrep.admm(g, lam, tolerance=1e-10, steps=20000)
    assert got.converged
    assert not np.diag(got.z).any()
    pull = g - g @ got.z
    used = got.z != 0
    off = ~np.eye(18, dtype=bool)
    assert 0 < used.sum() < off.sum()
    np.testing.assert_allclose(pull[used], lam * np.sign(got.z[used]), atol=1e-6 * lam + 1e-7)
    assert np.abs(pull[off & ~used]).max() <= lam * (1 + 1e-6)


def test_scales() -> None:
    w = np.random.default_rng(6).normal(size=(5, 3, 2, 2)).astype(np.float32)
    w[2] = 0
    assert selfrep.filters(w).shape == (12, 5)
    np.testing.assert_allclose(np.linalg.norm(selfrep.filters(w, "unit"), axis=0), [1, 1, 0, 1, 1])
    gamma, variance = np.arange(1.0, 6), np.full(5, 4.0)
    np.testing.assert_allclose(selfrep.filters(w, "bn", gamma, variance), selfrep.filters(w) * gamma / 2, rtol=1e-6)
    with pytest.raises(Error, match=r"scale: expected one of raw, unit, bn, got 'l2'"):
        selfrep.filters(w, "l2")
    with pytest.raises(Error, match=r"scale 'bn': expected gamma and variance of 5 filters"):
        selfrep.filters(w, "bn", gamma[:3], variance)
    w[0, 0, 0, 0] = np.nan
    with pytest.raises(Error, match=r"weight: expected finite values"):
        selfrep.filters(w)


def test_bad_input_is_refused() -> None:
    with pytest.raises(Error, match="gram: expected a finite square matrix"):
        selfrep.irls(np.zeros((3, 4)), 1.0)
    with pytest.raises(Error, match="gram: expected a positive semidefinite matrix, got one that is indefinite at filter 0"):
        selfrep.irls(-np.eye(3), 0.1)
    with pytest.raises(Error, match="lambda: expected a positive number, got 0"):
        selfrep.fista(gram(3, 3), 0.0)
    with pytest.raises(Error, match="rank: expected share in"):
        selfrep.rank(gram(3, 3), share=1.0)
