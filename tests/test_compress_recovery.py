"""The solvers of step 1: planted problems, agreement with each other and with scikit-learn, the degenerate cases, what they refuse."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import MultiTaskLasso, orthogonal_mp

from cosparse.compress.measurement import norm_squared
from cosparse.compress.recovery import CONVEX, GREEDY, Problem, Recovered, admm, alone, fista, hard, iht, ista, omp, soft
from cosparse.compress.recovery.problem import back, measure
from cosparse.errors import Error

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of products of small matrices: waking a second thread takes longer than each of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(
    segments: int = 2, signals: int = 3, channels: int = 4, n: int = 40, m: int = 24, k: int = 3, seed: int = 0, dtype=torch.float64
):
    """(problem, s): s has k columns a signal, their entries of size 1 to 2."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn((segments, m, n), generator=generator, dtype=torch.float64) / m**0.5
    place = torch.rand((segments, signals, 1, n), generator=generator).argsort(-1) < k
    size = 1 + torch.rand((segments, signals, channels, n), generator=generator, dtype=torch.float64)
    sign = torch.randint(0, 2, size.shape, generator=generator) * 2 - 1
    matrix, s = matrix.to(dtype), (place * size * sign).to(dtype)
    return Problem(matrix, measure(matrix, s), norm_squared(matrix)), s


def columns(s: torch.Tensor) -> torch.Tensor:
    """Which columns are in use, bool [Q, J, n]."""
    return (s != 0).any(2)


def solve(method: str, problem: Problem, threshold: float, k: int, iterations: int = 400) -> Recovered:
    if method == "omp":
        return omp(problem, k)
    if method == "iht":
        return iht(problem, k, iterations=iterations)
    return CONVEX[method](problem, threshold, iterations=iterations)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", [*CONVEX, *GREEDY])
def test_the_planted_support_is_found(method: str, channels: int) -> None:
    problem, s = planted(channels=channels, n=48, m=40, k=3)
    found = solve(method, problem, threshold=0.05, k=3)
    assert torch.equal(columns(found.s), columns(s)) or (method in CONVEX and _largest_agree(found.s, s, 3))
    if method in GREEDY:
        # Least squares on the right columns: exact but for rounding, spread by the condition of a few nearly orthogonal columns.
        assert (found.s - s).abs().max() <= 64 * EPS * 40 * float(s.abs().max()) if method == "omp" else 1e-6
        assert float(found.residual.max()) <= 1e-6


def _largest_agree(found: torch.Tensor, s: torch.Tensor, k: int) -> bool:
    """The penalised optimum may use a few columns more, at a size near 0: the k largest must be the planted ones."""
    return torch.equal(columns(hard(found, torch.full(found.shape[:2], k))), columns(s))


@pytest.mark.parametrize(("n", "m"), [(40, 24), (12, 30)])
@pytest.mark.parametrize("channels", [1, 4])
def test_convex_solvers_agree(channels: int, n: int, m: int) -> None:
    problem, _ = planted(channels=channels, n=n, m=m, k=5, seed=1)
    objectives = [solve(method, problem, 0.1, 0, 6000 if method == "ista" else 600).objective for method in CONVEX]
    for other in objectives[1:]:
        assert ((other - objectives[0]).abs() <= 1e-6 * objectives[0]).all()


@pytest.mark.parametrize("channels", [1, 4])
def test_the_optimum_is_that_of_scikit_learn(channels: int) -> None:
    problem, _ = planted(segments=1, signals=1, channels=channels, n=30, m=20, k=6, seed=2)
    threshold, m = 0.2, 20
    model = MultiTaskLasso(alpha=threshold / m, fit_intercept=False, tol=1e-12, max_iter=100000)
    model.fit(problem.matrix[0].numpy(), problem.measured[0, 0].numpy().T)
    wanted = torch.from_numpy(np.asarray(model.coef_))[None, None]  # [1, 1, r, n]
    found = fista(problem, threshold, iterations=1500).s
    assert (found - wanted).abs().max() <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("channels", [1, 3])
