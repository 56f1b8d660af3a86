"""The parts of filter pruning: order, fold, statistics, rounding, the file of a pruned network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prune_nets import net
from safetensors.torch import load_file, save_file
from torch import nn

from cosparse.compress.prune import architecture
from cosparse.compress.prune.coupling import ChannelGroup, Member, coupled
from cosparse.compress.prune.cut import cut
from cosparse.compress.prune.moments import MOST, RIDGE, Moments, fold, moments, replacement, ridge
from cosparse.compress.prune.order import following, kept, orders
from cosparse.compress.prune.rounding import Rounding
from cosparse.compress.prune.statistics import reestimate
from cosparse.errors import Error

pytest.importorskip("torch_pruning")


class Planted(nn.Module):
    """Filters 0..4 are free; 5..11 are combinations of them with non-negative weights; so are the values, as no activation bends them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.second = nn.Conv2d(12, 8, 3, padding=1)
        free = torch.randn(5, 3, 3, 3, generator=generator)
        mix = torch.rand(7, 5, generator=generator)
        mix /= mix.sum(1, keepdim=True)
        with torch.no_grad():
            self.first.weight.copy_(torch.cat([free, torch.einsum("ij,jklm->iklm", mix, free)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).mean((2, 3))


def as_of_many_images(few: Moments) -> Moments:
    return replace(few, ridges=dict.fromkeys(few.ridges, RIDGE))


EXAMPLE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(2))


def planted() -> tuple[nn.Module, ChannelGroup]:
    torch.manual_seed(0)
    model = Planted().eval()
    return model, coupled(model, EXAMPLE).free[0]


@pytest.mark.parametrize("importance", ["self-representation", "activations"])
def test_filters_that_the_others_are_made_of_stay_last(importance: str) -> None:
    model, group = planted()
    made = orders(model, [group], importance, moments=moments(model, [group], [EXAMPLE]), share=0.01)
    assert sorted(made["first"]) == list(range(12))
    assert set(made["first"][-5:]) == set(range(5))


def test_magnitude_and_random_are_what_they_say() -> None:
    model, group = planted()
    by_norm = model.first.weight.detach().flatten(1).norm(dim=1)
    assert orders(model, [group], "magnitude")["first"].tolist() == by_norm.argsort().tolist()
    assert orders(model, [group], "random", seed=1)["first"].tolist() == orders(model, [group], "random", seed=1)["first"].tolist()
    assert orders(model, [group], "random", seed=1)["first"].tolist() != orders(model, [group], "random", seed=2)["first"].tolist()
    with pytest.raises(Error, match="importance: expected one of self-representation"):
        orders(model, [group], "guess")
    with pytest.raises(Error, match="moments of the channels"):
        orders(model, [group], "activations")


def test_sections_are_ranked_one_by_one() -> None:
    model, example = net("grouped")
    groups = [group for group in coupled(model, example).free if group.sections == 4]
    for group in groups:
        order = orders(model, [group])[group.name]
        assert [sorted(order[s * 8 : (s + 1) * 8]) for s in range(4)] == [list(range(s * 8, (s + 1) * 8)) for s in range(4)]
        stays = kept(group, order, 12)
        assert np.bincount(stays // 8).tolist() == [3, 3, 3, 3]
        assert set(stays) == {order[s * 8 + i] for s in range(4) for i in (5, 6, 7)}


def test_layers_of_one_group_weigh_the_same() -> None:
    """Two layers add up: the second is a thousand times larger, which must not decide alone."""
    weights = torch.eye(4), 1000 * torch.eye(4)
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    with torch.no_grad():
        model["a"].weight.copy_(weights[0] * torch.tensor([1.0, 5.0, 1.0, 1.0]))
        model["b"].weight.copy_(weights[1] * torch.tensor([1.0, 1.0, 1.0, 1.1]))
    index = np.arange(4)
    group = ChannelGroup("a", 4, 1, (Member("a", "out", index, index), Member("b", "out", index, index)))
    assert orders(model, [group], "magnitude")["a"][-1] == 1


def test_batch_norm_scales_where_it_is_asked_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.ones_like(model[0].weight))
        model[1].weight.copy_(torch.tensor([3.0, 1, 5, 2, 6, 4]))
    follows = following(model, (torch.zeros(1, 3, 8, 8),))
    assert follows == {"0": "1"}
    group = next(group for group in coupled(model, torch.zeros(1, 3, 8, 8)).free if group.name == "0")
    assert orders(model, [group], "magnitude", scale="bn", follows=follows)["0"].tolist() == [1, 3, 0, 5, 2, 4]


def test_the_fold_carries_what_linear_combinations_can_carry() -> None:
    model, group = planted()
    inner = moments(model, [group], [EXAMPLE])
    stays = {"first": np.arange(5)}
    with torch.no_grad():
        want, plain = model(EXAMPLE), cut(model, [group], stays)(EXAMPLE)
        fold(model, [group], stays, as_of_many_images(inner))
        got = cut(model, [group], stays)(EXAMPLE)
    assert (got - want).abs().max() < 5e-3 * want.abs().max()
    assert (plain - want).abs().max() > 0.1 * want.abs().max()


@pytest.mark.parametrize("images", [20, 80, 400])
def test_the_ridge_is_near_the_best_for_images_it_has_not_seen(images: int) -> None:
    """Eigenvalues that fall like 1/i, as those of layers do: no ridge of a grid is better on the true moments by more than a tenth."""
    rng = np.random.default_rng(images)
    turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    root = turn * np.sqrt(1 / np.arange(1, 41))
    true = root @ root.T
    sample = rng.standard_normal((images, 40)) @ root.T
    inner, stays, dropped = sample.T @ sample / images, np.arange(0, 40, 2), np.arange(1, 40, 2)

    def error(parts: float) -> float:
        b = replacement(inner, stays, dropped, parts)
        cross = true[np.ix_(stays, dropped)]
        return float(np.trace(true[np.ix_(dropped, dropped)]) - 2 * (b * cross).sum() + (b * (true[np.ix_(stays, stays)] @ b)).sum())

    assert error(ridge(inner, images)) < 1.1 * min(error(parts) for parts in 10.0 ** np.arange(-6, 1.1, 0.5))
    if images == 20:
        assert error(RIDGE) > 2 * error(ridge(inner, images))


def test_the_ridge_has_bounds() -> None:
    assert ridge(np.eye(3), 100) == 1.0
    assert ridge(np.diag([1.0, 0.0, 0.0]), 10**9) == RIDGE
    assert ridge(np.zeros((2, 2)), 5) in (RIDGE, 1.0)


def test_moments_are_those_of_what_layers_read() -> None:
    model, group = planted()
    with torch.no_grad():
        values = model.first(EXAMPLE.double().float()).movedim(1, -1).reshape(-1, 12).double()
    want = (values.T @ values / len(values)).numpy()
    got = moments(model, [group], [EXAMPLE[:1], EXAMPLE[1:]]).matrices["second"]
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_the_fold_of_grouped_transposed_and_flattened_readers() -> None:
    """Twins: whichever of two equal channels goes, its twin takes over, and nothing changes."""
    model, example = net("grouped")
    groups = coupled(model, example).free
    with torch.no_grad():
        for layer in (model.a, model.c):
            axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            weight = layer.weight.transpose(0, 1) if axis else layer.weight
            weight[1::2] = weight[::2]
            layer.bias[1::2] = layer.bias[::2]
    x = torch.randn(16, *example.shape[1:], generator=torch.Generator().manual_seed(4))
    inner = moments(model, groups, [x])
    stays = {"a": np.arange(0, 32, 2), "c": np.arange(1, 24, 2)}
    with torch.no_grad():
        want = model(x)
        fold(model, groups, stays, as_of_many_images(inner))
        got = cut(model, groups, stays)(x)
    assert (got - want).abs().max() < 2e-3 * want.abs().max()


def test_dead_channels_and_wide_readers_are_no_trouble() -> None:
    assert replacement(np.zeros((4, 4)), np.array([0, 1]), np.array([2, 3])).tolist() == [[0, 0], [0, 0]]
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Flatten(), nn.Linear(8 * 625, 3)).eval()
    example = torch.zeros(1, 1, 25, 25)
    group = next(group for group in coupled(model, example).free if group.name == "0")
    assert MOST < 8 * 625
    assert moments(model, [group], [example]).matrices == {}


