"""From pixels to a network's input: x = (pixel scale - mean) / std, the preprocessing that an artifact records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cosparse.errors import Error


@dataclass(frozen=True, eq=False)
class Normalise:
    """x = pixel `scale` - `shift`, both [1, C, 1, 1]."""

    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any], channels: int) -> Normalise:
        """From `scale` (one number), `mean` and `std` (one a channel); Error where they do not fit the channels."""
        missing = [key for key in ("scale", "mean", "std") if key not in preprocessing]
        if missing:
            raise Error("preprocessing", "scale, mean and std", f"no {', '.join(missing)}")
        mean, std = (torch.tensor(preprocessing[key], dtype=torch.float32) for key in ("mean", "std"))
        if mean.numel() != channels or std.numel() != channels:
            raise Error("preprocessing", f"mean and std of {channels} channels", f"{mean.numel()} and {std.numel()}")
        return cls((preprocessing["scale"] / std).reshape(1, -1, 1, 1), (mean / std).reshape(1, -1, 1, 1))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] of any dtype -> float32, channels last."""
        return pixels.float().mul(self.scale).sub_(self.shift).contiguous(memory_format=torch.channels_last)
