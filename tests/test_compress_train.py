"""The ready recipe on the bundled digits: it learns, resumes to the bit, keeps its checkpoint when the loss breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cosparse.compress import NNCS, Budget, checkpoint, masks
from cosparse.compress import export as export_to
from cosparse.compress.data import DIGITS, Batches, Images, digits
from cosparse.compress.importer import require_importable
from cosparse.compress.loop import Progress
from cosparse.compress.score import evaluate
from cosparse.errors import Error
from tests.compress_nets import Residual, imported, seeded

EXAMPLE = torch.zeros(1, 1, 8, 8)
SETTINGS = {"lr": 0.05, "warmup": 5}


@pytest.fixture(scope="module")
def sets() -> tuple[Images, Images]:
    return digits()


@pytest.fixture(scope="module")
def dense(sets: tuple[Images, Images]) -> dict[str, torch.Tensor]:
    """A dense network after eight plain epochs."""
    model = seeded(Residual).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    loader = training(sets)
    for _ in range(8):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.state_dict()


def training(sets: tuple[Images, Images]) -> Batches:
    return Batches(sets[0], DIGITS, 64, shuffle=True, augment=True, flip=False, pad=1, seed=1)


def validation(sets: tuple[Images, Images]) -> Batches:
    return Batches(sets[1], DIGITS, 256)


def fresh(dense: dict[str, torch.Tensor], flops: float = 0.6) -> NNCS:
    model = seeded(Residual)
    model.load_state_dict(dense)
    return imported(NNCS(model, Budget(flops=flops), EXAMPLE))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_fit_recovers_what_the_mask_costs(sets: tuple[Images, Images], dense: dict[str, torch.Tensor]) -> None:
    imposed = fresh(dense)
    imposed.mask()
    nncs = fresh(dense)
    whole = evaluate(nncs.model, validation(sets))
    history = nncs.fit(training(sets), validation(sets), (1, 2), **SETTINGS)
    before, after = evaluate(imposed.model, validation(sets)), evaluate(nncs.model, validation(sets))
    assert after.loss < 0.7 * before.loss
    assert after.accuracy > whole.accuracy - 0.05
    assert [(entry["epoch"], entry["phase"]) for entry in history.epochs] == [(1, 1), (2, 2), (3, 2)]
    assert history.epochs[-1]["accuracy"] == pytest.approx(after.accuracy, abs=0.01)
    assert 0.6 <= history.report.flops_reduction < 0.65
    assert all(masks.residue(module) < 1e-6 for _, module, _ in masks.masked(nncs.model))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_resumed_run_ends_with_the_same_weights(
    sets: tuple[Images, Images], dense: dict[str, torch.Tensor], tmp_path: Path, ema: float | None
) -> None:
    """Interrupted in the middle of an epoch, before and after the mask."""
    whole = fresh(dense)
    whole.fit(training(sets), None, (1, 2), ema=ema, **SETTINGS)

    for stop in (1, 2):

        def interrupt(at: Progress, stop: int = stop) -> None:
            if at.epoch == stop and at.step == 3:
                raise KeyboardInterrupt

        path = tmp_path / f"run{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            fresh(dense).fit(training(sets), None, (1, 2), ema=ema, save_to=path, progress=interrupt, **SETTINGS)
        resumed = fresh(dense)
        history = resumed.fit(training(sets), None, (1, 2), ema=ema, save_to=path, resume=True, **SETTINGS)
        assert same(whole.model, resumed.model)
        assert len(history.epochs) == 3
        assert not list(tmp_path.glob("*.part"))


def test_resume_of_other_settings_is_refused(sets: tuple[Images, Images], dense: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fresh(dense).fit(training(sets), None, (0, 1), save_to=path, **SETTINGS)
    with pytest.raises(Error, match=r"run\.safetensors: expected a checkpoint of the same settings, got lr 0\.05 instead of 0\.01"):
        fresh(dense).fit(training(sets), None, (0, 1), save_to=path, resume=True, **{**SETTINGS, "lr": 0.01})


def test_resume_wants_a_checkpoint(sets: tuple[Images, Images], dense: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(Error, match="expected a checkpoint of a training run"):
        fresh(dense).fit(training(sets), None, (0, 1), save_to=path, resume=True)
    path.write_bytes(b"damaged")
    with pytest.raises(Error, match="train again without resume"):
        fresh(dense).fit(training(sets), None, (0, 1), save_to=path, resume=True)
    with pytest.raises(Error, match="expected a checkpoint path in save_to"):
        fresh(dense).fit(training(sets), None, (0, 1), resume=True)


def test_broken_loss_keeps_the_last_checkpoint(sets: tuple[Images, Images], dense: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    nncs = fresh(dense)

    def poison(at: Progress) -> None:
        if at.epoch == 1 and at.step == 2:
            nncs.model.linear.bias.data.fill_(float("nan"))

    with pytest.raises(
        Error, match=r"loss in epoch 2, step 3: expected a finite number, got nan; lower lr; the last checkpoint, .*, is of epoch 1"
    ):
        nncs.fit(training(sets), None, (0, 2), save_to=path, progress=poison, **SETTINGS)
    groups, notes = checkpoint.load(path)
    assert notes["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in groups["model"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": (0, 0)}, "epochs: expected two counts, not both 0"),
        ({"lr": 0.0}, "recipe.lr: expected a finite number above 0, got 0.0"),
        ({"lr": float("nan")}, "recipe.lr: expected a finite number above 0, got nan"),
        ({"lr": float("inf")}, "recipe.lr: expected a finite number above 0, got inf"),
        ({"momentum": 1.0}, "recipe.momentum: expected a number from 0 to below 1, got 1.0"),
        ({"weight_decay": float("nan")}, "recipe.weight_decay: expected a finite number from 0, got nan"),
        ({"warmup": -1}, "recipe.warmup: expected a number of steps from 0, got -1"),
        ({"label_smoothing": 1.0}, "recipe.label_smoothing: expected a number from 0 to below 1, got 1.0"),
        ({"clip": "1"}, "recipe.clip: expected a positive norm, or None, got '1'"),
        ({"temperature": None}, "recipe.temperature: expected a finite number above 0, got None"),
        ({"distill": 1.5}, "recipe.distill: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_settings_are_checked(sets: tuple[Images, Images], dense: dict[str, torch.Tensor], options: dict, message: str) -> None:
    with pytest.raises(Error, match=message):
        fresh(dense).fit(training(sets), None, **options)


def test_loader_needs_a_length(sets: tuple[Images, Images], dense: dict[str, torch.Tensor]) -> None:
    with pytest.raises(Error, match="train_loader: expected a length"):
        fresh(dense).fit(iter(training(sets)), None, (0, 1))


def test_masked_model_goes_on_with_step_two_only(sets: tuple[Images, Images], dense: dict[str, torch.Tensor]) -> None:
    nncs = fresh(dense)
    nncs.mask()
    with pytest.raises(Error, match=r"epochs: expected \(0, n\)"):
        nncs.fit(training(sets), None, (1, 1))
    keep = {name: mask.keep.clone() for name, _, mask in masks.masked(nncs.model)}
    nncs.fit(training(sets), None, (0, 1), **SETTINGS)
    assert all(torch.equal(mask.keep, keep[name]) for name, _, mask in masks.masked(nncs.model))


def test_the_check_before_the_training_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has passed is not exported again; what has changed is, in its layers or its inputs, and what is refused is refused again."""
    exported: list[nn.Module] = []
    export = torch.export.export

    def counted(model: nn.Module, *rest: Any, **options: Any) -> Any:
        exported.append(model)
        return export(model, *rest, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

    def exports(example: torch.Tensor = EXAMPLE) -> int:
        before = len(exported)
        require_importable(model, example)
        return len(exported) - before

    assert exports() > 0
    assert exports() == exports(torch.ones(1, 1, 8, 8)) == 0
    assert exports(torch.zeros(2, 1, 8, 8)) > 0
    model[0] = nn.Conv2d(1, 4, 3, padding=1, stride=2)
    model[3] = nn.Linear(4 * 16, 10)
    assert exports() > 0
    model[1] = nn.SiLU()
    export_to(model, EXAMPLE, tmp_path / "net.cosparse")
    assert exports() == 0
    model[1] = nn.Threshold(0.5, 0.0)
    for _ in range(2):
        with pytest.raises(Error, match="threshold"):
            exports()


def test_a_network_without_an_artifact_is_refused_before_the_first_step(sets: tuple[Images, Images]) -> None:
    model = nn.Sequential(seeded(Residual), nn.Threshold(0.5, 0.0))
    seen: list[Progress] = []
    with pytest.raises(Error, match="threshold"):
        NNCS(model, Budget(flops=0.3), EXAMPLE).fit(training(sets), None, (0, 1), progress=seen.append)
    assert not seen
