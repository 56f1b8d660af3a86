"""The operators: one family = one file = its contract and the plain NumPy reference that every fast kernel is held against.

`reference.run` interprets a whole network, `conv.unpack` gives a layer's dense weights, `available` lists the kernels and what this machine
can run. Knows neither the engine nor the compressor: a node is anything with `name`, `op`, `inputs`, `attrs`, `tensors` (contract.py).
"""

from cosparse.kernels.table import KernelRow, available

__all__ = ["KernelRow", "available"]
