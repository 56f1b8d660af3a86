"""Small networks for the compression tests, of shapes that go wrong: O = 10, C = 3, 1x1, 7x7, stride 2, depthwise, transposed, shared."""

from __future__ import annotations

import torch
from torch import nn

from cosparse.compress import NNCS
from cosparse.compress.count import as_tuple
from cosparse.compress.importer import known


class Awkward(nn.Module):
    """Input [N, 3, 12, 12], 5 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.wide = nn.Conv2d(10, 16, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.point = nn.Conv2d(16, 20, 1)
        self.depth = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.tall = nn.Conv2d(20, 10, (3, 1), padding=(1, 0))
        self.narrow = nn.Conv2d(10, 3, 3, padding=1, dilation=1)
        self.again = nn.Conv2d(3, 3, 1)
        self.up = nn.ConvTranspose2d(3, 6, 2, stride=2)
        self.hidden = nn.Linear(6, 12)
        self.linear = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.wide(torch.relu(self.stem(x)))))
        x = torch.relu(self.narrow(torch.relu(self.tall(self.depth(self.point(x))))))
        x = self.up(self.again(self.again(x)))
        return self.linear(torch.relu(self.hidden(x.mean((2, 3)))))


class Residual(nn.Module):
    """A small residual network for grey images, [N, 1, H, W] to 10 classes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.linear = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return self.linear(x.mean((2, 3)))


class Mixed(nn.Module):
    """Input [N, 9, 13, 12], 4 outputs: channels and filters that no tile divides; 3x3, 1x1, 3x5, 5x5; stride, dilation, uneven pads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(9, 20, 3, padding=1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.point = nn.Conv2d(20, 37, 1, stride=2)
        self.wide = nn.Conv2d(37, 21, (3, 5), padding="same", dilation=(1, 2))
        self.five = nn.Conv2d(21, 18, 5, padding=2)
        self.hidden = nn.Linear(18, 22)
        self.linear = nn.Linear(22, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.point(torch.relu(self.norm(self.first(x)))))
        x = torch.relu(self.five(nn.functional.pad(torch.relu(self.wide(x)), (1, 0, 0, 2))))
        return self.linear(torch.relu(self.hidden(x.mean((2, 3)))))


def seeded(make: type[nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights and batch-norm statistics that depend on the seed alone, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


_imported: set[str] = set()
"""What the networks are made of that `imported` has seen."""


def imported(nncs: NNCS) -> NNCS:
    """The same, its network known to be importable: `fit` begins with that check, and torch.export takes longer than these trainings.

    It is made here, once for all networks of one making, as `fit` makes it once for each.
    """
    inputs = as_tuple(nncs.example)
    making = f"{type(nncs.model)} {known._made(nncs.model, inputs)}"
    if making in _imported:
        known.remember(nncs.model, inputs)
    else:
        known.require_importable(nncs.model, inputs)
        _imported.add(making)
    return nncs
