"""Masks in two levels: both budgets hold, the rule explains every block, the limits are the plain masks, and a GPU sees what was opened."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cosparse.compress import NNCS, Budget, Regrow, checkpoint, count, export, impose, masks
from cosparse.compress.budget import FLOOR
from cosparse.compress.count import Report
from cosparse.compress.data import DIGITS, Batches, digits
from cosparse.compress.hierarchy import Hierarchy, select_in_groups
from cosparse.compress.impose import thresholds
from cosparse.compress.layers import choose
from cosparse.compress.regrow import exchange, regrow_masks
from cosparse.compress.select import Candidates, Selection, Unreachable, select, select_share
from cosparse.engine import artifact
from cosparse.errors import Error
from cosparse.kernels.gpu.groups import coefficient_groups
from tests.compress_nets import Residual, imported, seeded

EXAMPLE = torch.zeros(1, 8, 8, 8)


class Net(nn.Module):
    """[N, 8, 8, 8] -> [N, 5]: 72, 40 and 64 filters, so that groups of 64 and of 32 end in partial ones; a linear layer of 44."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 72, 3, padding=1)
        self.point = nn.Conv2d(72, 40, 1)
        self.last = nn.Conv2d(40, 64, 3, padding=1)
        self.hidden = nn.Linear(64, 44)
        self.linear = nn.Linear(44, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.last(torch.relu(self.point(torch.relu(self.first(x))))))
        return self.linear(torch.relu(self.hidden(x.mean((2, 3)))))


