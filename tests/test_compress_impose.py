"""Imposed masks: budgets met and tight, every layer accounted for, projections exact, originals untouched."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import Budget, computed, count, impose, masks
from cosparse.compress.layers import block_size, choose
from cosparse.errors import Error
from tests.compress_nets import Awkward, seeded

EXAMPLE = torch.zeros(1, 3, 12, 12)


@pytest.mark.parametrize(
    "budget", [Budget(flops=0.6), Budget(params=0.7), Budget(flops=0.6, params=0.8), Budget(flops=0.85, params=0.5)], ids=str
)
def test_resnet56_meets_its_budget_within_a_fifth_of_a_point(budget: Budget) -> None:
    example = zoo.example("resnet56")
    report = count(impose(zoo.build("resnet56"), budget, example), example)
    over = [
        got - asked
        for got, asked in ((report.flops_reduction, budget.flops), (report.params_reduction, budget.params))
        if asked is not None
    ]
    assert min(over) >= 0
    assert min(over) <= 0.002


def test_vgg16_reaches_the_published_budget_with_blocks_of_eight() -> None:
    """-94.8 % of the parameters and -76.8 % of the operations together: very uneven densities, and a floor that leaves room for them."""
    example = zoo.example("vgg16")
    report = count(impose(zoo.build("vgg16"), Budget(flops=0.768, params=0.948), example), example)
    assert 0.948 <= report.params_reduction < 0.9485
    assert 0.768 <= report.flops_reduction < 0.7685
    density = {layer.name: layer.density for layer in report.layers if not layer.form.startswith("dense")}
    assert len(density) == 12
    assert min(density.values()) >= 0.02
    assert density["features.10"] > 10 * density["features.40"]


def test_floor_is_the_budgets() -> None:
    """A lower floor reaches further, a higher one keeps more of the weakest layer; the message says what the floor was."""
    example = zoo.example("resnet20")
    model = zoo.build("resnet20")
    with pytest.raises(
        Error, match=r"params -97\.\d% \(with 18 layers masked, 2% of each kept\), got params -98\.5%; .* lower Budget\.floor"
    ):
        impose(model, Budget(params=0.985), example)
    report = count(impose(model, Budget(params=0.985, floor=0.005), example), example)
    assert report.params_reduction >= 0.985
    assert 0.005 <= min(layer.density for layer in report.layers) < 0.01


@pytest.mark.parametrize("transform", ["dct", "identity"])
@pytest.mark.parametrize("block", [1, 4, 8, 16])
def test_every_layer_is_decided(transform: str, block: int) -> None:
    model = seeded(Awkward)
    choices = {c.name: c for c in choose(model, count(model, EXAMPLE), transform, block)}
    dense = {name: choice.why for name, choice in choices.items() if choice.transform is None}
    assert dense == {
        "stem": "reads 3 input channels: 27 columns in all",
        "depth": "depthwise: nothing to share among filters",
        "again": "reads 3 input channels: 3 columns in all",
        "up": "transposed convolution",
        "linear": "classifier: the last layer",
    }
    small = min(8, block)
    masked = {name: (str(choice.transform), choice.block) for name, choice in choices.items() if choice.transform is not None}
    assert masked == {
        "wide": ("identity", block),
        "point": ("identity", block),
        "tall": (transform, small),
        "narrow": ("identity", min(2, block)),
        "hidden": ("identity", small),
    }
    dear = "the basis step would cost 22% of the dense layer" if transform == "dct" else ""
    assert choices["wide"].why == dear


def test_table_says_what_was_done() -> None:
    """With uneven weights the small layers lose blocks too."""
    model = seeded(Awkward)
    with torch.no_grad():
        for module in (model.point, model.tall):
            module.weight[:, 1:] *= 1e-3
    form = {layer.name: layer.form for layer in count(impose(model, Budget(flops=0.6), EXAMPLE), EXAMPLE).layers}
    assert (form["point"], form["tall"]) == ("identity 8x1", "dct 8x1")
    assert form["wide"] == "identity 8x1: the basis step would cost 22% of the dense layer"
    assert form["stem"] == "dense: reads 3 input channels: 27 columns in all"


def test_weights_are_projected_and_the_original_is_untouched() -> None:
    model = seeded(Awkward)
    before = copy.deepcopy(model.state_dict())
    imposed = impose(model, Budget(flops=0.5), EXAMPLE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list(masks.masked(model))
    residues = {name: masks.residue(module) for name, module, _ in masks.masked(imposed)}
    assert residues
    assert max(residues.values()) < 1e-6


def test_masks_survive_a_copy_and_stay_out_of_the_state() -> None:
    imposed = impose(seeded(Awkward), Budget(flops=0.5), EXAMPLE)
    twin = copy.deepcopy(imposed)
    assert [name for name, _, _ in masks.masked(twin)] == [name for name, _, _ in masks.masked(imposed)]
    assert imposed.state_dict().keys() == seeded(Awkward).state_dict().keys()


def test_best_blocks_are_kept() -> None:
    """In one layer the rule is plain magnitude: every kept block holds at least the energy of every dropped one of its size."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 4, 1))
    imposed = impose(model, Budget(flops=0.5), torch.zeros(1, 8, 6, 6))
    energy = masks.block_energy(model[0].weight, "dct", 8)
    keep = imposed[0].cosparse.keep
    assert energy[keep].min() >= energy[~keep].max()


