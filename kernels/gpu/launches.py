"""Every operator's launch by name, but for conv and linear, whose weights are made ready when a network is loaded."""

from __future__ import annotations

from cosparse.kernels.gpu import pointwise, pool, rearrange, resample
from cosparse.kernels.gpu.pointwise import Launch

LAUNCHES: dict[str, Launch] = {op: launch for family in (pointwise, pool, resample, rearrange) for op, launch in family.LAUNCHES.items()}
