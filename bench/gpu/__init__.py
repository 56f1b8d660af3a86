"""Measuring on a GPU: times by CUDA events, the dense and sparse peers, networks. `cosparse.bench.gpu_suite` runs them all."""
