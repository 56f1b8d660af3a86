"""The operators on a GPU. Needs torch and triton, so nothing imports it before a GPU is asked for.

One family = one file, as in cosparse.kernels, whose references and contracts hold here too; what differs is the layout (planes.py), the
numbers (float16 or bfloat16 in and out, sums in float32) and the weights (groups.py).
"""
