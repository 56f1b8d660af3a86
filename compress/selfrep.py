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
from scipy.linalg import lapack

from cosparse.errors import Error

SCALES = ("raw", "unit", "bn")

GONE = 1e-9
"""Norm of a row relative to the largest below which reweighting has made it 0."""

REWEIGHTINGS, SWEEPS = 10, 5
"""How many of each in a turn."""

LONGEST = 8.0
"""How many times as far as told to norms move at most, in their logarithm."""

BLOCK = 64
"""Rows of Z whose residual is one product in a sweep."""

ALIKE = 0.9
"""Cosine of two filters above which they share their importance and both look weak: they do not go in one batch."""

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


def irls(
    gram: Array, lam: float, used: Array | None = None, *, tolerance: float = 1e-8, steps: int = 200, start: Array | None = None
) -> Representation:
    """Iteratively reweighted least squares and row by row minimisation in turns, on the rows that are alive.

    Reweighting, D = diag(1 / (2 ||Z_i||)), Z = (G_SS + lambda D)^-1 G_S, moves all rows together but never sets one to 0 and shrinks rows
    near it slowly. Row by row minimisation does, and is slow where filters are alike. They take turns until a sweep over the rows changes
    the objective by less than `tolerance`, relatively; then filters that the optimality condition ||2 (G_S - G_SS Z)_i|| <= lambda wants
    in use are added, and where there are none it is done. `start` [|S|, n]: a Z near the optimum, with whose rows it begins.
    """
    _require(gram, lam)
    chosen = np.arange(len(gram)) if used is None else np.asarray(used)
    lengths = _lengths(gram[chosen] if start is None else start)
    places = np.flatnonzero(lengths if lam < lambda_max(gram, chosen) else 0 * lengths)  # of the rows of z, in `chosen`
    norms = np.ones(len(places)) if start is None else lengths[places]
    z, now = np.zeros((len(places), len(gram))), 0.0
    count, sweeps, converged = 0, 0, False
    while count < steps and not converged:
        if sweeps == 0:
            places, z, now, made = _reweighted(gram, lam, chosen, places, norms, tolerance)
            count, sweeps = count + made, SWEEPS
        alive = chosen[places]
        fall = _sweep(gram[np.ix_(alive, alive)], gram[alive], z, lam)
        count, sweeps, now, norms = count + 1, sweeps - 1, now - fall, _lengths(z)
        places, z, norms = _kept(norms > 0, places, z, norms)
        if fall <= tolerance * abs(now):
            missing = _missing(gram, lam, chosen, places, z)
            converged = not len(missing)
            if not converged:  # rows of 0, which reweighting would leave there
                places, z, sweeps = np.append(places, missing), np.append(z, np.zeros((len(missing), len(gram))), axis=0), SWEEPS
    full = np.zeros((len(chosen), len(gram)))
    full[places] = z
    return Representation(full, chosen, objective(gram, z, lam, chosen[places]), count, converged)


def _kept(keep: Array, *arrays: Array) -> tuple[Array, ...]:
    """The rows to keep of all of them; without a copy where that is all."""
    return arrays if keep.all() else tuple(array[keep] for array in arrays)


def _missing(gram: Array, lam: float, chosen: Array, places: Array, z: Array) -> Array:
    """The places in `chosen` whose rows are 0 and should not be."""
    idle = np.setdiff1d(np.arange(len(chosen)), places)
    pull = gram[chosen[idle]] - gram[np.ix_(chosen[idle], chosen[places])] @ z
    return idle[2 * _lengths(pull) > lam * (1 + 1e-4)]


def _lengths(z: Array) -> Array:
    """||Z_i||_2 of every row, without a matrix of squares."""
    return np.sqrt(np.einsum("ij,ij->i", z, z))


def _reweighted(gram: Array, lam: float, chosen: Array, places: Array, norms: Array, tolerance: float) -> tuple[Array, Array, float, int]:
    """At most REWEIGHTINGS from `norms` on: (places that are left, their rows of Z, the objective, how many).

    Norms move further than they are told to, in their logarithm, as long as the objective falls: ever further, up to LONGEST times.
    """
    z, last, plain, stretch, count, settled = np.zeros((len(places), len(gram))), np.inf, norms, 1.0, 0, False
    while count < REWEIGHTINGS and len(places) and not settled:
        count += 1
        new, fit = _ridge(gram, lam, chosen[places], norms)
        lengths = _lengths(new)
        now = fit + lam * float(lengths.sum())
        if now > last and stretch > 1:
            norms, stretch = plain, 1.0
            continue
        settled, last = last - now <= tolerance * abs(now), now
        places, z, norms, plain = _kept(lengths > GONE * lengths.max(), places, new, norms, lengths)
        stretch = min(LONGEST, 1.3 * stretch)
        norms = plain * np.clip(plain / norms, 0.1, 10.0) ** (stretch - 1)
    return places, z, last if count else float(np.trace(gram)), count


