"""Filters removed: the share is met, residual channels and outputs stay, the original is untouched, and the rest is the network's own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import cosparse
from cosparse.bench import zoo
from cosparse.compress import Budget, count, export, impose, impose_filters
from cosparse.errors import Error

pytest.importorskip("torch_pruning")


def filters(model: nn.Module) -> dict[str, int]:
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


@pytest.mark.parametrize(("name", "flops"), [("resnet20", 0.4), ("vgg16", 0.6), ("resnet50", 0.581)])
def test_the_share_is_met_and_not_exceeded_by_more_than_a_step(name: str, flops: float) -> None:
    example = zoo.example(name)
    if name == "resnet50":
        example = example[..., :64, :64]  # shares do not depend on the image's size, time does
    model = zoo.build(name)
    before, after = count(model, example), count(impose_filters(model, flops, example), example)
    got = 1 - after.flops_dense / before.flops_dense
    assert flops <= got < flops + 0.03
    assert all(layer.shape[0] % 8 == 0 for layer in after.layers if layer.kind == "Conv2d")


def test_channels_that_a_pixel_shuffle_moves_stay() -> None:
    """With 6 channels half of the 24 that are shuffled happens to fit the reader's 6, which has none of the others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 24, 3), nn.PixelShuffle(2), nn.Conv2d(6, 3, 3))
    assert filters(impose_filters(model, 0.05, torch.zeros(1, 3, 16, 16), multiple=1)) == {"0": 5, "1": 24, "3": 3}


def test_inner_layers_lose_filters_and_residual_ones_do_not() -> None:
    model = zoo.build("resnet18")
    state = copy.deepcopy(model.state_dict())
    example = torch.zeros(1, 3, 64, 64)
    before, after = filters(model), filters(impose_filters(model, 0.4, example))
    less = {name for name in before if after[name] < before[name]}
    assert less == {name for name in before if name.startswith("layer") and name.endswith("conv1")}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_filters_without_weight_go_first_and_the_answer_stays() -> None:
    """A network half of whose filters are zero loses those, so its outputs do not change at all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(32, 16, 3, bias=False)).eval()
    dead = torch.randperm(32)[:16]
    with torch.no_grad():
        model[0].weight[dead] = 0
        model[2].weight[:, dead] = 0
    example = torch.randn(2, 3, 12, 12)
    pruned = impose_filters(model, 0.5, example)
    assert filters(pruned) == {"0": 16, "2": 16}
    torch.testing.assert_close(pruned(example), model(example))


def test_depthwise_layers_follow_the_layer_before() -> None:
    net = nn.Sequential(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 8, 1))
    pruned = impose_filters(net, 0.5, torch.zeros(1, 8, 8, 8))
    assert filters(pruned) == {"0": 32, "1": 32, "2": 8}


def test_masks_come_on_top_and_the_file_runs(tmp_path: Path) -> None:
    example = zoo.example("resnet20")
    model = impose(impose_filters(zoo.build("resnet20"), 0.3, example), Budget(density=0.5), example)
    export(model, example, tmp_path / "m.cosparse", name="m")
    got = cosparse.load(tmp_path / "m.cosparse", threads=1)(example.numpy())
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), model(example), rtol=1e-4, atol=1e-4)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return x + self.two(x)


def test_what_cannot_be_done_is_said() -> None:
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(Error, match="a layer whose filters can go, got none"):
        impose_filters(Sum(), 0.5, example)
    with pytest.raises(Error, match=r"flops: expected a share in \[0, 1\), got 1\.5"):
        impose_filters(Sum(), 1.5, example)
    with pytest.raises(Error, match=r"filters: expected at most -\d+\.\d% multiply-adds \(9 layers, 8 filters of each kept\), got -95\.0%"):
        impose_filters(zoo.build("resnet20"), 0.95, zoo.example("resnet20"))