def test_running_statistics_are_the_mean_over_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    unused = nn.BatchNorm2d(5)
    model.unused = unused
    model.forward = lambda x: nn.Sequential.forward(nn.Sequential(*list(model)[:4]), x)
    batches = [torch.randn(4, 2, 5, 5) + i for i in range(3)]
    with torch.no_grad():
        values = [model[0](x) for x in batches]
    reestimate(model, batches)
    mean = torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0)
    variance = torch.stack([v.var((0, 2, 3)) for v in values]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules() if module is not unused)
    assert unused.running_mean.tolist() == [0] * 5


def group(name: str, channels: int, sections: int = 1) -> ChannelGroup:
    index = np.arange(channels)
    return ChannelGroup(name, channels, sections, (Member(name, "out", index, index),))


def test_widths_are_multiples_or_everything() -> None:
    rounding = Rounding.of([group("a", 64), group("b", 20), group("c", 32, sections=4), group("d", 30, sections=3)], 8)
    assert rounding.steps == (8, 8, 8, 24)
    for rate in np.linspace(0, 1, 41):
        for width, one, step in zip(rounding.widths(np.full(4, rate)), rounding.groups, rounding.steps, strict=True):
            assert width == one.channels or (width % step == 0 and width >= step)
    assert rounding.widths(np.zeros(4)) == rounding.most == (64, 20, 32, 30)
    assert rounding.widths(np.ones(4)) == (8, 8, 8, 24)
    with pytest.raises(Error, match="multiple: expected at least 1"):
        Rounding.of([], 0)


