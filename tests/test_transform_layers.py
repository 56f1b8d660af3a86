"""Transforms in masked networks: chosen per layer, charged, kept over a restart."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from cosparse.compress import NNCS, Budget, checkpoint, count, impose, masks, transforms
from cosparse.compress.layers import choose
from cosparse.errors import Error
from tests.compress_nets import Awkward, Mixed, Residual, seeded

NAMES = ["dct-channels:5", "dct+walsh:4", "walsh-filters:4", "dct+two-sided-dct:6", "klt"]
X = torch.randn(2, 9, 13, 12, generator=torch.Generator().manual_seed(1))


def test_layers_take_what_they_are_asked_for() -> None:
    model = seeded(Awkward)
    example = torch.zeros(1, 3, 12, 12)
    overrides = {"wide": "klt", "point": "two-sided-walsh:16", "tall": "dct+walsh:4", "narrow": "random:2"}
    choices = {c.name: c for c in choose(model, count(model, example), "walsh:4!", 8, overrides)}
    chosen = {name: (str(c.transform), c.why) for name, c in choices.items() if c.transform is not None}
    assert chosen == {
        "wide": ("klt", ""),
        "point": ("two-sided-walsh:16", ""),
        "tall": ("dct+walsh:4", ""),
        "narrow": ("random:2", ""),
        "hidden": ("walsh:4", ""),
    }
    with pytest.raises(Error, match="transform: expected one of identity, dct, "):
        choose(model, count(model, example), overrides={"wide": "dense!"})


@pytest.mark.parametrize("name", ["klt", "random:0"])
def test_controls_can_be_forced_on_every_layer_with_taps(name: str) -> None:
    """81 products a channel are 45 % of a dense 3x3 layer of 20 filters; the mask keeps 60 %, and stays."""
    model = seeded(Mixed)
    free = count(impose(model, Budget(density=0.6), X, transform=name), X)
    assert free.layers[0].form == "identity 8x1: the basis step would cost 45% of the dense layer"
    forced = {layer.name: layer for layer in count(impose(model, Budget(density=0.6), X, transform=f"{name}!"), X).layers}
    assert {layer: forced[layer].form for layer in ("first", "wide", "five")} == dict.fromkeys(("first", "wide", "five"), f"{name} 8x1")
    assert forced["first"].flops > forced["first"].flops_dense


@pytest.mark.parametrize("transform", NAMES)
@pytest.mark.parametrize("budget", [Budget(flops=0.5), Budget(flops=0.4, params=0.6)], ids=str)
def test_budgets_pay_for_transforms(transform: str, budget: Budget) -> None:
    """Steps before and behind the product, and matrices, are inside the budget, by the count's own account."""
    report = count(impose(seeded(Mixed), budget, X, transform=transform), X)
    assert report.flops_reduction >= (budget.flops or 0)
    assert report.params_reduction >= (budget.params or 0)


def test_a_budget_of_parameters_pays_for_forced_matrices() -> None:
    report = count(impose(seeded(Mixed), Budget(params=0.7), X, transform="klt:8!"), X)
    assert 0.7 <= report.params_reduction < 0.701
    assert sum(layer.params_matrices for layer in report.layers) > 0.02 * report.params_dense


def test_count_of_a_two_sided_layer() -> None:
    """16 filters and 20 channels in tiles of 8: 3 units of 8 channels at 1.5, and 16 outputs at 1.5, on each of 36 pixels."""
    model = nn.Sequential(nn.Conv2d(20, 16, 1), nn.Conv2d(16, 4, 1))
    example = torch.zeros(1, 20, 6, 6)
    imposed = impose(model, Budget(density=0.5), example, layers={"0": "two-sided-walsh:8!"})
    layer = count(imposed, example).layers[0]
    assert layer.flops_basis == (3 * 8 * 1.5 + 16 * 1.5) * 36
    assert layer.flops_coefficients == layer.params * 36
    keep = torch.zeros(2, 20, dtype=torch.bool)
    keep[1, 3] = True
    masks.attach(imposed[0], masks.LayerMask("two-sided-walsh:8", 8, keep, 16, 1))
    assert imposed[0].cosparse.channels_used() == 8
    assert count(imposed, example).layers[0].flops_basis == (8 * 1.5 + 16 * 1.5) * 36


def test_matrices_count_as_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(20, 40, 1), nn.Conv2d(40, 16, 3), nn.Conv2d(16, 4, 1))
    example = torch.zeros(1, 20, 6, 6)
    report = count(impose(model, Budget(density=0.5), example, transform="klt:8!"), example)
    assert [layer.params_matrices for layer in report.layers] == [2 * 64, 81, 2 * 64]
    assert report.params == sum(layer.params for layer in report.layers) + 2 * 128 + 81 + report.params_other


def test_klt_is_fitted_anew_when_the_masks_are_chosen() -> None:
    model = seeded(Residual)
    nncs = NNCS(model, Budget(density=0.5), torch.zeros(1, 1, 8, 8), transform="klt!")
    before = {choice.name: choice.transform for choice in nncs.choices}
    with torch.no_grad():
        model.conv2.weight.mul_(torch.linspace(0.1, 2, 9).reshape(3, 3))
    fitted = transforms.parse("klt").fitted(model.conv2.weight)
    nncs.mask()
    assert model.conv2.cosparse.transform == fitted != before["conv2"]
    assert model.conv3.cosparse.transform == before["conv3"]
    nncs.finish()


@pytest.mark.parametrize("transform", ["klt!", "random:5!", "dct+two-sided-walsh:8!"])
def test_masks_come_back_from_a_checkpoint_bit_for_bit(tmp_path: Path, transform: str) -> None:
    model = impose(seeded(Mixed), Budget(density=0.5), X, transform=transform)
    tensors, notes = masks.to_tensors(model)
    checkpoint.save(tmp_path / "run.safetensors", {"mask": tensors}, {"layers": notes})
    groups, found = checkpoint.load(tmp_path / "run.safetensors")
    twin = seeded(Mixed)
    masks.from_tensors(twin, groups["mask"], found["layers"])
    twin.load_state_dict(model.state_dict())
    before, after = ({name: mask for name, _, mask in masks.masked(net)} for net in (model, twin))
    assert before.keys() == after.keys()
    for name, mask in before.items():
        assert after[name].transform == mask.transform
        assert torch.equal(after[name].keep, mask.keep)
    for net in (model, twin):
        masks.project(net.wide)
    assert torch.equal(model.wide.weight, twin.wide.weight)


def test_a_mask_survives_a_copy_with_its_matrices() -> None:
    model = impose(seeded(Mixed), Budget(density=0.5), X, transform="random:5!")
    twin = copy.deepcopy(model)
    for (_, _, mask), (_, _, other) in zip(masks.masked(model), masks.masked(twin), strict=True):
        assert mask.transform == other.transform


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 1, 8, 8, generator=generator), torch.randint(0, 10, (8,), generator=generator)) for _ in range(3)]
    options = {"lr": 0.05, "distill": 0.0}

    def fresh() -> NNCS:
        return NNCS(seeded(Residual), Budget(density=0.3), torch.zeros(1, 1, 8, 8), transform="klt!")

    def interrupt(at: object) -> None:
        if at.epoch == 2 and at.step == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    whole, resumed = fresh(), fresh()
    whole.fit(batches, None, (1, 2), **options)
    with pytest.raises(KeyboardInterrupt):
        fresh().fit(batches, None, (1, 2), save_to=tmp_path / "run", progress=interrupt, **options)
    resumed.fit(batches, None, (1, 2), save_to=tmp_path / "run", resume=True, **options)
    for (name, value), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