def test_transform_whose_basis_step_is_too_dear_gives_way() -> None:
    """One filter cannot pay for nine basis maps a channel: 10 of 9 multiply-adds."""
    model = nn.Sequential(
        nn.Conv2d(16, 1, 3, padding=1), nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 4, 1)
    )
    report = count(impose(model, Budget(flops=0.4), torch.zeros(1, 16, 8, 8)), torch.zeros(1, 16, 8, 8))
    assert report.layers[0].form == "identity 1x1: the basis step would cost 111% of the dense layer"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_layer_that_sparsity_makes_no_cheaper_is_left_dense(share: float) -> None:
    report = count(impose(seeded(Awkward), Budget(flops=share), EXAMPLE), EXAMPLE)
    assert report.flops_reduction >= share
    masked = [layer for layer in report.layers if not layer.form.startswith("dense")]
    assert all(layer.flops < layer.flops_dense for layer in masked)
    assert any("sparse it would cost 1" in layer.form for layer in report.layers)


def test_all_zero_layer() -> None:
    model = seeded(Awkward)
    nn.init.zeros_(model.wide.weight)
    report = count(impose(model, Budget(flops=0.85), EXAMPLE), EXAMPLE)
    wide = next(layer for layer in report.layers if layer.name == "wide")
    assert 0.02 <= wide.density < 0.05


def test_nan_weight_is_named() -> None:
    model = seeded(Awkward)
    with torch.no_grad():
        model.point.weight[0, 0] = float("nan")
    with pytest.raises(Error, match="weight of point: expected finite values"):
        impose(model, Budget(flops=0.5), EXAMPLE)


def test_impossible_budget_says_what_is_reachable() -> None:
    with pytest.raises(Error, match=r"expected at most flops -\d+\.\d%, params -\d+\.\d% .* got flops -99\.9%"):
        impose(seeded(Awkward), Budget(flops=0.999), EXAMPLE)


def test_layers_that_no_mask_fits_are_counted_with_their_reasons() -> None:
    computed = [nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1)) for _ in range(3)]
    model, example = nn.Sequential(nn.Conv2d(3, 16, 3), *computed), torch.zeros(1, 3, 12, 12)
    reasons = (
        r"4 of 4 layers are left dense: its weight is computed from other parameters: "
        r"torch.nn.utils.parametrize.remove_parametrizations\(m, 'weight'\) makes it plain \(3: 1, 2, \.\.\.\); "
        r"reads 3 input channels: 27 columns in all \(1: 0\)"
    )
    with pytest.raises(Error, match=rf"with 0 layers masked, .* lower Budget.floor \({reasons}\)"):
        impose(model, Budget(flops=0.3), example)
    with pytest.raises(Error, match=rf"budget: expected a layer that can keep 30%, got none: {reasons}"):
        impose(model, Budget(density=0.3), example)


def test_overrides_win_and_are_checked() -> None:
    model = seeded(Awkward)
    overrides = {"stem": "dct", "point": "dense", "linear": "identity"}
    choices = {c.name: c for c in choose(model, count(model, EXAMPLE), overrides=overrides)}
    assert [(str(choices[name].transform), choices[name].block, choices[name].why) for name in overrides] == [
        ("dct", 8, ""),
        ("None", 8, "as asked"),
        ("identity", 4, ""),
    ]
    with pytest.raises(Error, match=r"layers\['nowhere'\]"):
        impose(model, Budget(flops=0.3), EXAMPLE, layers={"nowhere": "dense"})
    with pytest.raises(Error, match=r"layers\['depth'\]: expected a layer that can carry a mask, got depthwise"):
        impose(model, Budget(flops=0.3), EXAMPLE, layers={"depth": "dct"})


