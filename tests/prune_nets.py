"""Networks whose channels are coupled in every way: sums, concatenations, groups, depthwise, transposed, flattened, used twice, tied."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from compress_nets import Awkward, Residual, seeded
from torch import nn

from cosparse.bench import zoo
from cosparse.bench.zoo.densenet import DenseNet
from cosparse.bench.zoo.googlenet import GoogLeNet
from cosparse.bench.zoo.resnet import Bottleneck


class Detector(nn.Module):
    """Heads whose outputs are sliced, changed and put together again, as detectors do; [N, 3, H, W] to [N, 2 (2 H W), 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(16, 12, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, found = torch.relu(self.body(x)), []
        for head in self.heads:
            y = head(x)
            n, _, h, w = y.shape
            boxes = y.view(n, 2, 6, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            parts = (boxes[..., 0:2] * 2, (boxes[..., 2:4] * 2) ** 2, boxes[..., 4:])
            found.append(torch.cat(parts, -1).reshape(n, -1, 6))
        return torch.cat(found, 1)


class Shared(nn.Module):
    """One convolution runs twice, so what it reads and what it makes are the same channels; [N, 3, H, W] to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 24, 1)
        self.d = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(x))
        x = F.relu(self.b(F.relu(self.b(x))))
        return self.d(F.relu(self.c(x)).mean((2, 3)))


class Grouped(nn.Module):
    """Four groups in a convolution, a transposed one behind it, and a classifier of flattened pixels; [N, 3, 8, 8] to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3, padding=1)
        self.b = nn.Conv2d(32, 32, 3, padding=1, groups=4, bias=False)
        self.act = nn.PReLU(32)
        self.c = nn.ConvTranspose2d(32, 24, 2, 2)
        self.d = nn.Conv2d(24, 16, 1)
        self.e = nn.Linear(16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.c(self.act(self.b(F.relu(self.a(x))))))
        return self.e(F.adaptive_avg_pool2d(F.relu(self.d(x)), 4).flatten(1))


class Joined(nn.Module):
    """A concatenation that is also added to one layer's output, and read behind a batch norm; [N, 3, H, W] to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(3, 20, 3, padding=1)
        self.c = nn.Conv2d(3, 32, 1)
        self.norm = nn.BatchNorm2d(32)
        self.d = nn.Conv2d(32, 16, 3)
        self.e = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.a(x), self.b(x)], 1) + self.c(x)
        return self.e(F.relu(self.d(F.relu(self.norm(x)))).mean((2, 3)))


class Stubborn(nn.Module):
    """What must stay whole: tied weights, channels shifted by padding, a group norm; `free` alone may lose filters. [N, 3, H, W] to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Conv2d(3, 16, 1)
        self.twin = nn.Conv2d(3, 16, 1)
        self.twin.weight = self.tied.weight
        self.narrow = nn.Conv2d(16, 8, 1)
        self.shifted = nn.Conv2d(16, 16, 1)
        self.mixed = nn.Conv2d(16, 16, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.free = nn.Conv2d(16, 16, 1)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.tied(x) + self.twin(x))
        x = self.shifted(x) + F.pad(self.narrow(x), (0, 0, 0, 0, 4, 4))
        x = F.relu(self.norm(self.mixed(F.relu(x))))
        return self.last(F.relu(self.free(x)).mean((2, 3)))


def shallow(model: nn.Module) -> nn.Module:
    """Two blocks of each stage of a ResNet-50, three Inceptions less of a GoogLeNet: those that go are like others that stay."""
    for module in model.modules():
        if isinstance(module, nn.Sequential) and all(isinstance(block, Bottleneck) for block in module):
            del module[2:]
    if isinstance(model, GoogLeNet):
        model.inception4b = model.inception4c = model.inception5a = nn.Identity()
    return model


NETS = {
    "awkward": (lambda: seeded(Awkward), (3, 12, 12)),
    "residual": (lambda: seeded(Residual), (1, 8, 8)),
    "shared": (lambda: seeded(Shared), (3, 8, 8)),
    "grouped": (lambda: seeded(Grouped), (3, 8, 8)),
    "joined": (lambda: seeded(Joined), (3, 8, 8)),
    "resnet20": (lambda: zoo.build("resnet20"), (3, 32, 32)),
    "mobilenet_v2": (lambda: zoo.build("mobilenet_v2"), (3, 32, 32)),
    "mobilenet_v3_small": (lambda: zoo.build("mobilenet_v3_small"), (3, 32, 32)),
    "densenet": (lambda: seeded(lambda: DenseNet((2, 3, 2, 2), 10)), (3, 32, 32)),
    "googlenet": (lambda: shallow(zoo.build("googlenet")), (3, 32, 32)),
    "unet": (lambda: zoo.build("unet"), (3, 32, 32)),
    "fcn_resnet50": (lambda: shallow(zoo.build("fcn_resnet50", 11)), (3, 32, 32)),
}
"""Name -> (maker, shape of one input)."""

_made: dict[str, tuple[nn.Module, torch.Tensor]] = {}


def net(name: str) -> tuple[nn.Module, torch.Tensor]:
    """(network in evaluation mode, example of batch 1), made once."""
    if name not in _made:
        make, shape = NETS[name]
        _made[name] = make().eval(), torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    model, example = _made[name]
    return copy.deepcopy(model), example
