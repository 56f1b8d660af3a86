"""Networks of the zoo cut short for tests of whole commands: what a network is made of stays, how often does not."""

from __future__ import annotations

import pytest
from torch import nn

from cosparse.bench.zoo.resnet import ResNetFeatures
from cosparse.bench.zoo.segmentation import fcn_resnet50
from cosparse.bench.zoo.table import TABLE, Entry
from cosparse.bench.zoo.unet import UNet


def first_blocks(features: ResNetFeatures) -> None:
    """One block of each stage."""
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        setattr(features, stage, getattr(features, stage)[:1])


def short_resnet(classes: int) -> nn.Module:
    made = TABLE["resnet18"].make(classes)
    assert isinstance(made, ResNetFeatures)
    first_blocks(made)
    return made


def short_fcn(classes: int) -> nn.Module:
    made = fcn_resnet50(classes)
    assert isinstance(made.backbone, ResNetFeatures)
    first_blocks(made.backbone)
    return made


def short_unet(classes: int) -> nn.Module:
    """Two of four levels: heights and widths are multiples of 4."""
    made = UNet(classes)
    made.down, made.up, made.merge = made.down[:3], made.up[-2:], made.merge[-2:]
    return made


def add(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rest of the test the zoo of this process also has short_resnet, short_fcn and short_unet."""
    monkeypatch.setitem(TABLE, "short_resnet", Entry(short_resnet))
    monkeypatch.setitem(TABLE, "short_fcn", Entry(short_fcn, classes=21, size=(64, 64)))
    monkeypatch.setitem(TABLE, "short_unet", Entry(short_unet, classes=11, size=(64, 64)))
