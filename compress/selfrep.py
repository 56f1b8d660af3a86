"""Which filters the others are made of: sparse self-representation of a layer's filters.

    min_Z  ||X - X_S Z||_F^2 + lambda ||Z||_{2,1}        X [d, n]: one filter a column; S: the filters that may be used; Z [|S|, n]

The importance of filter i is ||Z_i||_2, how much of it goes into writing all of them (SSR+PSO; the norm is our reading of it). At
lambda = 0 every filter writes itself, so the ranking would say nothing; lambda is a share of lambda_max, above which Z = 0. Filters that
are alike share their importance and all look weak, so `rank` removes a few at a time and asks again, with the rest still writing all.

Everything works on the Gram matrix G = X^T X, float64 [n, n].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from cosparse.errors import Error

SCALES = ("raw", "unit", "bn")

GONE = 1e-9
"""Norm of a row relative to the largest below which reweighting has made it 0."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Representation:
    """`z` float64 [|S|, n] (rows in the order of `used`), the objective, and how far the iteration went."""

    z: Array
    used: Array
    objective: float
    iterations: int
    converged: bool

    @property
    def importance(self) -> Array:
        """||Z_i||_2 of every filter that may be used, [|S|]."""
        return np.linalg.norm(self.z, axis=1)


def filters(weight: Array, scale: str = "raw", gamma: Array | None = None, variance: Array | None = None) -> Array:
    """X [d, O] float64 of weights [O, ...].

    `scale`: "raw"; "unit", every filter at norm 1 (zero filters stay zero); "bn", times gamma / sqrt(variance) of the batch norm that
    follows, both [O]: the size at which the next layer sees the filter.
    """
    if scale not in SCALES:
        raise Error("scale", f"one of {', '.join(SCALES)}", repr(scale))
    x = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1).T
    if not np.isfinite(x).all():
        raise Error("weight", "finite values", "NaN or infinity")
    if scale == "unit":
        return x / np.maximum(np.linalg.norm(x, axis=0), np.finfo(np.float64).tiny)
    if scale == "bn":
        if gamma is None or variance is None or gamma.shape != (x.shape[1],) or variance.shape != (x.shape[1],):
            got = " and ".join("none" if given is None else str(list(given.shape)) for given in (gamma, variance))
            raise Error("scale 'bn'", f"gamma and variance of {x.shape[1]} filters", got)
        return x * np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + np.finfo(np.float32).eps)
    return x


def lambda_max(gram: Array, used: Array | None = None) -> float:
    """The least lambda at which Z = 0 is the optimum: 2 max_i ||G_i||_2."""
    rows = gram if used is None else gram[used]
    return 2 * float(np.linalg.norm(rows, axis=1).max(initial=0.0))


def objective(gram: Array, z: Array, lam: float, used: Array | None = None) -> float:
    """||X - X_S Z||_F^2 + lambda ||Z||_{2,1} from the Gram matrix alone."""
    chosen = np.arange(len(gram)) if used is None else used
    fit = float(np.trace(gram)) - 2 * float((gram[chosen] * z).sum()) + float(((gram[np.ix_(chosen, chosen)] @ z) * z).sum())
    return fit + lam * float(np.linalg.norm(z, axis=1).sum())


def irls(gram: Array, lam: float, used: Array | None = None, *, tolerance: float = 1e-8, steps: int = 200) -> Representation:
    """Iteratively reweighted least squares on the rows that are alive: D = diag(1 / (2 ||Z_i||)), Z = (G_SS + lambda D)^-1 G_S.

    It never sets a row to 0 and shrinks rows near it slowly, so once the objective settles (relative change below 100 `tolerance`) row by
    row minimisation decides who is 0, and filters that the optimality condition ||2 (G_S - G_SS Z)_i|| <= lambda wants in use are added,
    until a sweep changes the objective by less than `tolerance`.
    """
    _require(gram, lam)
    chosen = np.arange(len(gram)) if used is None else np.asarray(used)
    alive = chosen[np.linalg.norm(gram[chosen], axis=1) > 0] if lam < lambda_max(gram, chosen) else chosen[:0]
    norms, z, last = np.ones(len(alive)), np.zeros((len(alive), len(gram))), np.inf
    count, settled = 0, len(alive) == 0
    while count < steps and not settled:
        count += 1
        root = np.sqrt(2 * norms)  # of D^-1: the system stays finite as a row goes to 0
        system = gram[np.ix_(alive, alive)] * root[:, None] * root
        system[np.diag_indices_from(system)] += lam
        z = root[:, None] * linalg.cho_solve(linalg.cho_factor(system, overwrite_a=True, check_finite=False), root[:, None] * gram[alive])
        norms = np.linalg.norm(z, axis=1)
        keep = norms > GONE * norms.max(initial=0.0)
        alive, z, norms = alive[keep], z[keep], norms[keep]
        now = objective(gram, z, lam, alive)
        settled, last = abs(last - now) <= 100 * tolerance * abs(now), now
    z, sweeps, converged = _polish(gram, lam, chosen, alive, z, tolerance, steps - count)
    return Representation(z, chosen, objective(gram, z, lam, chosen), count + sweeps, converged)


