"""scikit-learn's bundled handwritten digits: data that need no download."""

from __future__ import annotations

import numpy as np
import torch

from cosparse.compress.data.images import Images

DIGITS = {"channels": "L", "scale": 1 / 16, "mean": [0.3053], "std": [0.3761], "size": [8, 8]}
"""Preprocessing of the digits: grey levels 0..16; mean and std over the data set."""


def digits(share: float = 0.2, seed: int = 0) -> tuple[Images, Images]:
    """1797 images of 8 x 8 grey levels 0..16, as (training, test)."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    pixels = torch.from_numpy(bundle.images.astype(np.uint8))[:, None]
    names = tuple(str(name) for name in bundle.target_names)
    return Images(pixels, torch.from_numpy(bundle.target.astype(np.int64)), names, "digits").split(share, seed)
