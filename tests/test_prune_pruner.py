"""FilterPruner: the budget is met closely, redundant filters go, runs repeat and go on, and what cannot be done is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_nets import Residual, seeded
from prune_nets import net
from test_compress_latency import table_of
from test_compress_width_latency import widths_of
from torch import nn

import cosparse
from cosparse.compress import NNCS, Budget, FilterPruner, Latency, count, export, impose
from cosparse.compress.prune import architecture
from cosparse.compress.prune.coupling import coupled
from cosparse.compress.prune.statistics import reestimate
from cosparse.errors import Error

pytest.importorskip("torch_pruning")

EXAMPLE = torch.zeros(1, 1, 8, 8)
QUICK = {"evaluations": 12, "calibration": 2, "scoring": 2, "multiple": 4}


def batches(count: int = 6, size: int = 16, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images whose class is the brightest of ten places."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        x, y = torch.randn(size, 1, 8, 8, generator=generator), torch.randint(0, 10, (size,), generator=generator)
        x[torch.arange(size), 0, 1 + y // 5, y % 5] += 6
        made.append((x, y))
    return made


def residual() -> nn.Module:
    return seeded(lambda: Residual(32))  # type: ignore[arg-type]


def states(model: nn.Module) -> dict[str, list]:
    return {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("bounds", [{"flops": 0.5}, {"params": 0.6}, {"flops": 0.3, "params": 0.6}])
def test_the_budget_is_met_and_little_more(bounds: dict[str, float]) -> None:
    model = residual()
    before = states(model)
    pruner = FilterPruner(budget=Budget(**bounds), **QUICK).fit(model, batches(), EXAMPLE)
    now, was = count(pruner.model, EXAMPLE), count(model, EXAMPLE)
    room = {"flops": 1 - now.flops_dense / was.flops_dense, "params": 1 - now.params_dense / was.params_dense}
    assert all(room[name] >= share for name, share in bounds.items())
    assert min(room[name] - share for name, share in bounds.items()) < 0.08
    assert pruner.report.flops_reduction == pytest.approx(room["flops"])
    assert states(model) == before
    assert pruner.dense is model
    assert not pruner.model.training
    assert all(width % 4 == 0 for _, width in pruner.report.search["groups"].values())


def test_time_is_a_budget_too(tmp_path: Path) -> None:
    model = residual()
    table = widths_of(model)
    path = tmp_path / "widths.json"
    path.write_text(table.to_json())
    pruner = FilterPruner(budget=Budget(latency=Latency(path, share=0.4)), **QUICK).fit(model, batches(), EXAMPLE)
    us = table.other_us + sum(table.layers[one.name].at(one.after[0], one.after[1]) for one in pruner.report.layers)
    assert 0.8 * 0.6 * table.dense_us < us <= 0.6 * table.dense_us
    masks = tmp_path / "masks.json"
    masks.write_text(table_of(impose(model, Budget(density=0.5), EXAMPLE)).to_json())
    with pytest.raises(Error, match=r"masks\.json: expected times by width .*, got times by mask .*bench\.width_table"):
        FilterPruner(budget=Budget(latency=Latency(masks, share=0.4)))


def test_filters_that_others_can_replace_are_found() -> None:
    """Half of the inner layer's filters are copies: without them the network, folded, is what it was, on many images, as few would ask for
    a ridge. The residual group has none."""
    model, many = residual(), batches(count=4, size=2048)
    with torch.no_grad():
        for value in (model.conv3.weight, model.bn3.weight, model.bn3.bias):
            value[1::2] = value[::2]
    reestimate(model, [x for x, _ in many[: QUICK["calibration"]]])  # the pruned network's are taken on these
    pruner = FilterPruner(budget=Budget(flops=0.15), residual=False, **QUICK).fit(model, many, EXAMPLE)
    plain = FilterPruner(budget=Budget(flops=0.15), residual=False, fold=False, **QUICK).fit(model, many, EXAMPLE)
    x = batches()[0][0]
    assert pruner.report.search["groups"] == {"conv3": [64, 32]}
    with torch.no_grad():
        folded, unfolded = ((made.model(x) - model(x)).abs().max() for made in (pruner, plain))
        assert folded < 0.02 * model(x).abs().max()
        assert folded < 0.1 * unfolded
    why = {layer.name: layer.why for layer in pruner.report.layers}
    assert why["conv1"] == why["conv2"] == "2 layers make its channels"
    assert why["linear"] == "they leave the network"
    assert why["conv3"] == ""


@pytest.mark.parametrize("search", ["pso", "random", "uniform", "greedy", "cma-es"])
def test_every_search_ends_within_the_budget(search: str) -> None:
    if search == "cma-es":
        pytest.importorskip("cma")
    pruner = FilterPruner(search=search, budget=Budget(flops=0.4), **QUICK).fit(residual(), batches(), EXAMPLE)
    assert pruner.report.flops_reduction >= 0.4
    assert pruner.report.search["search"] == search
    assert np.isfinite(pruner.found.fitness)


def test_equal_seeds_give_equal_networks_and_others_do_not() -> None:
    def run(seed: int) -> tuple[dict[str, list], list[float]]:
        made = FilterPruner("random", budget=Budget(flops=0.5), seed=seed, **QUICK).fit(residual(), batches(), EXAMPLE)
        return states(made.model), made.report.search["history"]

    assert run(0) == run(0)
    assert run(0)[0] != run(7)[0]


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    whole = FilterPruner(budget=Budget(flops=0.5), **QUICK).fit(residual(), batches(), EXAMPLE)
    path = tmp_path / "search.json"

    def stops(what: str, done: int, of: int) -> None:
        if what.startswith("searching, ") and done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FilterPruner(budget=Budget(flops=0.5), **QUICK).fit(residual(), batches(), EXAMPLE, save_to=path, progress=stops)
    assert path.exists()
    other = FilterPruner("magnitude", budget=Budget(flops=0.5), **QUICK)
    with pytest.raises(Error, match=r"search\.json: expected the state of a swarm with .*'importance': 'magnitude'.*, got another search"):
        other.fit(residual(), batches(), EXAMPLE, save_to=path, resume=True)
    again = FilterPruner(budget=Budget(flops=0.5), **QUICK).fit(residual(), batches(), EXAMPLE, save_to=path, resume=True)
    assert again.report.search["groups"] == whole.report.search["groups"]
    assert states(again.model) == states(whole.model)


def test_a_pruned_network_is_taken_over_from_its_file(tmp_path: Path) -> None:
    made = FilterPruner(budget=Budget(flops=0.5), **QUICK).fit(residual(), batches(), EXAMPLE)
    path = tmp_path / "start.safetensors"
    made.save(path)
    again = FilterPruner(budget=Budget(flops=0.5), **QUICK).restore(residual(), EXAMPLE, path)
    assert states(again.model) == states(made.model)
    assert str(again.report) == str(made.report)
    assert again.found == made.found
    architecture.save(made.model, path, {"search": {**made.settings(), "groups": 3}})
    with pytest.raises(Error, match=r"start\.safetensors: expected what a search found"):
        FilterPruner(budget=Budget(flops=0.5), **QUICK).restore(residual(), EXAMPLE, path)
    made.save(path)
    with pytest.raises(Error, match=r"same settings, got budget .*0\.5.* instead of .*0\.4"):
        FilterPruner(budget=Budget(flops=0.4), **QUICK).restore(residual(), EXAMPLE, path)


def test_fine_tuning_learns_from_the_dense_network_and_reports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pruner = FilterPruner(budget=Budget(flops=0.5), **QUICK).fit(residual(), batches(), EXAMPLE)
    history = pruner.finetune(batches(20), batches(2, seed=9), (1, 2), lr=0.05, warmup=5, save_to=tmp_path / "training.safetensors")
    assert [entry["epoch"] for entry in history.epochs] == [1, 2, 3]
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]
    assert history.settings["budget"] == {"flops": 0.5}
    assert history.settings["lr"] == 0.05
    report = export(pruner.model, EXAMPLE, tmp_path / "small.cosparse")
    assert report.difference < 1e-4
    assert cosparse.load(tmp_path / "small.cosparse")(np.zeros((3, 1, 8, 8), np.float32)).shape == (3, 10)


def test_masks_come_after_filters(tmp_path: Path) -> None:
    pruner = FilterPruner(budget=Budget(flops=0.4), **QUICK).fit(residual(), batches(), EXAMPLE)
    nncs = NNCS(pruner.model, Budget(flops=0.5), EXAMPLE)
    history = nncs.fit(batches(), None, (1, 1), teacher=pruner.dense, lr=0.01)
    assert 1 - history.report.flops / pruner.report.before.flops_dense >= 1 - 0.6 * 0.5
    with pytest.raises(Error, match="prune filters first, then mask what is left"):
        FilterPruner(budget=Budget(flops=0.1)).fit(pruner.model, batches(), EXAMPLE)


def test_the_table_names_every_layer() -> None:
    model, example = net("mobilenet_v2")
    data = [(torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)) for _ in range(2)]
    quick = {"evaluations": 4, "calibration": 1, "scoring": 1, "multiple": 8, "importance": "magnitude"}
    pruner = FilterPruner(search="random", budget=Budget(flops=0.2), **quick).fit(model, data, example)
    names = [layer.name for layer in count(model, example).layers]
    assert [layer.name for layer in pruner.report.layers] == names
    text = str(pruner.report)
    assert all(name in text for name in names)
    assert "classifier.1" in text
    assert "they leave the network" in text
    document = json.loads(pruner.report.to_json())
    assert len(document["layers"]) == len(names)
    assert document["flops_reduction"] >= 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": "guess"}, "importance: expected one of self-representation"),
        ({"search": "guess"}, "search: expected one of pso"),
        ({"scale": "guess"}, "scale: expected one of raw"),
        ({"precision": "int8"}, "precision: expected one of float32"),
        ({"budget": None}, "budget: expected shares of flops, params or latency, got none"),
        ({"budget": Budget(density=0.5)}, "got a density"),
        ({"target": "tpu"}, "target: expected one of cpu, cuda"),
        ({"max_rate": 1.0}, r"max_rate: expected a share in \(0, 1\)"),
        ({"evaluations": 0}, "at least 1 evaluation"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(Error, match=message):
        FilterPruner(**{"budget": Budget(flops=0.5), **options})


def test_what_cannot_be_done_is_said() -> None:
    model = residual()
    with pytest.raises(Error, match=r"fit\(model, train_loader, example\) first"):
        _ = FilterPruner(budget=Budget(flops=0.5)).model
    with pytest.raises(Error, match=r"train_loader: expected 3 batches for statistics, and more for scoring .*, got 3 batches"):
        FilterPruner(budget=Budget(flops=0.5), calibration=3, multiple=4).fit(model, batches(3), EXAMPLE)
    with pytest.raises(
        Error, match=r"budget: expected at most flops -\d+\.\d% .\d groups of channels, 16 or more of each kept., got flops -95\.0%"
    ):
        FilterPruner(budget=Budget(flops=0.95), calibration=1, multiple=16).fit(model, batches(), EXAMPLE)
    with pytest.raises(Error, match=r"filters: expected a group that may lose channels, got .*32 channels, of which 64 stay in any case"):
        FilterPruner(budget=Budget(flops=0.5), multiple=64).fit(model, batches(), EXAMPLE)
    assert coupled(model, EXAMPLE).free