def test_pursuit_is_that_of_scikit_learn(channels: int) -> None:
    """Noisy measurements: no exact solution to fall into. scikit-learn knows no simultaneous form: channels are equal up to a factor."""
    problem, _ = planted(segments=1, signals=4, channels=1, n=50, m=25, k=4, seed=3)
    noisy = problem.measured + 0.05 * torch.randn(problem.measured.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    factors = torch.arange(1, channels + 1, dtype=torch.float64)[:, None]
    unit = problem.matrix / problem.matrix.norm(dim=1, keepdim=True)
    found = omp(Problem(unit, noisy * factors, norm_squared(unit)), torch.tensor([[3, 4, 0, 6]])).s
    for signal, k in enumerate((3, 4, 0, 6)):
        wanted = orthogonal_mp(unit[0].numpy(), noisy[0, signal, 0].numpy(), n_nonzero_coefs=k) if k else np.zeros(50)
        assert int(columns(found)[0, signal].sum()) == k
        assert (found[0, signal] - factors * torch.from_numpy(wanted)).abs().max() <= 1e-12


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("method", ["omp", "iht"])
def test_greedy_methods_respect_the_sparsity(method: str, k: int) -> None:
    problem, _ = planted(k=5, seed=5)
    used = columns(solve(method, problem, 0, k, 50).s).sum(-1)
    assert (used <= k).all()
    assert used.max() == min(k, 5) if method == "omp" else used.max() == k


def test_iht_never_gets_worse() -> None:
    problem, _ = planted(k=9, m=15, seed=6)
    errors = [iht(problem, 4, iterations=n).objective for n in (1, 2, 3, 5, 8, 13, 40)]
    assert all((later <= earlier * (1 + 64 * EPS)).all() for earlier, later in pairwise(errors))


def test_ista_never_gets_worse() -> None:
    problem, _ = planted(k=9, m=15, seed=6)
    objectives = [ista(problem, 0.1, iterations=n).objective for n in (1, 2, 3, 5, 8, 13, 40)]
    assert all((later <= earlier * (1 + 64 * EPS)).all() for earlier, later in pairwise(objectives))


@pytest.mark.parametrize("explicit", [True, False])
def test_with_the_identity_one_step_of_ista_is_the_soft_threshold(explicit: bool) -> None:
    w = torch.randn((1, 3, 1, 9), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    problem = Problem(torch.eye(9, dtype=torch.float64)[None] if explicit else None, w)
    wanted = w.sign() * (w.abs() - 0.3).clamp_min(0)
    assert torch.equal(ista(problem, 0.3, iterations=1).s, wanted)
    assert torch.equal(fista(problem, 0.3, iterations=1).s, wanted)


@pytest.mark.parametrize("explicit", [True, False])
def test_with_the_identity_all_agree(explicit: bool) -> None:
    w = torch.randn((1, 3, 4, 9), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    problem = Problem(torch.eye(9, dtype=torch.float64)[None] if explicit else None, w)
    norm = w.norm(dim=2, keepdim=True)
    wanted = torch.where(norm > 1.5, w * (1 - 1.5 / norm), 0)
    for method in CONVEX:
        assert (CONVEX[method](problem, 1.5, iterations=300).s - wanted).abs().max() <= 64 * EPS, method
    k = torch.tensor([[0, 4, 9]])
    for found in (iht(problem, k, iterations=2).s, omp(problem, k).s):
        assert (found - hard(w, k)).abs().max() <= 64 * EPS
        assert columns(found).sum(-1).tolist() == [[0, 4, 9]]


def test_channels_alone_are_the_plain_form() -> None:
    """r = 1 by `alone` against the textbook's l1 iteration on every channel."""
    problem, _ = planted(channels=4, seed=8)
    single = alone(problem)
    found = ista(single, 0.1, iterations=25)
    s, step = torch.zeros(2, 12, 40, dtype=torch.float64), 1 / problem.norm_squared
    for _ in range(25):
        z = s + step * (problem.measured.flatten(1, 2) - s @ problem.matrix.mT) @ problem.matrix
        s = z.sign() * (z.abs() - step * 0.1).clamp_min(0)
    assert (found.s[:, :, 0] - s).abs().max() <= 25 * 40 * EPS * float(s.abs().max())
    group = ista(Problem(problem.matrix, single.measured.repeat(1, 1, 4, 1), problem.norm_squared), 0.2, iterations=25)
    assert (group.s - found.s).abs().max() <= 25 * 40 * EPS * float(s.abs().max()) * 4  # 4 equal channels: norms twice as large


def test_thresholds_and_sparsities_are_those_of_each_signal() -> None:
    problem, _ = planted(signals=3, seed=9)
    t = torch.tensor([0.05, 0.2, 0.8], dtype=torch.float64)[:, None, None]
    together = ista(problem, t, iterations=30).s
    for signal in range(3):
        one = Problem(problem.matrix, problem.measured[:, signal : signal + 1], problem.norm_squared)
        assert (together[:, signal : signal + 1] - ista(one, float(t[signal]), iterations=30).s).abs().max() <= 30 * 40 * EPS * 4
    k = torch.tensor([[1, 2, 3], [3, 0, 1]])
    assert torch.equal(columns(iht(problem, k, iterations=5).s).sum(-1), k)
    assert torch.equal(columns(omp(problem, k).s).sum(-1), k)


def test_pursuit_in_several_passes_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = planted(signals=5, k=5, seed=10)
    whole = omp(problem, 4).s
    monkeypatch.setattr(sys.modules["cosparse.compress.recovery.omp"], "MOST_NUMBERS", 1)
    assert (omp(problem, 4).s - whole).abs().max() <= 64 * EPS * 24


def test_pursuit_does_not_mind_the_length_of_columns() -> None:
    problem, _ = planted(k=5, seed=18)
    length = 0.1 + torch.arange(40, dtype=torch.float64) % 7
    scaled = Problem(problem.matrix * length, problem.measured, norm_squared(problem.matrix * length))
    wanted = omp(problem, 4).s
    # 71: the longest column over the shortest, by which rounding may grow.
    assert (omp(scaled, 4).s * length - wanted).abs().max() <= 71 * 64 * EPS * 24 * float(wanted.abs().max())


def test_momentum_gets_there_sooner() -> None:
    problem, _ = planted(k=8, seed=19)
    best = fista(problem, 0.05, iterations=1500).objective.sum()
    slow, fast = (float(solver(problem, 0.05, iterations=80).objective.sum() - best) for solver in (ista, fista))
    assert fast < 0.01 * slow


def test_pursuit_stops_where_nothing_is_left() -> None:
    problem, s = planted(k=2, seed=11)
    assert torch.equal(columns(omp(problem, 20).s), columns(s))
    assert omp(problem, 20).iterations <= 3
    assert omp(problem, 20, tolerance=1.0).iterations == 0
    blank = Problem(problem.matrix, torch.zeros_like(problem.measured), problem.norm_squared)
    for method in (*CONVEX, *GREEDY):
        found = solve(method, blank, 0.1, 3, 3)
        assert not found.s.any(), method
        assert torch.isfinite(found.s).all(), method


def test_columns_that_are_not_measured_stay_empty() -> None:
    problem, _ = planted(seed=12)
    matrix = problem.matrix.clone()
    matrix[1, :, 30:] = 0
    holed = Problem(matrix, problem.measured, norm_squared(matrix))
    for method in (*CONVEX, *GREEDY):
        found = solve(method, holed, 0.1, 20, 20).s
        assert torch.isfinite(found).all(), method
        assert not found[1, :, :, 30:].any(), method


@pytest.mark.parametrize("method", [*CONVEX, "iht"])
def test_a_warm_start_at_the_answer_stays_there(method: str) -> None:
    problem, _ = planted(m=30, seed=13)
    solver = CONVEX.get(method, iht)
    level = 0.1 if method in CONVEX else 3
    answer = solver(problem, level, iterations=1500).s
    again = solver(problem, level, answer, iterations=100, tolerance=1e-7)
    assert again.iterations <= 2
    assert (again.s - answer).abs().max() <= 1e-6


@pytest.mark.parametrize("method", [*CONVEX, *GREEDY])
def test_single_precision_is_double_precision_rounded(method: str) -> None:
    wide, _ = planted(m=30, seed=14)
    narrow, _ = planted(m=30, seed=14, dtype=torch.float32)
    a, b = solve(method, wide, 0.2, 3, 300), solve(method, narrow, 0.2, 3, 300)
    assert b.s.dtype == torch.float32
    # An optimum moves by the rounding of A^T A s, 40 terms, times the condition of the columns in use (well below 10 here).
    assert (a.s - b.s.double()).abs().max() <= 10 * 40 * torch.finfo(torch.float32).eps * float(a.s.abs().max())
    assert torch.equal(solve(method, narrow, 0.2, 3, 300).s, b.s)


@pytest.mark.parametrize("method", list(CONVEX))
def test_what_is_reported_is_what_was_found(method: str) -> None:
    problem, _ = planted(seed=15)
    found = CONVEX[method](problem, 0.3, iterations=7)
    error = problem.measured - measure(problem.matrix, found.s)
    assert found.iterations == 7
    assert torch.allclose(found.residual, error.flatten(2).norm(dim=2), rtol=1e-12)
    penalty = 0.3 * found.s.norm(dim=2).sum(-1)
    assert torch.allclose(found.objective, error.square().sum((2, 3)) / 2 + penalty, rtol=1e-12)


def test_back_is_the_transpose_of_measure() -> None:
    problem, s = planted(seed=16)
    left = (measure(problem.matrix, s) * problem.measured).sum()
    right = (s * back(problem.matrix, problem.measured)).sum()
    assert abs(float(left - right)) <= 4 * EPS * s.numel() * float(left.abs())


def test_awkward_sizes() -> None:
    for n, m, k in ((1, 1, 1), (7, 1, 1), (2, 5, 1)):
        problem, _ = planted(segments=1, signals=1, channels=1, n=n, m=m, k=k, seed=17)
        for method in (*CONVEX, *GREEDY):
            found = solve(method, problem, 0.01, 1, 50)
            assert found.s.shape == (1, 1, 1, n)
            assert torch.isfinite(found.s).all()


def test_equal_columns_are_kept_in_order() -> None:
    assert hard(torch.ones(1, 1, 5), torch.tensor([2])).tolist() == [[[1, 1, 0, 0, 0]]]
    assert not soft(torch.zeros(1, 3, 2), torch.tensor(0.0)).any()


BAD = Problem(torch.zeros(1, 2, 3), torch.zeros(1, 1, 1, 2))
REFUSED = {
    "flat measurements": (lambda: Problem(None, torch.zeros(3)), r"measurements: expected \[segments, signals, channels, m\], got \[3\]"),
    "other matrix": (
        lambda: Problem(torch.zeros(1, 4, 3), torch.zeros(1, 1, 1, 2)),
        r"measurement matrices: expected \[1, 2, n\], as the measurements are \[1, 1, 1, 2\], got \[1, 4, 3\]",
    ),
    "norm": (lambda: Problem(None, torch.zeros(1, 1, 1, 2), 0.0), r"norm_squared: expected a positive number, got 0\.0"),
    "start": (
        lambda: ista(BAD, 0.1, torch.zeros(1, 1, 1, 2)),
        r"start of the recovery: expected \[1, 1, 1, 3\], got \[1, 1, 1, 2\]",
    ),
    "iterations": (lambda: fista(BAD, 0.1, iterations=0), r"recovery: expected iterations >= 1, tolerance >= 0, got iterations 0"),
    "tolerance": (lambda: iht(BAD, 1, tolerance=float("nan")), r"recovery: expected iterations >= 1, tolerance >= 0, got .* tolerance nan"),
    "threshold": (lambda: admm(BAD, -0.1), r"threshold: expected nothing below 0, got -0\.1"),
    "rho": (lambda: admm(BAD, 0.1, rho=0.0), r"rho: expected a positive number, got 0\.0"),
    "too many columns": (lambda: omp(BAD, 3), r"keep: expected 0 to 2 columns of 3, got 3 to 3; measure more"),
    "too few columns": (lambda: iht(BAD, -1), r"keep: expected 0 to 2 columns of 3, got -1 to -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_problems_are_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(Error, match=message):
        call()
