"""Micro-benchmarks of single kernels, for pytest-benchmark: `pytest bench/micro/kernels.py`."""