def _polish(gram: Array, lam: float, chosen: Array, alive: Array, z: Array, tolerance: float, steps: int) -> tuple[Array, int, bool]:
    """Exact minimisation over one row after the other: (Z of all `chosen`, sweeps, whether it converged)."""
    full = np.zeros((len(chosen), len(gram)))
    places = np.flatnonzero(np.isin(chosen, alive))
    full[places] = z  # `alive` keeps the order of `chosen`
    last = objective(gram, full, lam, chosen)
    for sweep in range(steps):
        inner = gram[np.ix_(chosen[places], chosen[places])]
        for i, place in enumerate(places):
            left = gram[chosen[place]] - inner[i] @ full[places] + inner[i, i] * full[place]
            length = float(np.linalg.norm(left))
            full[place] = max(0.0, 1 - lam / (2 * length)) / inner[i, i] * left if length > 0 else 0.0
        now = objective(gram, full, lam, chosen)
        settled, last = abs(last - now) <= tolerance * abs(now), now
        places = places[full[places].any(1)]
        if settled:
            pull = 2 * np.linalg.norm(gram[chosen] - gram[np.ix_(chosen, chosen[places])] @ full[places], axis=1)
            missing = np.setdiff1d(np.flatnonzero(pull > lam * (1 + 1e-4)), places)
            if not len(missing):
                return full, sweep + 1, True
            places = np.union1d(places, missing)
    return full, steps, not len(places)


def fista(gram: Array, lam: float, used: Array | None = None, *, tolerance: float = 1e-12, steps: int = 20000) -> Representation:
    """Accelerated proximal gradient, its momentum dropped whenever it points uphill: the plain algorithm that `irls` is checked against."""
    _require(gram, lam)
    chosen = np.arange(len(gram)) if used is None else np.asarray(used)
    inner, target = gram[np.ix_(chosen, chosen)], gram[chosen]
    largest = float(np.linalg.eigvalsh(inner)[-1]) if len(chosen) else 0.0
    z = ahead = np.zeros_like(target)
    count, t, converged = 0, 1.0, largest <= 0
    while count < steps and not converged:
        count += 1
        new = _shrink(ahead - (inner @ ahead - target) / largest, lam / (2 * largest))
        change = new - z
        uphill = float((change * (ahead - new)).sum()) > 0
        following = 1.0 if uphill else (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, z, t = new + (0.0 if uphill else (t - 1) / following) * change, new, following
        converged = float(np.linalg.norm(change)) <= tolerance * float(np.linalg.norm(new))
    return Representation(z, chosen, objective(gram, z, lam, chosen), count, converged)


def _shrink(z: Array, by: float) -> Array:
    """Every row shortened by `by`, to 0 where it is no longer."""
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    return z * np.maximum(0.0, 1 - by / np.maximum(norms, np.finfo(np.float64).tiny))


def admm(gram: Array, lam: float, *, rho: float = 1.0, tolerance: float = 1e-6, steps: int = 1000) -> Representation:
    """The l1 variant: min 1/2 ||X - X Z||_F^2 + lambda ||Z||_1 with Z_ii = 0, so that no filter writes itself.

    `rho`: the penalty of the splitting, as a share of the mean of G's diagonal.
    """
    _require(gram, lam)
    n = len(gram)
    penalty = rho * float(np.trace(gram)) / max(n, 1)
    everything = np.arange(n)
    z, dual = np.zeros((n, n)), np.zeros((n, n))
    count, converged = 0, penalty == 0
    if not converged:
        inverse = linalg.cho_solve(linalg.cho_factor(gram + penalty * np.eye(n)), np.eye(n))
        fixed = inverse @ gram
    while count < steps and not converged:
        count += 1
        free = fixed + penalty * (inverse @ (z - dual))
        before, z = z, free + dual
        z = np.sign(z) * np.maximum(np.abs(z) - lam / penalty, 0.0)
        np.fill_diagonal(z, 0.0)
        dual += free - z
        size = max(float(np.linalg.norm(z)), float(np.linalg.norm(free)), np.finfo(np.float64).tiny)
        converged = max(float(np.linalg.norm(free - z)), float(np.linalg.norm(z - before))) <= tolerance * size
    fit = float(np.trace(gram)) - 2 * float((gram * z).sum()) + float(((gram @ z) * z).sum())
    return Representation(z, everything, fit / 2 + lam * float(np.abs(z).sum()), count, converged)


def rank(gram: Array, share: float = 0.1, *, batch: float = 0.125, least: int = 1) -> Array:
    """The filters from the one that can go first to the one that must stay last, [n].

    `share`: lambda / lambda_max of the filters that are left. After `batch` of the filters at a time (of all n, at least one) the rest is
    asked again how it would write all of them: of two that are alike one goes, and the other then carries both.
    """
    if not 0 < share < 1 or not 0 < batch <= 1:
        raise Error("rank", "share in (0, 1), batch in (0, 1]", f"share {share}, batch {batch}")
    n = len(gram)
    size = max(1, round(batch * n))
    left, order = np.arange(n), []
    while len(left) > least:
        top = lambda_max(gram, left)
        importance = irls(gram, share * top, left).importance if top > 0 else np.zeros(len(left))
        # Filters at zero tie; among them the one that the present optimum would miss least goes first.
        going = left[np.lexsort((np.diag(gram)[left], importance))[: min(size, len(left) - least)]]
        order.append(going)
        left = np.setdiff1d(left, going)
    return np.concatenate([*order, left]).astype(np.int64)


def _require(gram: Array, lam: float) -> None:
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
        raise Error("gram", "a finite square matrix", f"{gram.shape}")
    if not lam > 0:
        raise Error("lambda", "a positive number", repr(lam), "give c in (0, 1): lambda = c lambda_max")
