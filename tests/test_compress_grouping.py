"""Grouped filters: more energy in the kept blocks, the same function, and a reason for every layer that keeps its order."""

from __future__ import annotations

import copy
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import NNCS, Budget, GroupReport, count, group_filters, impose, masks
from cosparse.compress.cluster import Profile, cluster, kept_energy
from tests.compress_nets import Awkward, seeded

pytest.importorskip("torch_pruning")

EPS = float(np.finfo(np.float64).eps)


class Stream(nn.Module):
    """A stem, two residual blocks, a depthwise layer, concatenation and two outputs: [N, 3, 8, 8] -> [N, 5], [N, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.a1, self.an, self.a2 = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.Conv2d(24, 16, 3, padding=1)
        self.act = nn.PReLU(24)
        self.b1, self.b2 = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 3, padding=1)
        self.depth = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.left, self.right = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
        self.out = nn.Conv2d(32, 24, 1)
        self.linear = nn.Linear(32 * 9, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.a2(self.act(self.an(self.a1(x)))))
        x = x + self.b2(torch.relu(self.depth(self.b1(x))))
        x = nn.functional.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        return self.linear(torch.relu(x).flatten(1)), self.out(x).mean((2, 3))


def same_function(model: nn.Module, grouped: nn.Module, x: torch.Tensor) -> None:
    """In float64 and to rounding: sums of a few thousand terms in another order, some layers deep."""
    with torch.no_grad():
        wanted, got = (copy.deepcopy(m).double().eval()(x.double()) for m in (model, grouped))
    for a, b in zip(*(y if isinstance(y, tuple) else (y,) for y in (wanted, got)), strict=True):
        assert float((a - b).abs().max()) <= 2**14 * EPS * float(a.abs().max())


def noise(example: torch.Tensor) -> torch.Tensor:
    return torch.randn((2, *example.shape[1:]), generator=torch.Generator().manual_seed(7))


def kept(report: GroupReport) -> dict[str, tuple[float, float, str]]:
    return {layer.name: (layer.before, layer.after, layer.why) for layer in report.layers}


def test_small_networks_of_every_kind_compute_the_same() -> None:
    torch.manual_seed(0)
    model = seeded(Stream)
    example = torch.zeros(1, 3, 8, 8)
    grouped = copy.deepcopy(model)
    found = kept(group_filters(grouped, example, block=4, density=0.3))
    same_function(model, grouped, noise(example))
    moved = {name for name, (before, after, why) in found.items() if after > before and not why}
    assert moved == {"a1", "b1", "a2", "b2", "left", "right"}
    assert found["out"][2] == "its channels leave the network, or nothing reads them"
    assert not torch.equal(model.stem.weight, grouped.stem.weight)  # the stream's first maker moves with it
    assert all(after >= before for before, after, why in found.values() if why)
    assert all(after == before for before, after, why in found.values() if why)


def test_report_is_what_blocks_then_hold() -> None:
    model = seeded(Stream)
    example = torch.zeros(1, 3, 8, 8)
    found = kept(group_filters(model, example, block=4, density=0.3))
    for name in ("a1", "b1"):
        energy = masks.block_energy(model.get_submodule(name).weight, "dct", 4).numpy()
        top = np.sort(energy.ravel())[::-1][: round(0.3 * energy.size)].sum() / energy.sum()
        assert found[name][1] == pytest.approx(top, rel=1e-9)
    again = copy.deepcopy(model)
    group_filters(again, example, block=4, density=0.3)
    same_function(model, again, noise(example))


def test_resnet20_computes_the_same(shared_data: Path) -> None:
    model = zoo.load_weights(zoo.build("resnet20"), shared_data / "cifar_resnet20_jpeg.safetensors")
    example = zoo.example("resnet20")
    grouped = copy.deepcopy(model)
    report = group_filters(grouped, example)
    same_function(model, grouped, noise(example))
    gained = {layer.name: layer.after - layer.before for layer in report.layers if not layer.why}
    assert set(gained) == {f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)}
    assert np.mean(list(gained.values())) > 0.03
    assert "layer3.2.conv1" in str(report)


def test_vgg16_computes_the_same() -> None:
    """A narrow copy of the zoo's layout: convolutions, normalisation, pooling, flattened into a linear layer."""
    torch.manual_seed(0)
    model = zoo.build("vgg16")
    for name, module in list(model.features.named_children()):
        if isinstance(module, nn.Conv2d):
            model.features[int(name)] = nn.Conv2d(
                -(-module.in_channels // 16) if module.in_channels > 3 else 3, module.out_channels // 16, 3, padding=1
            )
        elif isinstance(module, nn.BatchNorm2d):
            model.features[int(name)] = nn.BatchNorm2d(module.num_features // 16)
            nn.init.uniform_(model.features[int(name)].weight, 0.5, 1.5)
            nn.init.normal_(model.features[int(name)].bias)
    model.classifier = nn.Linear(32, 10)
    model.eval()
    example = zoo.example("vgg16")
    grouped = copy.deepcopy(model)
    report = group_filters(grouped, example, block=4)
    same_function(model, grouped, noise(example))
    assert all(not layer.why and layer.after > layer.before for layer in report.layers if layer.name not in ("features.3",))


def test_awkward_network_keeps_its_function_and_says_why() -> None:
    model = seeded(Awkward)
    example = torch.zeros(1, 3, 12, 12)
    grouped = copy.deepcopy(model)
    group_filters(grouped, example, block=4)
    same_function(model, grouped, noise(example))


class Weighted(nn.Module):
    """Each channel is multiplied by a number of its own, which the dependency graph does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x)
        return self.two(y * torch.arange(16.0, device=y.device, dtype=y.dtype)[:, None, None])


def test_an_order_that_changes_an_output_is_taken_back() -> None:
    model = seeded(Weighted)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = kept(group_filters(model, torch.zeros(1, 8, 6, 6)))
    assert found["one"][2] == "its channels depend on each other in a way the dependency graph does not see"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_found(seed: int) -> None:
    """Rows with disjoint heavy columns, shuffled: all of them are put back together."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.eye(6), 4, axis=0).repeat(5, axis=1) + 0.01 * rng.random((24, 30))
    profile = Profile(rows[rng.permutation(24)], 4, 1 / 6)
    assert kept_energy(profile) < 0.5
    assert kept_energy(profile, cluster([profile])) > 0.95


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 7])
def test_small_layers_against_every_order(rows: int) -> None:
    rng = np.random.default_rng(rows)
    profile = Profile(rng.exponential(size=(rows, 7)), 2, 0.3)
    order = cluster([profile])
    assert sorted(order) == list(range(rows))
    values = [kept_energy(profile, np.array(p)) for p in permutations(range(rows))]
    got = kept_energy(profile, order)
    assert got >= kept_energy(profile)
    assert got > max(values) - 0.25 * (max(values) - min(values)) - 1e-12


