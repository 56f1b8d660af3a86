"""The recipes: dense training, proofs of those for ImageNet and COCO, rows that are commands, pages that are made of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import short_nets
from conftest import REPOSITORY
from image_sets import noise, png, write_masks
from safetensors import safe_open

import cosparse
from cosparse.bench import zoo
from cosparse.bench.recipes import coco, coco_tiny, command, dense, imagenet, nncs_page, nncs_rows, page, rows, ssr_page, ssr_rows
from cosparse.cli import app, run
from cosparse.compress.data import open_data
from cosparse.compress.score import IGNORED
from cosparse.errors import Error


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes run their command here, where torch is imported and the zoo has short networks."""

    def ran(line: list[str], check: bool) -> SimpleNamespace:
        assert line[:3] == [sys.executable, "-m", "cosparse"]
        return SimpleNamespace(returncode=run(line[3:]))

    short_nets.add(monkeypatch)
    monkeypatch.setattr(command, "subprocess", SimpleNamespace(run=ran))


@pytest.mark.parametrize("line", [["--version"], ["inspect", "none.cosparse"]], ids=["works", "fails"])
def test_a_recipe_is_a_command_and_ends_with_its_status(line: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    failed = command.main("about", "data", "tiny", "net", lambda options: line, ["--tiny", "t", "--out", "o"])
    said = capfd.readouterr()
    assert failed == (2 if line[0] == "inspect" else 0)
    assert (said.err if failed else said.out.splitlines()[1]).startswith("cosparse")


@pytest.mark.usefixtures("in_this_process")
def test_imagenet_recipe_on_a_tiny_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.cosparse"
    assert imagenet.main(["--tiny", str(tmp_path / "tree"), "--network", "short_resnet", "--out", str(out)]) == 0
    assert "--flops 0.789 --params 0.756" in capsys.readouterr().out
    engine = cosparse.load(out)
    assert engine.outputs[0].shape == (None, 1000)
    assert engine.metadata["provenance"]["accuracy"]["count"] == 6


@pytest.mark.usefixtures("in_this_process")
def test_coco_recipe_on_a_tiny_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.cosparse"
    assert coco.main(["--tiny", str(tmp_path / "set"), "--network", "short_unet", "--out", str(out)]) == 0
    assert "--classes 81 --data" in (line := capsys.readouterr().out)
    assert f"{' '.join(coco.METHOD)} --flops 0.441" in line
    engine = cosparse.load(out)
    assert engine.outputs[0].shape == (None, 81, 32, 32)
    provenance = engine.metadata["provenance"]
    assert provenance["flops_reduction"] >= 0.441
    assert {"miou", "pixel_accuracy", "dense_miou"} <= provenance["accuracy"].keys()
    assert provenance["accuracy"]["count"] == 4


def test_the_tiny_set_has_what_cocos_files_have(tmp_path: Path) -> None:
    """Sizes, a grey image, one without an instance; polygons of one part and two, run lengths, crowds; ids with gaps."""
    root = coco_tiny.tiny_coco(tmp_path)
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    assert [category["id"] for category in content["categories"]] == [1, 13, 18, 90]
    shapes = content["annotations"]
    assert {len(one["segmentation"]) for one in shapes if isinstance(one["segmentation"], list)} == {1, 2}
    assert {one["iscrowd"] for one in shapes if isinstance(one["segmentation"], dict)} == {0, 1}
    assert all(one.keys() >= {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"} for one in shapes)
    data = open_data(root, "train")
    assert (len(data), len(data.classes), len(open_data(root, "test"))) == (30, 5, 4)
    pictures, masks = zip(*(data.read(index) for index in range(len(data))), strict=True)
    assert len({picture.size for picture in pictures}) > 5
    assert [picture.mode for picture in pictures[:4]] == ["RGB", "RGB", "L", "RGB"]
    assert set(np.unique(np.asarray(masks[0]))) >= {IGNORED, 0, 1, 2, 3}
    assert np.unique(np.asarray(masks[1])).tolist() == [0]
    for picture, mask in zip(pictures, masks, strict=True):  # where a label is, its colour is, up to JPEG at the edges
        for label, number in enumerate(coco_tiny.CATEGORIES, start=1):
            pixels = np.asarray(picture)[np.asarray(mask) == label]
            if picture.mode == "RGB" and len(pixels):
                assert np.abs(np.median(pixels, axis=0) - coco_tiny.COLOURS[number]).max() < 20


def test_run_lengths_begin_with_what_is_not_covered() -> None:
    assert coco_tiny.run_lengths(np.array([[1, 0], [1, 1]], bool)) == [0, 2, 1, 1]
    assert coco_tiny.run_lengths(np.array([[0, 0], [0, 1]], bool)) == [3, 1]
    assert coco_tiny.run_lengths(np.zeros((2, 2), bool)) == [4]


def test_dense_training_of_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 5), ("test", 3)):
        masks = [np.full((20, 24), number % 3, np.uint8) for number in range(count)]
        write_masks(tmp_path / f"a_{split}.parquet", [noise(20, 24, number) for number in range(count)], masks, "Road Car Sky")
    out = tmp_path / "unet.safetensors"
    out.symlink_to("elsewhere")
    options = ["--classes", "3", "--size", "32,48", "--train-size", "16,32", "--epochs", "1", "--batch", "2", "--workers", "0"]
    dense.main(["unet", "--data", str(tmp_path), "--out", str(out), *options])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["size"], said["train_size"], said["classes"], said["count"]) == ([32, 48], [16, 32], 3, 3)
    assert 0 <= said["miou"] <= said["pixel_accuracy"] <= 100
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["accuracy"])["miou"] == said["miou"]
    zoo.load_weights(zoo.build("unet", 3), out)
    assert out.is_symlink()


def test_dense_training_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 6), ("test", 3)):
        table = pyarrow.table({"image": [png(noise(32, 32, number)) for number in range(count)], "label": list(range(count))})
        pyarrow.parquet.write_table(table, tmp_path / f"a_{split}.parquet")
    line = ["resnet20", "--data", str(tmp_path), "--out", str(tmp_path / "net.safetensors"), "--epochs", "1", "--batch", "3"]
    dense.main(line)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["top1"] <= said["top5"]
    zoo.load_weights(zoo.build("resnet20"), tmp_path / "net.safetensors")
    for option in ("--size", "--train-size"):
        with pytest.raises(Error, match=f"{option}: expected 32,32, as the images of a_train.parquet are, got 16,16"):
            dense.main([*line, option, "16,16"])


@pytest.mark.parametrize("table", [nncs_rows.ROWS, ssr_rows.ROWS], ids=["nncs", "ssr"])
def test_every_row_is_a_command_that_the_command_line_understands(table: dict[str, rows.Row], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["compress", "--help"])
    known = capsys.readouterr().out
    for row in table.values():
        line = rows.command(row, Path("data"), Path("out/some"))
        assert line[:2] == ["cosparse", "compress"]
        assert all(f"{option} " in known for option in line if option.startswith("--"))
    assert "--no-such-option " not in known


@pytest.mark.parametrize("made", [nncs_page, ssr_page], ids=["nncs", "ssr"])
def test_the_page_shows_the_results_beside_it(made: ModuleType) -> None:
    done = page.results(made.ROWS, REPOSITORY / made.RESULTS)
    assert done
    text = (REPOSITORY / made.PAGE).read_text()
    assert page.filled(text, made.TABLES, done) == text
