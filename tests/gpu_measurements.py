"""Times and a machine for measurements on a GPU that were never made."""

from __future__ import annotations

import numpy as np

from cosparse.bench.gpu.timing import Times

MACHINE = {"gpu": "G", "driver": "1", "cuda": "13", "cores": 2, "versions": {"cosparse": "0.1.0", "torch": "2"}, "commit": None}


def times_of(ms: float) -> Times:
    return Times(np.full(5, ms * 1e-3), ((1980.0, 3201.0),))
