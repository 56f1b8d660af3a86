"""The zoo's one list of networks: name, constructor, classes, natural input size, pixel statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cosparse.bench.zoo.convnext import ConvNext
from cosparse.bench.zoo.densenet import DenseNet
from cosparse.bench.zoo.googlenet import GoogLeNet
from cosparse.bench.zoo.inception import InceptionV3
from cosparse.bench.zoo.mobilenet import MobileNetV1, MobileNetV2
from cosparse.bench.zoo.mobilenet_v3 import V3_LARGE, V3_SMALL, efficientnet_b0, mobilenet_v3
from cosparse.bench.zoo.resnet import BasicBlock, Bottleneck, ResNet
from cosparse.bench.zoo.resnet_cifar import CifarResNet
from cosparse.bench.zoo.segmentation import deeplabv3_resnet50, fcn_resnet50
from cosparse.bench.zoo.shufflenet import ShuffleNetV2
from cosparse.bench.zoo.squeezenet import SqueezeNet
from cosparse.bench.zoo.unet import UNet
from cosparse.bench.zoo.vgg import CifarVgg16

HALF = (0.5, 0.5, 0.5)


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
    "vgg16": cifar(CifarVgg16),
    "resnet18": Entry(lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes)),
    "resnet34": Entry(lambda classes: ResNet(BasicBlock, (3, 4, 6, 3), classes)),
    "resnet50": Entry(lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes)),
    "resnet101": Entry(lambda classes: ResNet(Bottleneck, (3, 4, 23, 3), classes)),
    "densenet121": Entry(lambda classes: DenseNet((6, 12, 24, 16), classes)),
    "squeezenet1_1": Entry(SqueezeNet),
    "mobilenet_v1": Entry(MobileNetV1),
    "mobilenet_v2": Entry(MobileNetV2),
    "mobilenet_v3_large": Entry(lambda classes: mobilenet_v3(V3_LARGE, 1280, classes)),
    "mobilenet_v3_small": Entry(lambda classes: mobilenet_v3(V3_SMALL, 1024, classes)),
    "efficientnet_b0": Entry(efficientnet_b0),
    "shufflenet_v2_x1_0": Entry(ShuffleNetV2),
    # torchvision's weights for these two come from pixels scaled to -1..1.
    "googlenet": Entry(GoogLeNet, mean=HALF, std=HALF),
    "inception_v3": Entry(InceptionV3, size=(299, 299), mean=HALF, std=HALF),
    "convnext_tiny": Entry(ConvNext),
    "fcn_resnet50": Entry(fcn_resnet50, classes=21, size=(520, 520)),
    "deeplabv3_resnet50": Entry(deeplabv3_resnet50, classes=21, size=(520, 520)),
    "unet": Entry(UNet, classes=11, size=(352, 480)),
}