def _ridge(gram: Array, lam: float, alive: Array, norms: Array) -> tuple[Array, float]:
    """Z = (G_AA + lambda D)^-1 G_A [|A|, n] with D = diag(1 / (2 `norms`)), and ||X - X_A Z||_F^2.

    With M = D^-1/2 G_AA D^-1/2 + lambda I, which stays finite as a row goes to 0, the columns A of Z are D^-1/2 (I - lambda M^-1) D^1/2:
    an inverse and no product. <Z, G_AA Z> = <Z, G_A> - lambda sum_i D_i ||Z_i||^2.
    """
    root = np.sqrt(2 * norms)
    system = gram[np.ix_(alive, alive)]
    system *= root[:, None]
    system *= root
    diagonal = np.diag_indices_from(system)
    system[diagonal] += lam
    factor, failed = lapack.dpotrf(system.T, overwrite_a=True)  # transposed it lies as LAPACK wants it, and is the same
    if failed:
        raise Error("gram", "a positive semidefinite matrix", f"one that is indefinite at filter {alive[failed - 1]}", "give X^T X")
    half, _ = lapack.dpotri(factor, overwrite_c=True)
    inverse = half + half.T  # one triangle each, the other is zero
    inverse[diagonal] /= 2
    everything = np.arange(len(gram))
    rest = np.setdiff1d(everything, alive)
    others = inverse @ (root[:, None] * gram[np.ix_(alive, rest)])
    inverse *= -lam
    inverse[diagonal] += 1
    inverse /= root
    z = inverse
    if not np.array_equal(alive, everything):
        z = np.empty((len(alive), len(gram)))
        z[:, alive], z[:, rest] = inverse, others
    z *= root[:, None]
    paid = lam * float((np.square(_lengths(z) / root)).sum())
    return z, float(np.trace(gram)) - float(np.vdot(z, gram[alive])) - paid


def _sweep(inner: Array, target: Array, rows: Array, lam: float) -> float:
    """One pass over the rows of Z, in place, with `inner` = G_SS and `target` = G_S; by how much the objective fell.

    The residual of BLOCK rows comes from one product; what the rows of the block before this one have changed is taken off when it is due.
    """
    fall = 0.0
    for first in range(0, len(rows), BLOCK):
        block = slice(first, first + BLOCK)
        left, own = target[block] - inner[block] @ rows, inner[block, block]
        changes = np.zeros_like(left)
        for i, row in enumerate(rows[block]):
            size = float(own[i, i])
            pull = left[i] - own[i, :i] @ changes[:i] + size * row
            length, before = float(np.linalg.norm(pull)), float(np.linalg.norm(row))
            scale = max(0.0, 1 - lam / (2 * length)) / size if length > 0 else 0.0
            after = scale * length
            np.subtract(scale * pull, row, out=changes[i])
            fall += size * (before**2 - after**2) + lam * (before - after) + 2 * float(pull @ changes[i])
            row += changes[i]
    return fall


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
    asked again how it would write all of them: of two that are ALIKE one goes at a time, and the other then carries both.
    """
    if not 0 < share < 1 or not 0 < batch <= 1:
        raise Error("rank", "share in (0, 1), batch in (0, 1]", f"share {share}, batch {batch}")
    n = len(gram)
    size = max(1, round(batch * n))
    left, order = np.arange(n), []
    z = None  # [left, n]: what is left of the last optimum, near which the next one lies
    while len(left) > least:
        top = lambda_max(gram, left)
        found = irls(gram, share * top, left, start=z) if top > 0 else None
        importance = np.zeros(len(left)) if found is None else found.importance
        # Filters at zero tie; among them the one that the present optimum would miss least goes first.
        weakest = np.lexsort((np.diag(gram)[left], importance))
        going = weakest[_apart(gram[np.ix_(left[weakest], left[weakest])], min(size, len(left) - least))]
        order.append(left[going])
        left, z = np.delete(left, going), None if found is None else np.delete(found.z, going, 0)
    return np.concatenate([*order, left]).astype(np.int64)


def _apart(gram: Array, most: int) -> list[int]:
    """The first filters, at most so many, no two of which are alike; where that leaves less than a quarter, the next ones all the same."""
    lengths, chosen = np.sqrt(np.diag(gram)), [0]
    for place in range(1, len(gram)):
        if len(chosen) == most:
            break
        if (np.abs(gram[place, chosen]) <= ALIKE * lengths[place] * lengths[chosen]).all():
            chosen.append(place)
    return chosen + [place for place in range(len(gram)) if place not in chosen][: max(0, most // 4 - len(chosen))]


def _require(gram: Array, lam: float) -> None:
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
        raise Error("gram", "a finite square matrix", f"{gram.shape}")
    if not lam > 0:
        raise Error("lambda", "a positive number", repr(lam), "give c in (0, 1): lambda = c lambda_max")
