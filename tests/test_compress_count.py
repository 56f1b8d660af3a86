"""Counts: published totals, repeated and functional use, masked layers, and a model left as it was."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import Budget, count, impose
from cosparse.errors import Error
from tests.compress_nets import Awkward, seeded


def conv_flops(report) -> float:
    return sum(layer.flops_dense for layer in report.layers if layer.kind == "Conv2d")


@pytest.mark.parametrize(("name", "millions"), [("resnet56", 125.5), ("resnet110", 252.9)])
def test_published_conv_totals(name: str, millions: float) -> None:
    assert conv_flops(count(zoo.build(name), zoo.example(name))) / 1e6 == pytest.approx(millions, abs=0.05)


def test_resnet50() -> None:
    with torch.device("meta"):
        from cosparse.bench.zoo.table import TABLE

        model = TABLE["resnet50"].make(1000)
        report = count(model, torch.empty(1, 3, 224, 224))
    assert conv_flops(report) / 1e6 == pytest.approx(4087, abs=1)
    assert report.params_dense == 25_557_032


def test_batch_does_not_count() -> None:
    model = seeded(Awkward)
    assert count(model, torch.randn(1, 3, 12, 12)) == count(model, torch.randn(5, 3, 12, 12))


def test_shared_module_is_charged_for_every_call() -> None:
    layers = {layer.name: layer for layer in count(seeded(Awkward), torch.randn(1, 3, 12, 12)).layers}
    assert (layers["again"].calls, layers["again"].params_dense, layers["again"].flops_dense) == (2, 9, 2 * 9 * 36)
    assert layers["up"].flops_dense == 3 * 6 * 4 * 36
    assert layers["depth"].flops_dense == 20 * 9 * 36
    assert layers["hidden"].flops_dense == 72


def test_functional_use_is_counted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.taps = nn.Parameter(torch.randn(4, 4, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(self.conv(x), self.taps, padding=1)

    report = count(Net(), torch.randn(2, 4, 5, 5))
    assert report.flops_functional == report.layers[0].flops_dense == 4 * 4 * 9 * 25
    assert report.params_dense == 144 + 4 + 144
    assert "(functional)" in str(report)


def test_tied_weights_are_stored_once() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    report = count(Net(), torch.randn(1, 8, 9, 9))
    assert report.params_dense == 576
    assert report.flops_dense == 576 * (49 + 25)


def test_masked_layer_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(6, 10, 3, padding=1, bias=False), nn.Conv2d(10, 10, 3, padding=1))
    example = torch.randn(1, 6, 7, 7)
    masked = impose(model, Budget(flops=0.2), example, layers={"1": "dense"})
    layer, keep = count(masked, example).layers[0], masked[0].cosparse.keep
    kept = int(keep[0].sum()) * 8 + int(keep[1].sum()) * 2
    used = int(keep.any(0).reshape(6, 9).any(1).sum())
    assert (layer.params, layer.flops_coefficients, layer.flops_basis) == (kept, kept * 49, used * 10 * 49)


def test_training_mode_and_statistics_are_left_alone() -> None:
    model = seeded(Awkward)
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, torch.randn(2, 3, 12, 12))
    assert model.training
    assert not model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.stem._forward_hooks


def test_json_and_table_say_the_same() -> None:
    report = count(seeded(Awkward), torch.randn(1, 3, 12, 12))
    loaded = json.loads(report.to_json())
    assert loaded["flops_dense"] == sum(layer["flops_dense"] for layer in loaded["layers"]) + loaded["flops_functional"]
    assert all(layer.name in str(report) for layer in report.layers)


def test_example_is_checked() -> None:
    with pytest.raises(Error, match="example: expected a tensor"):
        count(seeded(Awkward), [1, 2])
