"""The recipes behind the tables: rows that are commands, pages that are made of results, and a proof of the ImageNet one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

import cosparse
from cosparse.bench.recipes import imagenet, nncs, nncs_page
from cosparse.bench.recipes.nncs_rows import ROWS
from cosparse.cli import app

RESULTS = REPOSITORY / "docs" / "results"


def test_imagenet_recipe_on_a_tiny_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.cosparse"
    assert imagenet.main(["--tiny", str(tmp_path / "tree"), "--network", "resnet18", "--out", str(out)]) == 0
    assert "--flops 0.789 --params 0.756" in capsys.readouterr().out
    engine = cosparse.load(out)
    assert engine.outputs[0].shape == (None, 1000)
    assert engine.metadata["provenance"]["accuracy"]["count"] == 6


def test_every_row_is_a_command_that_the_command_line_understands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["compress", "--help"])
    known = capsys.readouterr().out
    for row in ROWS.values():
        line = nncs.command(row, Path("data"), Path("out/nncs"))
        assert line[:2] == ["cosparse", "compress"]
        assert all(f"{option} " in known for option in line if option.startswith("--"))
    assert "--no-such-option " not in known


def test_the_page_shows_the_results_beside_it() -> None:
    page = RESULTS / "nncs.md"
    if not page.exists():
        pytest.skip("no results yet")
    done = {path.stem: json.loads(path.read_text()) for path in (RESULTS / "nncs").glob("*.json") if path.stem in ROWS}
    assert done
    text = page.read_text()
    assert nncs_page.filled(text, {name: done[name] for name in ROWS if name in done}) == text
