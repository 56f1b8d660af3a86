"""The log of a run: rows are the history, a resumed run goes on in it, and pictures are drawn of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cosparse.compress import Budget, impose, mask_pictures, masks
from cosparse.compress.log import COLUMNS, EpochLog, read_log
from cosparse.compress.masks import LayerMask
from cosparse.compress.pictures import draw_all, draw_training
from cosparse.errors import Error


def history(epochs: int, first: int = 1) -> list[dict[str, float]]:
    keys = [name for name in COLUMNS if name not in ("epoch", "phase")]
    return [{"epoch": e, "phase": 1 + (e > first), **{key: e / 3 + i for i, key in enumerate(keys)}} for e in range(1, epochs + 1)]


def test_rows_are_the_history_to_the_last_digit(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "deep" / "run.csv")
    log([])
    assert read_log(log.path) == []
    for count in (1, 2, 3):
        log(history(count))
        assert read_log(log.path) == history(count)
    assert log.path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_what_an_entry_lacks_stays_empty(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "run.csv")
    log([])
    log([{"epoch": 1, "phase": 2, "lr": 0.5, "train_loss": 1.25, "seconds": 3.0}])
    assert (tmp_path / "run.csv").read_text().splitlines()[1] == "1,2,0.5,1.25,,,,,3.0"


@pytest.mark.parametrize("saved", [0, 1, 2])
def test_a_resumed_run_has_every_epoch_once(tmp_path: Path, saved: int) -> None:
    """Whether the killed run was ahead of its checkpoint or behind it, or left half a row."""
    path = tmp_path / "run.csv"
    killed = EpochLog(path)
    killed([])
    killed(history(1))
    with path.open("a") as file:
        file.write("2,2,0.")
    resumed = EpochLog(path)
    resumed(history(saved))
    assert read_log(path) == history(saved)
    resumed(history(3))
    assert read_log(path) == history(3)


def test_tensorboard_has_the_same_figures_and_hides_a_killed_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = EpochLog(tmp_path / "run.csv", tmp_path / "events")
    first([])
    first(history(2))
    again = EpochLog(tmp_path / "run.csv", tmp_path / "events")
    again(history(1))
    again(history(3))
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert [step for step, _ in seen] == [1, 2, 3]
    assert [value for _, value in seen] == pytest.approx([entry["train_loss"] for entry in history(3)])


def test_missing_tensorboard_is_said_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="tensorboard"):
        EpochLog(tmp_path / "run.csv", tmp_path / "events")


def test_logs_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a,b\n1,2\n")
    with pytest.raises(Error, match="expected a log that can be written"):
        EpochLog(tmp_path / "file" / "run.csv")([])
    with pytest.raises(Error, match=r"expected a training log with the columns epoch, phase, .* got a, b"):
        read_log(tmp_path / "file")
    with pytest.raises(Error, match="expected a training log, got"):
        read_log(tmp_path / "none")
    (tmp_path / "file").write_text(",".join(COLUMNS) + "\nx,1\n")
    with pytest.raises(Error, match="expected a training log, got could not convert"):
        read_log(tmp_path / "file")


def layer(filters: int = 10, channels: int = 3) -> LayerMask:
    keep = torch.zeros(-(-filters // 4), channels * 9, dtype=torch.bool)
    keep[0, ::9] = True  # frequency (0, 0), first block row: 4 filters
    keep[-1, 5] = True  # channel 0, frequency (1, 2), last block row: 2 filters
    return LayerMask("dct", 4, keep, filters, 9)


def test_density_of_a_frequency_counts_filters_not_padding() -> None:
    density = mask_pictures.frequency_density(layer(), (3, 3))
    wanted = np.zeros((3, 3))
    wanted[0, 0], wanted[1, 2] = 4 / 10, 2 / 30
    assert np.abs(density - wanted).max() <= 4 * np.finfo(float).eps
    assert density.mean() == pytest.approx(layer().density)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (1025, 2)])
def test_large_masks_are_averaged_in_equal_parts(shape: tuple[int, int]) -> None:
    share = np.arange(np.prod(shape), dtype=float).reshape(shape)
    reduced = mask_pictures._reduced(share)
    factors = [-(-n // mask_pictures.MOST_CELLS) for n in shape]
    for row, column in np.ndindex(*reduced.shape):
        part = share[row * factors[0] : (row + 1) * factors[0], column * factors[1] : (column + 1) * factors[1]]
        assert reduced[row, column] == pytest.approx(part.mean())
    assert reduced.shape == tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))


def test_all_pictures_of_a_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = impose(model, Budget(density=0.3), torch.zeros(1, 3, 12, 12))
    layers = [name for name, _, _ in masks.masked(model)]
    paths = draw_all(tmp_path, model, history(4), "net $x")
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert names == {"training.png", "density.png", "frequencies.png", *(f"masks/{name}.png" for name in layers)}
    for path in paths:
        image = np.asarray(Image.open(path).convert("L"))
        assert image.shape[1] == 1000
        assert image.std() > 5, f"{path.name} is blank"
    assert [path.name for path in draw_all(tmp_path, nn.ReLU(), history(1))] == ["training.png"]
    assert draw_all(tmp_path, nn.ReLU(), []) == []
    with pytest.raises(Error, match="history: expected at least one epoch, got none"):
        draw_training(tmp_path / "x.png", [])


def test_a_kept_block_is_blue_where_it_should_be(tmp_path: Path) -> None:
    """One channel, two block rows, 1x1: the picture's panel is white above and blue below."""
    keep = torch.tensor([[False], [True]])
    path = mask_pictures.draw_mask(tmp_path / "m.png", "layer", LayerMask("identity", 1, keep, 2, 1))
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    blue = (image[:, :, 2] - image[:, :, 0] > 60).sum(1) > 500
    rows = np.flatnonzero(blue)
    assert len(rows) > 100
    assert rows.min() > image.shape[0] / 2
