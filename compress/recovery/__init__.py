"""Recovery of sparse signals from measurements: the solvers of step 1, one a file, all batched and deterministic."""

from cosparse.compress.recovery.admm import admm
from cosparse.compress.recovery.fista import fista
from cosparse.compress.recovery.iht import iht
from cosparse.compress.recovery.ista import ista
from cosparse.compress.recovery.omp import omp
from cosparse.compress.recovery.problem import Problem, Recovered, alone
from cosparse.compress.recovery.shrink import hard, soft

CONVEX = {"ista": ista, "fista": fista, "admm": admm}
"""Solvers of t ||s||_{2,1} + 1/2 ||A s - y||^2: they take a threshold, and agree."""

GREEDY = {"omp": omp, "iht": iht}
"""Methods that take the number of columns instead."""

__all__ = ["CONVEX", "GREEDY", "Problem", "Recovered", "admm", "alone", "fista", "hard", "iht", "ista", "omp", "soft"]