def test_filling_comes_as_close_as_one_step_can() -> None:
    rounding = Rounding.of([group("a", 64), group("b", 64)], 8)
    over = lambda widths: (3 * widths[0] + widths[1]) / 160  # noqa: E731
    filled = rounding.filled((8, 8), over)
    assert over(filled) <= 1
    assert all(over(more) > 1 for more in ((filled[0] + 8, filled[1]), (filled[0], filled[1] + 8)) if max(more) <= 64)
    assert rounding.filled((64, 64), over) == (64, 64)


def test_a_pruned_network_comes_back_from_its_file(tmp_path: Path) -> None:
    for name in ("grouped", "mobilenet_v2", "joined"):
        model, example = net(name)
        coupling = coupled(model, example)
        small = cut(model, coupling.groups, {g.name: kept(g, orders(model, [g], "random")[g.name], g.sections * 2) for g in coupling.free})
        path = tmp_path / f"{name}.safetensors"
        architecture.save(small, path, {"about": name})
        again = architecture.restore(net(name)[0], path).eval()
        with torch.no_grad():
            assert torch.equal(again(example), small.eval()(example))
        assert architecture.read(path)["notes"] == {"about": name}


def test_files_that_are_no_pruned_network_are_refused(tmp_path: Path) -> None:
    model, example = net("grouped")
    path = tmp_path / "net.safetensors"
    architecture.save(model, path)
    tensors, about = load_file(path), architecture.read(path)

    def write(change) -> None:
        edited = json.loads(json.dumps(about))
        change(edited)
        save_file(tensors, path, metadata={architecture.KEY: json.dumps(edited)})

    cases = [
        (lambda e: e.update(version=2), "a description of layers, version 1"),
        (lambda e: e["layers"]["a"].update(out=0), "a description of layers"),
        (lambda e: e["layers"]["a"].update(out="8"), "a description of layers"),
        (lambda e: e["layers"].pop("a"), "a missing or unknown"),
        (lambda e: e["layers"]["a"].update(out=64), r": a: expected Conv2d .* or smaller"),
        (lambda e: e["layers"]["a"].update(kind="Linear"), ": a: expected Conv2d"),
        (lambda e: e["layers"]["b"].update(out=30), ": b: expected a multiple of 4 channels"),
        (lambda e: e["layers"]["a"].update(out=16), "the tensors of Grouped"),
    ]
    for change, message in cases:
        write(change)
        before = net("grouped")[0]
        with pytest.raises(Error, match=message):
            architecture.restore(before, path)
    save_file(tensors, path)
    with pytest.raises(Error, match="a pruned network's description, got none"):
        architecture.restore(model, path)
    path.write_bytes(b"nothing")
    with pytest.raises(Error, match="a safetensors file"):
        architecture.read(path)
    assert F.relu(example).shape == example.shape
