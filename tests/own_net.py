"""A network from a user's own file, and images that it can learn: fixtures of the tests of `cosparse compress`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import torch
from torch import nn

def example():
    return torch.zeros(1, 3, 8, 8)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))

def alone():
    return net()

def with_example():
    return net(), example()

def complete():
    return net(), example(), {"channels": "RGB", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3, "size": [8, 8]}
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose class can be learnt: class k is bright in quadrant k."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    folder = tmp_path_factory.mktemp("quadrants")
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 40)):
        labels, encoded = np.arange(count) % 4, []
        for label in labels:
            pixels = rng.integers(0, 100, (8, 8, 3))
            row, column = divmod(int(label), 2)
            pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
            file = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
            encoded.append(file.getvalue())
        pyarrow.parquet.write_table(
            pyarrow.table({"image": encoded, "label": labels.astype(np.int8)}), folder / f"quadrants_{split}.parquet"
        )
    return folder