def test_no_energy_and_no_gain_leave_the_order() -> None:
    assert list(cluster([Profile(np.zeros((8, 5)), 4, 0.2)])) == list(range(8))
    assert list(cluster([Profile(np.ones((8, 5)), 4, 0.2)])) == list(range(8))


def test_impose_and_nncs_group_first() -> None:
    model = seeded(Stream)
    example = torch.zeros(1, 3, 8, 8)
    budget = Budget(density=0.3)

    def energy(m: nn.Module) -> float:
        return float(sum(module.weight.detach().square().sum() for _, module, _ in masks.masked(m)))

    assert energy(impose(model, budget, example, 4, group=True)) > 1.01 * energy(impose(model, budget, example, 4))
    grouped = copy.deepcopy(model)
    nncs = NNCS(grouped, Budget(flops=0.5), example, block=4, group=True)
    same_function(model, grouped, noise(example))
    assert nncs.grouped is not None
    assert nncs.settings()["group"] is True
    assert {layer.density for layer in nncs.grouped.layers} != {0.2}
    assert count(grouped, example).params_dense == count(model, example).params_dense


def test_what_cannot_be_grouped_is_said() -> None:
    model, example = seeded(Stream), torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"density: expected a share in \(0, 1\], got 0"):
        group_filters(model, example, density=0)
    masked = impose(model, Budget(density=0.5), example)
    with pytest.raises(ValueError, match="group_filters: expected a model without masks, got one that has them"):
        group_filters(masked, example)
    with torch.no_grad():
        model.a1.weight[0] = float("nan")
    with pytest.raises(ValueError, match="weight of a1: expected finite values"):
        group_filters(model, example)