def uneven(seed: int = 0) -> nn.Module:
    """Weights of a wide range of sizes, by column and by block row."""
    model = seeded(Net, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                shape = module.weight.shape
                module.weight *= torch.randn((1, *shape[1:]), generator=generator).exp()
                module.weight *= torch.randn((-(-shape[0] // 8), *shape[1:]), generator=generator).exp().repeat_interleave(8, 0)[: shape[0]]
    return model


def kept(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: mask.full for name, _, mask in masks.masked(model)}


def energy(model: nn.Module) -> float:
    return sum(float(module.weight.detach().double().square().sum()) for _, module, _ in masks.masked(model))


def bound_of_masked(report: Report, share: float) -> float:
    """Multiply-adds that a budget leaves to the masked layers."""
    others = sum(layer.flops for layer in report.layers if layer.opened is None)
    return (1 - share) * report.flops_dense - others


def random_layers(seed: int) -> list[Candidates]:
    """Three layers of 8 x 1 blocks; the second ends in half a block and in a partial group of 32 filters."""
    rng = np.random.default_rng(seed)
    sizes = ([8.0] * 8, [8.0] * 5 + [4.0], [8.0] * 4)
    return [
        Candidates(str(i), rng.exponential(size=(len(size), 54)) ** 2, np.array(size), pixels, 3.0 * pixels, 9)
        for i, (size, pixels) in enumerate(zip(sizes, (64.0, 16.0, 4.0), strict=True))
    ]


def pick_within(params: float, flops: float, floor: float = 0.0):
    def pick(layers: list[Candidates], slack: float = 1.0) -> Selection:
        return select(layers, slack * params, slack * flops, floor=floor)

    return pick


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("params", "flops"), [(np.inf, 40000.0), (1200.0, np.inf), (1200.0, 40000.0)])
@pytest.mark.parametrize("slack", [1.0, 1.2, 2.0])
def test_both_levels_keep_within_their_bounds(seed: int, params: float, flops: float, slack: float) -> None:
    layers = random_layers(seed)
    chosen = select_in_groups(layers, Hierarchy(32, slack), pick_within(params, flops))
    assert chosen.bounded is not None
    spent, open_spent = np.zeros(2), np.zeros(2)
    for layer, keep, level, bounded in zip(layers, chosen.keep, chosen.levels, chosen.bounded, strict=True):
        opened = np.isfinite(bounded)
        assert not (keep & ~opened).any()
        for start in range(0, len(keep), 4):
            assert (opened[start : start + 4] == opened[start]).all()
        for which, total in ((keep, spent), (opened, open_spent)):
            coefficients = float((which * layer.size[:, None]).sum())
            total += (coefficients, coefficients * layer.pixels + masks.units_used(which, layer.taps) * layer.basis)
        assert np.all(keep[opened & (layer.energy >= level * layer.size[:, None])])  # the rule, among open columns
    assert spent == pytest.approx((chosen.params, chosen.flops))
    assert np.all(spent <= (params, flops))
    assert np.all(open_spent <= (slack * params, slack * flops))
    assert params - spent[0] < 8 * 4 or flops - spent[1] < 32 * 64 + 3 * 64  # one of the two is used up


def test_no_choice_of_columns_and_blocks_is_better() -> None:
    """Against every choice at equal cost in a layer of two groups of two blocks and three columns; each budget is what the rule spent."""
    for seed in range(20):
        layer = Candidates("a", np.random.default_rng(seed).exponential(size=(4, 3)) ** 2, np.ones(4), 1.0, 0.0, 1)
        chosen = select_in_groups([layer], Hierarchy(2, 1.4), pick_within(5.0, np.inf))
        keep = chosen.keep[0]
        columns = keep.reshape(2, 2, 3).any(1).sum()
        best = 0.0
        for bits in product([False, True], repeat=12):
            other = np.array(bits).reshape(4, 3)
            if other.sum() <= keep.sum() and other.reshape(2, 2, 3).any(1).sum() <= columns:
                best = max(best, float(layer.energy[other].sum()))
        assert float(layer.energy[keep].sum()) >= 0.93 * best  # rounds are no exhaustive search; within 7 % in all twenty


@pytest.mark.parametrize("transform", ["dct", "identity"])
@pytest.mark.parametrize("budget", [Budget(flops=0.6), Budget(params=0.7), Budget(flops=0.6, params=0.75)], ids=str)
@pytest.mark.parametrize("slack", [1.0, 1.25, 1.5])
def test_networks_meet_the_budget_and_the_bound(transform: str, budget: Budget, slack: float) -> None:
    model = impose(uneven(), budget, EXAMPLE, transform=transform, group_rows=64, slack=slack)
    report = count(model, EXAMPLE)
    assert set(report.opened) >= {"first", "point", "last"}
    over = [getattr(report, f"{name}_reduction") - share for name in ("flops", "params") if (share := getattr(budget, name)) is not None]
    assert 0 <= min(over) < 0.01
    opened = sum(layer.opened * layer.flops_dense + layer.flops_basis for layer in report.layers if layer.opened is not None)
    if budget.flops is not None:
        assert opened <= slack * bound_of_masked(report, budget.flops) * (1 + 1e-12)
    if budget.params is not None:
        others = report.params_dense - sum(layer.params_dense for layer in report.layers if layer.opened is not None)
        coefficients = sum(layer.opened * layer.params_dense for layer in report.layers if layer.opened is not None)
        assert coefficients <= slack * ((1 - budget.params) * report.params_dense - others) + 1e-6
    for layer in report.layers:
        if layer.opened is not None:
            assert FLOOR <= layer.density <= layer.opened <= 1
            assert layer.density < layer.opened or slack == 1
    assert max(masks.residue(module) for _, module, _ in masks.masked(model)) < 1e-6


@pytest.mark.parametrize("budget", [Budget(flops=0.6), Budget(flops=0.5, params=0.7), Budget(density=0.3)], ids=str)
def test_slack_one_is_the_masks_of_whole_columns(budget: Budget) -> None:
    layers = {"point": "dense"}  # of 40 filters: 64 x 1 blocks would be 32 x 1 there
    whole = impose(uneven(), budget, EXAMPLE, block=64, layers={**layers, "hidden": "dense"})
    mine = impose(uneven(), budget, EXAMPLE, block=8, group_rows=64, slack=1, layers={**layers, "hidden": "dense"})
    assert kept(whole).keys() == kept(mine).keys() == {"first", "last"}
    assert all(torch.equal(kept(whole)[name], kept(mine)[name]) for name in kept(whole))
    for _, _, mask in masks.masked(mine):
        assert torch.equal(mask.keep, mask.open_blocks())


def test_a_slack_that_binds_nothing_is_the_masks_of_single_blocks() -> None:
    plain = kept(impose(uneven(), Budget(flops=0.6), EXAMPLE))
    loose = kept(impose(uneven(), Budget(flops=0.6), EXAMPLE, group_rows=64, slack=100))
    assert all(torch.equal(plain[name], loose[name]) for name in plain)


def test_more_slack_opens_more_and_keeps_more() -> None:
    budget, found = Budget(flops=0.75), []
    for options in ({"block": 64}, *({"group_rows": 64, "slack": slack} for slack in (1.1, 1.3, 1.6)), {}):
        model = impose(uneven(), budget, EXAMPLE, **options)
        found.append((energy(model), count(model, EXAMPLE).flops_opened if "slack" in options else None))
    assert [pair[0] for pair in found] == sorted(pair[0] for pair in found)
    opened = [pair[1] for pair in found if pair[1] is not None]
    assert opened == sorted(opened)


@pytest.mark.parametrize("rows", [16, 32, 64])
@pytest.mark.parametrize("slack", [1.25, 2.0])
def test_a_density_bounds_every_layer(rows: int, slack: float) -> None:
    model = impose(uneven(), Budget(density=0.2), EXAMPLE, group_rows=rows, slack=slack)
    for _, _, mask in masks.masked(model):
        assert int(mask.keep.sum()) == round(0.2 * mask.keep.numel())
        groups, columns = mask.open_columns().shape
        assert groups == -(-mask.filters // rows)
        per_group = mask.keep.shape[0] / groups
        assert int(mask.open_blocks().sum()) <= slack * 0.2 * mask.keep.numel() + max(per_group, rows // mask.block)
        assert columns == mask.keep.shape[1]


@pytest.mark.parametrize("transform", ["dct", "identity"])
def test_a_gpu_merges_block_rows_into_the_open_columns(transform: str, tmp_path: Path) -> None:
    """The union of columns in the artifact is what the masks opened, and the provenance has the densities."""
    model = impose(uneven(), Budget(flops=0.6, params=0.7), EXAMPLE, transform=transform, group_rows=64)
    report = export(model, EXAMPLE, tmp_path / "net.cosparse", name="net")
    graph = artifact.read(tmp_path / "net.cosparse")
    layers = {name: mask for name, _, mask in masks.masked(model)}
    assert set(layers) == {"first", "point", "last", "hidden"}
    for name, mask in layers.items():
        node = graph.node(name)
        assert node.attrs["block"] == 8
        groups = coefficient_groups(node, 64)
        group, column = np.nonzero(mask.open_columns().numpy())
        np.testing.assert_array_equal(groups.columns, column)
        np.testing.assert_array_equal(np.repeat(np.arange(len(groups)), np.diff(groups.starts)), group)
        if mask.filters % 64 == 0:
            assert groups.density == pytest.approx(mask.opened)
    assert graph.provenance["opened"] == pytest.approx({name: mask.opened for name, mask in layers.items()})
    assert graph.provenance["flops_opened"] == pytest.approx(report.counts.flops_opened)
    table = str(report.counts)
    assert "open" in table.splitlines()[0].split()
    assert f"{layers['last'].opened:.1%}" in next(line for line in table.splitlines() if line.startswith("last"))
    assert f"{transform} 8x1 in 64" in table


def test_reports_without_groups_say_nothing_of_them() -> None:
    report = count(impose(uneven(), Budget(flops=0.6), EXAMPLE), EXAMPLE)
    assert "open" not in str(report).splitlines()[0]
    assert "opened" not in report.to_json()
    assert "flops_opened" not in report.totals()


def test_step_one_pulls_whole_columns_at_slack_one() -> None:
    """The share of itself by which the eliminated penalty pulls each block, min(1, cut / norm), is that of 64 x 1 blocks."""
    model, budget = uneven(), Budget(flops=0.6)
    layers = {"point": "dense", "hidden": "dense"}
    report = count(model, EXAMPLE)
    small, large = (choose(model, report, "dct", block, layers) for block in (8, 64))
    cuts = thresholds(small, report, budget, groups=Hierarchy(64, 1.0))
    whole = thresholds(large, report, budget)
    for choice, other in zip(small, large, strict=True):
        if choice.transform is None:
            continue
        norm, column = (masks.block_energy(c.module.weight, c.transform, c.block).sqrt() for c in (choice, other))  # type: ignore[arg-type]
        mine = (cuts[choice.name] / norm).clamp(max=1)
        theirs = (whole[choice.name][:, None] / column).clamp(max=1).repeat_interleave(8, 0)[: len(mine)]
        torch.testing.assert_close(mine, theirs.to(mine), rtol=1e-5, atol=1e-6)
        assert 0 < int((mine == 1).sum()) < mine.numel()


def test_step_one_pulls_closed_columns_in_full() -> None:
    model, budget = uneven(), Budget(flops=0.75)
    nncs = NNCS(model, budget, EXAMPLE, group_rows=64, slack=1.25)
    cuts, before = (
        nncs._cuts(),
        {name: module.weight.detach().clone() for name, module in model.named_modules() if hasattr(module, "weight")},
    )
    plain = NNCS(uneven(), budget, EXAMPLE)._cuts()
    nncs.mask()
    for name, _, mask in masks.masked(model):
        assert before[name].shape[0] == mask.filters
        closed = ~mask.open_blocks()
        assert bool((mask.keep <= cuts[name].isfinite()).all())
        assert bool(cuts[name][closed].isinf().float().mean() > 0.9)  # but for open columns that no block was worth keeping in
        assert bool(plain[name].isfinite().all())


def train(nncs: NNCS, path: Path | None, resume: bool = False, stop_after: int | None = None) -> None:
    images = digits()[0]
    batches = Batches(images, DIGITS, 256, shuffle=True, seed=1)

    def stop(history: object) -> None:
        if stop_after is not None and len(history) == stop_after:  # type: ignore[arg-type]
            raise KeyboardInterrupt

    nncs.fit(batches, None, (1, 2), lr=0.05, save_to=path, resume=resume, on_epoch=stop)


@pytest.mark.parametrize("score", ["energy", "fisher"])
def test_a_resumed_run_ends_alike(score: str, tmp_path: Path) -> None:
    def fresh() -> NNCS:
        options = {"group_rows": 16, "slack": 1.2, "score": score, "regrow": Regrow(every=3)}
        return imported(NNCS(seeded(Residual), Budget(flops=0.6), torch.zeros(1, 1, 8, 8), block=4, **options))

    whole = fresh()
    train(whole, None)
    for after in (1, 2):  # before and after the masks
        first, second = fresh(), fresh()
        with pytest.raises(KeyboardInterrupt):
            train(first, tmp_path / f"c{after}", stop_after=after)
        train(second, tmp_path / f"c{after}", resume=True)
        assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True))
    rows = {name: mask.group_rows for name, _, mask in masks.masked(second.model)}
    assert set(rows.values()) == {16}
    report = count(second.model, torch.zeros(1, 1, 8, 8))
    assert report.flops_reduction >= 0.6
    opened = sum(layer.opened * layer.flops_dense + layer.flops_basis for layer in report.layers if layer.opened is not None)
    assert opened <= 1.2 * bound_of_masked(report, 0.6) * (1 + 1e-12)  # masks that moved too
    _, notes = checkpoint.load(tmp_path / "c2")
    assert '"group_rows": 16' in json.dumps(notes)
    assert whole.settings()["group_rows"] == 16
    assert whole.settings()["slack"] == 1.2


def test_settings_without_groups_do_not_mention_them() -> None:
    assert not {"group_rows", "slack"} & set(NNCS(uneven(), Budget(flops=0.5), EXAMPLE).settings())


def test_masks_that_move_open_no_column() -> None:
    model = impose(uneven(), Budget(flops=0.6), EXAMPLE, group_rows=64, slack=1.3)
    before = {name: (mask.open_blocks(), mask.kept()) for name, _, mask in masks.masked(model)}
    generator = torch.Generator().manual_seed(1)
    for _, module, _ in masks.masked(model):
        module.weight.grad = torch.randn(module.weight.shape, generator=generator)
    assert regrow_masks(model, 0.3) > 0
    for name, _, mask in masks.masked(model):
        assert not bool((mask.keep & ~before[name][0]).any())
        assert mask.kept() == before[name][1]
        assert mask.group_rows == 64


def test_a_layer_without_enough_open_blocks_rests() -> None:
    keep = torch.tensor([[True, True, False, False]])
    energy, pull = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    allowed = torch.tensor([[False, True, False, False]])
    assert torch.equal(exchange(keep, energy, pull, 1, 0.5, (slice(0, 1),), allowed), keep)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_rows": 60}, "group_rows: expected a multiple of the block's 8 filters, got 60"),
        ({"group_rows": 4}, "group_rows: expected a multiple"),
        ({"group_rows": 64, "slack": 0.9}, "slack: expected a number from 1, which means whole columns, got 0.9"),
        ({"group_rows": 64, "slack": float("nan")}, "slack: expected a number from 1"),
        ({"slack": 1.5}, "slack: expected group_rows, whose open columns it bounds, got none"),
    ],
)
def test_settings_are_checked(options: dict, message: str) -> None:
    with pytest.raises(Error, match=message):
        impose(uneven(), Budget(flops=0.5), EXAMPLE, **options)
    with pytest.raises(Error, match=message):
        NNCS(uneven(), Budget(flops=0.5), EXAMPLE, **options)


def test_a_mask_checks_its_groups() -> None:
    with pytest.raises(Error, match="mask: expected group_rows 0 or a multiple of its 8 filters a block, got 12"):
        masks.LayerMask("dct", 8, torch.ones(2, 90, dtype=torch.bool), 16, 9, group_rows=12)


def test_an_impossible_budget_says_what_is_reachable() -> None:
    with pytest.raises(Error, match=r"expected at most flops -97\.\d%, params -96\.\d% .* got flops -99\.9%"):
        impose(uneven(), Budget(flops=0.999), EXAMPLE, group_rows=64)


def test_a_column_that_costs_more_than_its_bound_is_refused() -> None:
    """Two of eighty blocks fit into 20 coefficients, a whole column of 64 does not fit into 1.5 times as many."""
    layer = Candidates("a", np.ones((8, 10)), np.full(8, 8.0), 1.0, 0.0, 1)
    with pytest.raises(Unreachable) as caught:
        select_in_groups([layer], Hierarchy(64, 1.5), pick_within(20.0, np.inf, FLOOR))
    assert caught.value.least == pytest.approx((64 / 1.5, 64 / 1.5, 0.0))


def test_a_share_counts_blocks_of_partial_columns() -> None:
    """Columns of one block and of four: a share of columns is a share of blocks, so that enough blocks are open."""
    layer = Candidates("a", np.array([[1.0] * 10, [9.0] * 10]), np.array([32.0, 8.0]), 1.0, 0.0, 1, parts=np.array([4.0, 1.0]))
    chosen = select_share([layer], 0.4)
    assert chosen.keep[0].sum(1).tolist() == [3, 10]  # 10 + 3 * 4 >= 20 blocks of 50
