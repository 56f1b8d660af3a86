"""Where the tests of GPU kernels run: on a CUDA device where there is one, else on the CPU in Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""conftest.py sets TRITON_INTERPRET by the same rule, before a kernel is defined."""

if DEVICE == "cpu" and find_spec("triton") is not None:
    import interpreting

    interpreting.patch_once_a_launch()
    interpreting.reduce_by_slices()
    interpreting.look_types_up_once()
    interpreting.ask_nothing_in_vain()
    interpreting.share_shapes()
