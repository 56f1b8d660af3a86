"""A value on the GPU: planes in channel order, all images of a plane one after the other.

    data [C, stride]      float16 or bfloat16; pixel (n, h, w) of channel c is data[c, (n H + h) W + w]
    stride                a multiple of ALIGN numbers, so that every row starts on 128 bytes; what lies behind N H W is anything, NaN too

A row of the matrix product over channels is thus one contiguous run of pixels, whatever channels it gathers. [N, F] is [N, F, 1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

ALIGN = 64
"""Numbers that the stride of a row is a multiple of."""

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def stride_of(shape: tuple[int, int, int, int]) -> int:
    """Numbers from one channel of a value [N, C, H, W] to the next."""
    n, _, h, w = shape
    return -(-n * h * w // ALIGN) * ALIGN


@dataclass(frozen=True, eq=False)
class Planes:
    """`data` [C, stride] holds a value of `shape` [N, C, H, W]."""

    data: torch.Tensor
    shape: tuple[int, int, int, int]

    @property
    def pixels(self) -> int:
        """Numbers of a row that mean something: N H W."""
        return self.shape[0] * self.shape[2] * self.shape[3]

    @property
    def stride(self) -> int:
        return self.data.stride(0)

    @property
    def nchw(self) -> torch.Tensor:
        """The value as torch sees it, [N, C, H, W], a view: reading and writing it reads and writes the planes."""
        n, c, h, w = self.shape
        return self.data[:, : self.pixels].view(c, n, h, w).transpose(0, 1)

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | str) -> Planes:
        """Memory of its own, not yet written."""
        return cls(torch.empty((shape[1], stride_of(shape)), dtype=dtype, device=device), shape)

    @classmethod
    def of(cls, x: torch.Tensor, dtype: torch.dtype | None = None) -> Planes:
        """A copy of a tensor [N, C, H, W] or [N, F]; the numbers behind each row are NaN, so that a kernel that uses them shows."""
        x = x if x.ndim == 4 else x[:, :, None, None]
        made = cls.empty(tuple(x.shape), dtype or x.dtype, x.device)  # type: ignore[arg-type]
        made.data.fill_(torch.nan)
        made.nchw.copy_(x)
        return made
