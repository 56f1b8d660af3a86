"""Random views of training images, and the one fixed view in which an image is scored.

kornia draws the random choices, from torch's random state, which `seeded` sets; whole batches of equal size are augmented by kornia too.
Single images of any size are cut and resized by Pillow, whose resampling averages over the pixels that it drops. Labels are one number,
or a mask of labels that follows its image, always by nearest neighbour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

Labels = int | Image.Image
"""A class, or a mask: mode "I", one label a pixel, of its image's size."""

Size = tuple[int, int]
"""(height, width) in pixels."""


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """torch's random state is a function of these numbers inside, and what it was before outside."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)
        yield


def shifts(size: Size, pad: int, flip: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of float images [n, C, H, W] of this size: each is shifted by up to `pad` pixels, zeros moving in, then mirrored with probability 1/2
    where `flip`.
    """
    import kornia.augmentation as kornia

    crop = kornia.RandomCrop(size, padding=pad, same_on_batch=False)
    chain = torch.nn.Sequential(crop, *([kornia.RandomHorizontalFlip(0.5, same_on_batch=False)] if flip else []))
    return torch.no_grad()(chain)


@dataclass(frozen=True)
class View:
    """What a training image is changed into.

    A part of it of `scale` (shares of its area) and of an aspect ratio within a factor `ratio` of the target's, at random (Szegedy et al.
    2014), resized to `size`; mirrored with probability 1/2 where `flip`; brightness, contrast and saturation changed by up to `colour`.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: float = 4 / 3
    flip: bool = True
    colour: float = 0.0

    def __call__(self, image: Image.Image, labels: Labels) -> tuple[Image.Image, Labels]:
        from kornia.augmentation import ColorJiggle
        from kornia.augmentation.random_generator import ResizedCropGenerator

        height, width = self.size
        ratios = (width / height / self.ratio, width / height * self.ratio)
        corners = ResizedCropGenerator(self.size, self.scale, ratios)(torch.Size((1, 3, image.height, image.width)))["src"][0]
        (left, top), (right, bottom) = corners[0].tolist(), corners[2].tolist()
        image, labels = _resized(image, labels, self.size, (left, top, right + 1, bottom + 1))
        if self.flip and torch.rand(()) < 0.5:
            image, labels = ImageOps.mirror(image), labels if isinstance(labels, int) else ImageOps.mirror(labels)
        if self.colour and image.mode == "RGB":
            jiggle = ColorJiggle(self.colour, self.colour, self.colour, 0.0, p=1.0)
            changed = jiggle(to_tensor(image)[None].float() / 255)[0].mul(255).round().clamp(0, 255).to(torch.uint8)
            image = Image.fromarray(changed.permute(1, 2, 0).numpy())
        return image, labels


def centred(image: Image.Image, labels: Labels, size: Size, margin: float) -> tuple[Image.Image, Labels]:
    """The largest part in the middle that has the aspect ratio of `size`, its sides times `margin`, resized to `size`."""
    height, width = size
    scale = margin * min(image.height / height, image.width / width)
    across, down = width * scale, height * scale
    left, top = (image.width - across) / 2, (image.height - down) / 2
    return _resized(image, labels, size, (left, top, left + across, top + down))


def _resized(image: Image.Image, labels: Labels, size: Size, box: tuple[float, float, float, float]) -> tuple[Image.Image, Labels]:
    shape = (size[1], size[0])
    if not isinstance(labels, int):
        labels = labels.resize(shape, Image.Resampling.NEAREST, box)
    return image.resize(shape, Image.Resampling.BILINEAR, box), labels


def to_tensor(image: Image.Image) -> torch.Tensor:
    """uint8 [C, H, W]."""
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
