"""Where a search may begin: rates that spare the groups whose channels the network misses most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosparse.compress.prune.rounding import Rounding, Widths
from cosparse.compress.runners import Runner


def by_sensitivity(fitness: Callable[[Widths], float], rounding: Rounding, upper: np.ndarray, runner: Runner) -> np.ndarray:
    """Rates [groups]: half of each group's channels go, of that group alone; the more the loss rises, the lower its rate.

    Costs one evaluation a group, and one of the whole network.
    """
    rates = np.eye(len(upper)) * upper / 2
    scored = runner(fitness, [rounding.most, *(rounding.widths(row) for row in rates)])
    rise = np.maximum(np.array(scored[1:]) - scored[0], 0.0)
    return upper / (1 + rise / max(float(np.median(rise)), 1e-12))
