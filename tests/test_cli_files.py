"""Where the command line writes: devices, pipes and links stay what they are; a place that cannot be written is refused before the work."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import null_device
from processes import run as program

from cosparse import atomic
from cosparse.bench import harness
from cosparse.bench.recipes import dense
from cosparse.cli import run
from cosparse.errors import Error


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), np.float32))
    return tmp_path / "x.npy"


def test_a_device_takes_the_text_and_stays(path: Path, tmp_path: Path) -> None:
    null = null_device(tmp_path)
    assert run(["inspect", str(path), "--json", str(null)]) == 0
    assert stat.S_ISCHR(null.stat().st_mode)
    assert os.listdir(tmp_path) == ["null"]


def test_a_pipe_takes_the_text_and_the_array(path: Path, images: Path, tmp_path: Path) -> None:
    got: list[bytes] = []
    for option in ("--json", "--output"):
        pipe = tmp_path / option.strip("-")
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda pipe=pipe: got.append(pipe.read_bytes()))
        reader.start()
        command = ["inspect", str(path)] if option == "--json" else ["run", str(path), "--input", str(images)]
        assert run([*command, option, str(pipe)]) == 0
        reader.join()
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert json.loads(got[0])["name"] == "small"
    assert got[1].startswith(b"\x93NUMPY")


@pytest.mark.parametrize("piped", [True, False], ids=["a pipe", "a file"])
def test_standard_output_by_its_name(piped: bool, path: Path, tmp_path: Path) -> None:
    """The tables come first, the JSON behind them, whatever standard output is."""
    command = [sys.executable, "-m", "cosparse", "inspect", path, "--json", "/dev/stdout"]
    if piped:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        with (tmp_path / "out").open("w") as file:
            subprocess.run(command, stdout=file, check=True)
        text = (tmp_path / "out").read_text()
    assert text.startswith("small: ")
    assert json.loads(text[text.index("\n{") :])["name"] == "small"


def test_a_link_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link").symlink_to("real.json")
    assert run(["inspect", str(path), "--json", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["name"] == "small"
    assert sorted(os.listdir(tmp_path)) == ["link", "real.json"]


REFUSED = {
    "report": (["bench", "{path}", "--report", "{folder}"], "--report: expected a file, got {folder}, a folder; give the name of a file"),
    "csv": (["bench", "{path}", "--csv", "{folder}"], "--csv: expected a file, got {folder}, a folder"),
    "csv of layers": (["bench", "{path}", "--csv-layers", "{folder}"], "--csv-layers: expected a file, got {folder}, a folder"),
    "roofline": (["bench", "{path}", "--roofline", "{folder}"], "--roofline: expected a file, got {folder}, a folder"),
    "json": (["bench", "{path}", "--json", "{folder}"], "--json: expected a file, got {folder}, a folder"),
    "no such folder": (["bench", "{path}", "--json", "{folder}/no/x"], "--json: expected an existing folder {folder}/no, got none"),
    "a file on the way": (["bench", "{path}", "--json", "{pipe}/x"], "--json: expected an existing folder {pipe}, got none"),
    "what no one can write": (["bench", "{path}", "--json", "/proc/x"], "--json: expected a folder that can be written, got /proc ("),
    "a circle of links": (["bench", "{path}", "--json", "{circle}"], "--json: expected a path to write to, got "),
    "exported into a folder": (["export", "zoo:none", "--out", "{folder}"], "--out: expected a file, got {folder}, a folder"),
    "exported into a pipe": (["export", "zoo:none", "--out", "{pipe}"], "--out: expected a file, got {pipe}, a pipe"),
    "ONNX into a pipe": (["export", "zoo:none", "--out", "a", "--onnx", "{pipe}"], "--onnx: expected a file, got {pipe}, a pipe"),
    "run": (["run", "{path}", "--input", "a", "--output", "{folder}"], "--output: expected a file, got {folder}, a folder"),
    "compressed": (["compress", "zoo:none", "--data", "a", "--out", "{pipe}"], "--out: expected a file, got {pipe}, a pipe"),
    "log": (
        ["compress", "zoo:none", "--data", "a", "--out", "{folder}/a", "--log", "{pipe}/a"],
        "--log {pipe}/a: expected a folder, or nothing yet, got a file",
    ),
    "demo": (["demo", "--out", "{pipe}/a"], "--out {pipe}/a: expected a folder, or nothing yet, got a file"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_the_work(arguments: list[str], message: str, path: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(harness, "bench", lambda *_: pytest.fail("measured"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    places = {"path": path, "folder": tmp_path, "pipe": tmp_path / "pipe", "circle": tmp_path / "circle"}
    assert run([argument.format(**places) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"cosparse: {message.format(**places)}")
    assert err.count("\n") == 1
    assert not out
    assert sorted(os.listdir(tmp_path)) == ["circle", "pipe"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, with one that only its owner may write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "locked").mkdir(mode=0o555)
    yield folder
    shutil.rmtree(folder)


def test_another_user_loses_no_work_to_a_locked_folder(open_folder: Path) -> None:
    text = """
import os, sys
from cosparse import atomic
if os.getuid() == 0: os.setuid(65534)
for check, place in ((atomic.require_writable, "locked/x"), (atomic.require_folder, "locked/new")):
    try:
        check("--out", os.path.join(sys.argv[1], place))
    except atomic.Error as error:
        print(error)
"""
    done = program(text, open_folder)
    locked = open_folder / "locked"
    sentence = f"--out: expected a folder that can be written, got {locked} (Permission denied); check its rights, or write elsewhere"
    assert done.stdout.splitlines() == [sentence] * 2, done.stdout + done.stderr


def test_dense_training_asks_for_its_place_first(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"--out: expected a file, got .*, a folder"):
        dense.main(["resnet20", "--data", str(tmp_path / "none"), "--out", str(tmp_path)])


def test_a_full_device_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(path), "--json", "/dev/full"]) == 2
    assert capsys.readouterr().err == "cosparse: /dev/full: No space left on device\n"


def test_stray_bytes_of_a_name_stand_as_escapes(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "x", "a\udcff\u00e4")
    assert (tmp_path / "x").read_bytes() == b"a\\udcff\xc3\xa4"
