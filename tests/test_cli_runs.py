"""`cosparse compress` as a run: killed and resumed, broken by a loss that is no number, on each layout of data; what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from image_sets import coco_content, noise, png, write_coco, write_folder

import cosparse
from cosparse.cli import output, run
from cosparse.compress import checkpoint
from cosparse.compress.log import read_log
from cosparse.engine import artifact

SCRIPT = """
import os, signal
import torch
from torch import nn

PREPROCESSING = {"channels": "RGB", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3, "size": [8, 8]}

def trouble(module, args, output, seen=[]):
    '''At a given step of the training: the process dies, or the output is no number.'''
    if module.training:
        seen.append(1)
        if len(seen) == int(os.environ.get("DIE_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        if len(seen) == int(os.environ.get("NAN_AT", "0")):
            return output * float("nan")

def net():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    if "DIE_AT" in os.environ or "NAN_AT" in os.environ:
        made[-1].register_forward_hook(trouble)
    return made, torch.zeros(1, 3, 8, 8), PREPROCESSING

def pixels():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    return made, torch.zeros(1, 3, 8, 8), PREPROCESSING

class Named(nn.Module):
    def forward(self, x):
        return {"out": self.net(x)}

class Several(nn.Module):
    def forward(self, x):
        return {"out": x, "aux": x}

def named():
    made = Named()
    made.net = pixels()[0]
    return made, torch.zeros(1, 3, 8, 8), PREPROCESSING

def several():
    return Several(), torch.zeros(1, 3, 8, 8), PREPROCESSING

def flat():
    return nn.Flatten(2), torch.zeros(1, 3, 8, 8), PREPROCESSING
"""
STEPS = 4  # of an epoch: 200 training images, 4 of them held out, in batches of 50


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("noise")
    for split, count in (("train", 200), ("test", 40)):
        table = pyarrow.table({"image": [png(noise(8, 8, i)) for i in range(count)], "label": [i % 4 for i in range(count)]})
        pyarrow.parquet.write_table(table, folder / f"noise_{split}.parquet")
    return folder


def arguments(script: Path, data: Path, out: Path, *options: str, factory: str = "net") -> list[str]:
    fixed = ["compress", f"{script}:{factory}", "--data", str(data), "--out", str(out), "--threads", "1", "--batch", "50"]
    return [*fixed, "--flops", "0.4", "--epochs", "1,2", *options]


def weights(path: Path) -> dict[tuple[str, str], bytes]:
    return {(node.name, role): array.tobytes() for node in artifact.read(path).nodes for role, array in node.tensors.items()}


def curve(path: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(path)]


def test_killed_in_epoch_2_and_resumed_is_as_if_never_killed(script: Path, data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.cosparse", tmp_path / "parts.cosparse"
    assert run(arguments(script, data, whole)) == 0
    command = [sys.executable, "-P", "-m", "cosparse", *arguments(script, data, parts)]
    killed = subprocess.run(command, env=os.environ | {"DIE_AT": str(STEPS + 2), "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not parts.exists()
    assert [row["epoch"] for row in read_log(tmp_path / "parts.training.csv")] == [1]
    assert run(arguments(script, data, parts, "--resume")) == 0
    assert weights(parts) == weights(whole)
    assert curve(tmp_path / "parts.training.csv") == curve(tmp_path / "whole.training.csv")
    rows = curve(tmp_path / "whole.training.csv")
    assert [(row["epoch"], row["phase"]) for row in rows] == [(1, 1), (2, 2), (3, 2)]
    assert rows[0]["density"] == rows[0]["flops_share"] == 1
    assert rows[1]["density"] < 1
    assert rows[1]["flops_share"] <= 0.6


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(script: Path, data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "net.cosparse"
    monkeypatch.setenv("NAN_AT", str(STEPS + 2))
    assert run(arguments(script, data, out)) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert "loss in epoch 2, step 2: expected a finite number, got nan; lower lr; the last checkpoint" in sentence
    assert checkpoint.load(out.with_suffix(".training.safetensors"))[1]["epoch"] == 1
    assert not out.exists()
    monkeypatch.delenv("NAN_AT")
    assert run(arguments(script, data, out, "--resume", "--json", "-")) == 0
    assert len(json.loads(capsys.readouterr().out)["epochs"]) == 3


def test_every_option_of_the_recipe_arrives_and_files_go_where_they_are_wanted(script: Path, data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "net.cosparse"
    options = [
        "--lr",
        "0.01",
        "--optimizer",
        "adamw",
        "--weight-decay",
        "0.5",
        "--precision",
        "bfloat16",
        "--distill",
        "0.25",
        "--ema",
        "0.9",
        "--tensorboard",
        "--no-flip",
    ]
    places = ["--log", str(tmp_path / "logs"), "--pictures", str(tmp_path / "pictures")]
    assert run([*arguments(script, data, out, *options, *places), "--epochs", "0,1"]) == 0
    shown = capsys.readouterr().out
    settings = cosparse.load(out).metadata["provenance"]["settings"]
    wanted = {"lr": 0.01, "optimizer": "adamw", "weight_decay": 0.5, "precision": "bfloat16", "distill": 0.25, "ema": 0.9}
    assert {name: settings[name] for name in wanted} == wanted
    assert len(read_log(tmp_path / "logs" / "net.training.csv")) == 1
    assert list((tmp_path / "logs" / "net.training.tensorboard").glob("events.*"))
    assert (tmp_path / "pictures" / "training.png").exists()
    assert "Trained on noise_train.parquet: 196 images; scored on noise_test.parquet: 40 images." in shown
    assert f"Log: {tmp_path / 'logs' / 'net.training.csv'}, TensorBoard events:" in shown


def test_folders_of_images_are_compressed_and_scored(script: Path, tmp_path: Path, capsys) -> None:
    images = {
        f"{split}/{c}/{i}.png": noise(9 + i % 3, 12, 10 * i + ord(c))
        for split, n in (("train", 14), ("val", 3))
        for c in "abcd"
        for i in range(n)
    }
    root, out = write_folder(tmp_path / "set", images), tmp_path / "net.cosparse"
    assert run([*arguments(script, root, out, "--workers", "1", "--json", "-"), "--epochs", "0,1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 12
    assert run(["eval", str(out), "--data", str(root), "--workers", "0", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == result["top1"]
    (root / "train" / "e").mkdir()
    assert run(arguments(script, root, out)) == 2
    assert "train/e: expected at least one image, got an empty folder" in capsys.readouterr().err
    write_folder(root, {"train/e/1.png": noise(8, 8), "val/e/1.png": noise(8, 8)})
    assert run(arguments(script, root, out)) == 2
    assert "set/train: expected at most 4 classes, as the network gives, got 5" in capsys.readouterr().err


@pytest.mark.parametrize("factory", ["pixels", "named"])
def test_masks_are_compressed_and_scored(factory: str, script: Path, tmp_path: Path, capsys) -> None:
    for split, count in (("train2017", 60), ("val2017", 4)):
        images = [{"id": i, "file_name": f"{i}.png", "height": 10, "width": 8} for i in range(count)]
        shapes = [
            {"id": i, "image_id": i, "category_id": 3 + 4 * (i % 2), "segmentation": [[0, 0, 4, 0, 4, 9, 0, 9]]} for i in range(count)
        ]
        write_coco(tmp_path / "coco", split, coco_content(images, shapes))
    out = tmp_path / "net.cosparse"
    options = ["--workers", "0", "--epochs", "0,1", "--json", "-"]
    assert run([*arguments(script, tmp_path / "coco", out, factory=factory), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["miou"] <= result["pixel_accuracy"] <= 100
    assert cosparse.load(out).metadata["provenance"]["accuracy"]["miou"] == result["miou"]
    score = ["eval", str(out), "--data", str(tmp_path / "coco"), "--workers", "0"]
    assert run([*score, "--model", f"{script}:{factory}", "--json", "-"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["miou"] == result["miou"]
    assert again["torch"]["miou"] == result["dense_miou"]
    assert 0 <= again["torch"]["same_pixels"] < 1  # the artifact has masks, the network has none
    assert run([*score, "--model", f"{script}:{factory}"]) == 0
    assert "same pixels as engine" in capsys.readouterr().out
    assert run([*score, "--min-miou", "100"]) == 1
    assert "mIoU" in capsys.readouterr().err
    assert run([*score, "--min-top1", "1"]) == 2
    assert "use --min-miou" in capsys.readouterr().err


BAD = {
    "no data": (["--data", "nowhere"], "nowhere: expected one .* got nothing there"),
    "a recipe out of range": (["--ema", "2"], "recipe.ema: expected a number between 0 and 1, or None, got 2.0"),
    "a rate that is no number": (["--lr", "nan"], "recipe.lr: expected a finite number above 0, got nan"),
    "an unknown optimizer": (["--optimizer", "lion"], "recipe.optimizer: expected one of sgd, adamw, got 'lion'"),
    "an impossible budget": (["--flops", "0.99"], "budget: expected at most"),
    "a log that is a file": (["--log", "{script}"], "my_net.py: expected a folder, or nothing yet, got a file"),
    "pictures that are a file": (["--pictures", "{script}"], "my_net.py: expected a folder, or nothing yet, got a file"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_runs_are_refused_before_they_start(options: list[str], message: str, script: Path, data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "net.cosparse"
    assert run(arguments(script, data, out, *(word.format(script=script) for word in options))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not list(tmp_path.glob("net.*"))


def test_outputs_that_cannot_be_trained(script: Path, data: Path, tmp_path: Path, capsys) -> None:
    for factory, message in (
        ("several", "several: expected a tensor of logits, or a mapping with one, got a mapping of out, aux; wrap the network"),
        ("flat", "flat: expected one output [N, classes] or [N, classes, H, W], got [1, 3, 64]; wrap the network"),
    ):
        assert run(arguments(script, data, tmp_path / "net.cosparse", factory=factory)) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", ["nncs", "ssr-pso"])
def test_a_network_that_cannot_be_exported_is_refused_before_the_data_are_read(method: str, tmp_path: Path, capsys) -> None:
    script = tmp_path / "normed.py"
    script.write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    layers = nn.Conv2d(3, 16, 3), nn.Threshold(0.1, 0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)\n"
        "    return nn.Sequential(*layers), torch.zeros(1, 3, 8, 8), {'scale': 1.0}\n"
    )
    out = ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "net.cosparse"), "--flops", "0.3", "--method", method]
    assert run(["compress", f"{script}:net", *out]) == 2
    assert "aten.threshold.default in '1'; docs/operators.md" in capsys.readouterr().err


def test_time_left_is_right_in_both_phases(monkeypatch) -> None:
    """400 steps of 1 s, then 800 of 3 s: the estimate is what is left at the present pace, and within a tenth soon after it has changed."""
    clock = 0.0
    with output.progress(counted=True) as bar:
        monkeypatch.setattr(bar, "get_time", lambda: clock)
        output.stage(bar, "before")
        task = output.stage(bar, "training", 1200)
        assert [one.description for one in bar.tasks] == ["training"]
        for step in range(1, 1201):
            clock += 1 if step <= 400 else 3
            bar.update(task, completed=step)
            if step == 300:
                assert bar.tasks[0].time_remaining == pytest.approx(900, rel=0.01)
            if step in (520, 1000):
                assert bar.tasks[0].time_remaining == pytest.approx(3 * (1200 - step), rel=0.1)
    with output.progress() as bar:
        assert "TimeRemainingColumn" in {type(column).__name__ for column in bar.columns}


def test_resumed_runs_do_not_count_old_steps_into_the_pace(monkeypatch) -> None:
    clock = 0.0
    with output.progress(counted=True) as bar:
        monkeypatch.setattr(bar, "get_time", lambda: clock)
        task = output.stage(bar, "training", 1000)
        for step in range(901, 911):
            clock += 2.0
            bar.update(task, completed=step)
        assert bar.tasks[0].time_remaining == pytest.approx(2 * 90, rel=0.01)


def test_slow_steps_have_an_estimate_too(monkeypatch) -> None:
    clock = 0.0
    with output.progress() as bar:
        monkeypatch.setattr(bar, "get_time", lambda: clock)
        task = output.stage(bar, "training", 10)
        for step in (1, 2, 3):
            clock += 90
            bar.update(task, completed=step)
        assert bar.tasks[0].time_remaining == pytest.approx(630)