@pytest.mark.parametrize(("filters", "size"), [(64, 8), (8, 8), (10, 8), (7, 4), (3, 2), (1, 1)])
def test_block_size_follows_the_filters(filters: int, size: int) -> None:
    assert block_size(filters, 8) == size


def test_last_layer_to_run_is_the_classifier() -> None:
    """Not the last to be defined; a layer that never runs and one whose weight is computed say so."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 4)
            self.unused = nn.Linear(16, 4)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
            self.body = nn.Linear(12, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.normed(self.body(x)))

    model = Net()
    report = count(model, torch.zeros(1, 12))
    why = {choice.name: choice.why for choice in choose(model, report)}
    assert why == {
        "body": "",
        "normed": "its weight is computed from other parameters: "
        "torch.nn.utils.parametrize.remove_parametrizations(m, 'weight') makes it plain",
        "head": "classifier: the last layer",
        "unused": "never runs on the example",
    }


class Idle(nn.Module):
    """Layers that run for nothing, one of them the last; `changed` is read through memory that is written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.project = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.changed, self.head, self.shape = nn.Conv2d(16, 16, 3), nn.Linear(16, 4), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        self.project(x)
        y = torch.zeros(x.shape[0], 16, x.shape[2] - 2, x.shape[3] - 2)
        y[:, :8] = self.changed(x)[:, 4:12]
        y = y.mean((2, 3))
        return self.head(y).view(self.shape(y).shape[0], -1)


def test_layers_whose_result_is_not_used_are_left_dense() -> None:
    imposed = impose(Idle(), Budget(density=0.5), EXAMPLE)
    report = count(imposed, EXAMPLE)
    assert {layer.name: layer.form for layer in report.layers if layer.name != "stem"} == {
        "project": "dense: its result is not used",
        "changed": "dct 8x1",
        "head": "dense: classifier: the last layer",
        "shape": "dense: its result is not used",
    }
    assert [layer["name"] for layer in json.loads(report.to_json())["layers"] if "used" in layer] == ["project", "shape"]


@pytest.mark.parametrize(
    ("wrap", "call"),
    [
        (nn.utils.parametrizations.orthogonal, "parametrize.remove_parametrizations(m, 'weight')"),
        (nn.utils.spectral_norm, "remove_spectral_norm(m)"),
        (lambda m: nn.utils.prune.l1_unstructured(m, "weight", 0.5), "prune.remove(m, 'weight')"),
    ],
)
def test_computed_weights_name_the_call_that_makes_them_plain(wrap: Callable[[nn.Module], nn.Module], call: str) -> None:
    module = wrap(nn.Linear(8, 8))
    assert computed.reason(module).endswith(f": torch.nn.utils.{call} makes it plain")
    eval(f"torch.nn.utils.{call}", {"torch": torch, "m": module})
    assert isinstance(module.weight, nn.Parameter)


def test_block_is_checked() -> None:
    with pytest.raises(Error, match="block: expected one of 1, 2, 4"):
        impose(seeded(Awkward), Budget(flops=0.3), EXAMPLE, block=6)


def test_mask_must_fit_its_layer() -> None:
    mask = masks.LayerMask("dct", 8, torch.ones(2, 90, dtype=torch.bool), 16, 9)
    with pytest.raises(Error, match="mask of Conv2d: expected 16 filters, 36 columns"):
        masks.attach(nn.Conv2d(4, 16, 3), mask)
    with pytest.raises(Error, match="mask: expected bool"):
        masks.LayerMask("dct", 8, torch.ones(1, 90, dtype=torch.bool), 16, 9)


def test_a_density_is_the_same_in_every_masked_layer() -> None:
    example = zoo.example("resnet20")
    report = count(impose(zoo.build("resnet20"), Budget(density=0.2), example), example)
    masked = [layer for layer in report.layers if not layer.form.startswith("dense")]
    assert len(masked) == len(report.layers) - 2
    for layer in masked:
        blocks = layer.params_dense / 8
        assert layer.params / 8 == round(0.2 * blocks)


def test_a_full_density_leaves_the_network_dense() -> None:
    example = zoo.example("resnet20")
    imposed = impose(zoo.build("resnet20"), Budget(density=1.0), example)
    assert not list(masks.masked(imposed))
    assert count(imposed, example).flops_reduction == 0
