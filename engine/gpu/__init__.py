"""The runtime on a GPU: a network as one CUDA graph for each shape. Needs torch and triton; `cosparse.load(device="cuda")` imports it."""
