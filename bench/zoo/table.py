"""The zoo's one list of networks: name, constructor, classes, natural input size, pixel statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cosparse.bench.zoo.resnet import BasicBlock, Bottleneck, ResNet
from cosparse.bench.zoo.resnet_cifar import CifarResNet


@dataclass(frozen=True)
class Entry:
    """`make(classes)` constructs; `size` is [height, width]; `mean` and `std` apply to RGB scaled to 0..1."""

    make: Callable[[int], nn.Module]
    classes: int = 1000
    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


def cifar(make: Callable[[int], nn.Module]) -> Entry:
    return Entry(make, classes=10, size=(32, 32))


TABLE: dict[str, Entry] = {
    "resnet20": cifar(lambda classes: CifarResNet(3, classes)),
    "resnet32": cifar(lambda classes: CifarResNet(5, classes)),
    "resnet44": cifar(lambda classes: CifarResNet(7, classes)),
    "resnet56": cifar(lambda classes: CifarResNet(9, classes)),
    "resnet110": cifar(lambda classes: CifarResNet(18, classes)),
    "resnet18": Entry(lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes)),
    "resnet34": Entry(lambda classes: ResNet(BasicBlock, (3, 4, 6, 3), classes)),
    "resnet50": Entry(lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes)),
    "resnet101": Entry(lambda classes: ResNet(Bottleneck, (3, 4, 23, 3), classes)),
}
