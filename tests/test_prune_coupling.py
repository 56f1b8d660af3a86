"""Channels that go together: the smaller network gives what the whole one gives when nobody reads what went; costs are what count says."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from prune_nets import NETS, Detector, Stubborn, net
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import count
from cosparse.compress.prune.costs import costs
from cosparse.compress.prune.coupling import Coupling, coupled
from cosparse.compress.prune.cut import cut, ignoring
from cosparse.compress.prune.dependency import dependencies
from cosparse.errors import Error, UnsupportedError

pytest.importorskip("torch_pruning")


@functools.cache
def groups_of(name: str) -> Coupling:
    return coupled(*net(name))


def some(coupling: Coupling, seed: int, least: float = 0.3, most: float = 0.9) -> dict[str, np.ndarray]:
    """Channels that stay, at random, of every group that may lose some."""
    rng, kept = np.random.default_rng(seed), {}
    for group in coupling.free:
        size = group.channels // group.sections
        stay = max(1, round(size * rng.uniform(least, most)))
        chosen = np.concatenate([s * size + rng.permutation(size)[:stay] for s in range(group.sections)])
        kept[group.name] = np.union1d(chosen, [part[0] for part in group.parts]).astype(np.int64)
    return kept


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = model.double()(x.double())
    return y["out"] if isinstance(y, dict) else y


@pytest.mark.parametrize("name", NETS)
def test_the_smaller_network_is_the_one_that_ignores_what_went(name: str) -> None:
    model, example = net(name)
    coupling, generator = groups_of(name), torch.Generator().manual_seed(1)
    kept = some(coupling, seed=3)
    assert len(kept) >= 2
    x = torch.randn(2, *example.shape[1:], generator=generator)
    small, masked = cut(model, coupling.groups, kept), ignoring(model, coupling.groups, kept)
    assert count(small, example).params_dense < 0.8 * count(model, example).params_dense
    want, got = outputs(masked, x), outputs(small, x)
    assert (want - outputs(model, x)).abs().max() > 1e-6 * want.abs().max()
    assert (got - want).abs().max() <= 1e-9 * want.abs().max()


@pytest.mark.parametrize("name", NETS)
def test_costs_of_widths_are_those_of_the_smaller_network(name: str) -> None:
    model, example = net(name)
    coupling = groups_of(name)
    free, before = coupling.free, count(model, example)
    made = costs(model, before, free)
    whole = [group.channels for group in free]
    assert made.flops(whole) == pytest.approx(before.flops_dense, rel=1e-12)
    assert made.params(whole) == pytest.approx(before.params_dense, rel=1e-12)
    kept = some(coupling, seed=5)
    after = count(cut(model, coupling.groups, kept), example)
    widths = [len(kept[group.name]) for group in free]
    assert made.flops(widths) == pytest.approx(after.flops_dense, rel=1e-12)
    assert made.params(widths) == pytest.approx(after.params_dense, rel=1e-12)


def test_every_free_group_matters() -> None:
    """No group is free by mistake of the check: each, alone, makes its own layers smaller and keeps the outputs' shape."""
    model, example = net("joined")
    for group in groups_of("joined").free:
        kept = {group.name: np.arange(group.channels // 2)}
        small = cut(model, groups_of("joined").groups, kept)
        assert count(small, example).params_dense < count(model, example).params_dense
        assert outputs(small, example).shape == (1, 5)


def test_one_group_holds_a_concatenation_and_the_layer_it_is_added_to() -> None:
    found = {group.name: {(m.module, m.axis): (len(m.index), m.index.min()) for m in group.members} for group in groups_of("joined").groups}
    joined = [members for members in found.values() if ("a", "out") in members]
    assert any(("c", "out") in members and ("d", "in") in members for members in joined)
    covered = sum(members[("d", "in")][0] for members in found.values() if ("d", "in") in members)
    assert covered == 32


def test_grouped_convolutions_keep_as_many_in_each_part() -> None:
    coupling = groups_of("grouped")
    sections = {group.name: group.sections for group in coupling.groups}
    assert sections["a"] == sections["b"] == 4
    model, _ = net("grouped")
    with pytest.raises(Error, match="as many channels in each of 4 sections, got 0 to 8"):
        cut(model, coupling.groups, {"a": np.arange(8)})


def test_what_must_stay_whole_says_why() -> None:
    torch.manual_seed(0)
    coupling = coupled(Stubborn().eval(), torch.zeros(1, 3, 6, 6))
    why = {group.name: group.why for group in coupling.groups}
    assert [group.name for group in coupling.free] == ["free"]
    assert why["last"] == "they leave the network"
    assert "shares its weight" in why["tied"] + why.get("twin", "")
    assert "moved or mixed" in why.get("shifted", "") + why.get("narrow", "")
    assert why["mixed"] == "norm (GroupNorm) cannot be made smaller"


def test_the_search_for_a_group_ends_where_slices_are_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-pruning's own search finds thousands of lists of the same channels there, and more in larger heads than can be waited for."""
    from torch_pruning.dependency import group

    added, add = [], group.Group.add_dep

    def counted(self: Any, dep: Any, idxs: Any) -> None:
        added.append(dep)
        assert len(added) < 500
        add(self, dep, idxs)

    monkeypatch.setattr(group.Group, "add_dep", counted)
    example = torch.zeros(1, 3, 8, 8)
    groups = list(dependencies(Detector(), (example,)).get_all_groups())
    assert len(groups) == 2
    free = [group.name for group in coupled(Detector(), (example,)).free]
    assert free == ["body"]


def test_padded_shortcuts_of_cifar_networks_are_left_alone() -> None:
    why = {group.name: group.why for group in groups_of("resnet20").groups}
    assert sum("moved or mixed" in reason for reason in why.values()) == 1
    assert {name for name, reason in why.items() if not reason} == {f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)}


def test_only_the_inner_layers_of_a_block_have_one_maker() -> None:
    makers = {group.name: group.makers for group in groups_of("residual").groups}
    assert makers["conv3"] == 1
    assert max(makers[name] for name in ("conv1", "conv2") if name in makers) == 2


def test_unused_names_and_wrong_channels_are_refused() -> None:
    model, _ = net("residual")
    groups = groups_of("residual").groups
    with pytest.raises(Error, match=r"kept\['nothing'\].*no such group"):
        cut(model, groups, {"nothing": np.arange(3)})
    with pytest.raises(Error, match="they leave the network"):
        cut(model, groups, {"linear": np.arange(3)})
    joined, _ = net("joined")
    whole = next(group for group in groups_of("joined").free if group.parts)
    with pytest.raises(Error, match="a channel of each of the"):
        cut(joined, groups_of("joined").groups, {whole.name: whole.parts[0]})
    for channels in (np.array([], dtype=int), np.array([3, 2]), np.array([0, 40])):
        with pytest.raises(Error, match=r"kept\['conv3'\].*ascending channels out of 32"):
            cut(model, groups, {"conv3": channels})


def test_a_network_that_the_library_cannot_follow_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match=r"ShuffleNetV2.*NNCS needs no groups"):
        coupled(zoo.build("shufflenet_v2_x1_0"), torch.zeros(1, 3, 64, 64))


def test_the_model_is_left_as_it_was() -> None:
    model, example = net("grouped")
    model.train()
    model.a.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    coupled(model, example)
    assert model.training
    assert not model.a.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert math.prod(model.a.weight.shape) == 32 * 3 * 9
