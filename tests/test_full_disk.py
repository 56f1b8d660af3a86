"""A file system that is full, a real one: a tmpfs of its own for each program. Nothing is lost, nothing half written is left, and once
there is room the same call succeeds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from processes import run

MOUNTED = 'mount -t tmpfs -o size=256k,mode=700 tmpfs "$0" && exec "$@"'
UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED]


def run_on_it(program: str, folder: Path, *arguments: str, **variables: str) -> str:
    """The output of Python text whose `folder` is a file system of 256 KiB. Skips where that cannot be had."""
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, folder, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system of one's own: unshare --map-root-user --mount is not allowed here")
    text = f"import sys\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n{FILL}{program}"
    done = run(text, folder, *arguments, under=[*UNSHARE, folder], **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FILL = """
def fill(folder, left=4096):
    \"\"\"Until the file system has `left` bytes and no more.\"\"\"
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - left))
"""

SAVES = '''
import contextlib, io, torch, small_net
from cosparse.cli import output, run
from cosparse.compress import checkpoint, search
from cosparse.engine import artifact
kinds = {
    "artifact": lambda path, large: artifact.write(path, small_net.small_net(channels=64 if large else 1)),
    "state": lambda path, large: search.save_state(path, {"kind": "a" * (10**5 if large else 10)}),
    "checkpoint": lambda path, large: checkpoint.save(path, {"model": {"w": torch.zeros(25_000 if large else 10)}}, {"epoch": 1}),
    "text": lambda path, large: output.write_text(path, "a" * (10**5 if large else 10)),
}
for kind, save in kinds.items():
    saved = folder / kind
    save(saved, False)
    before = saved.read_bytes()
    fill(folder)
    try:
        save(saved, True)
    except OSError as error:
        print(kind, type(error).__name__, error.strerror or str(error))
    assert saved.read_bytes() == before, kind
    assert sorted(path.name for path in folder.iterdir()) == sorted(["ballast", kind])
    (folder / "ballast").unlink()
    save(saved, True)
    assert len(saved.read_bytes()) > len(before), kind
    saved.unlink()

script = Path(sys.argv[2]) / "own.py"
script.write_text("""
import torch
def net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 32, 3)), torch.zeros(1, 3, 8, 8)
""")
fill(folder)
with contextlib.redirect_stderr(io.StringIO()) as said:
    status = run(["export", f"{script}:net", "--impose-flops", "0.5", "--out", str(folder / "net.cosparse")])
print("export", status, said.getvalue())
assert [path.name for path in folder.iterdir()] == ["ballast"]
'''


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One process for all kinds and for a command: most of its time is torch's start."""
    folder = tmp_path_factory.mktemp("full")
    return run_on_it(SAVES, folder, str(tmp_path_factory.mktemp("own"))).splitlines()


def test_what_is_saved_stays_as_it_was(said: list[str]) -> None:
    kinds = said[:4]
    assert [line.split()[:2] for line in kinds] == [[kind, "OSError"] for kind in ("artifact", "state", "checkpoint", "text")]
    assert all("No space left on device" in line or "os error 28" in line for line in kinds), said


def test_an_export_by_command_says_so_and_leaves_nothing(said: list[str]) -> None:
    text = "\n".join(said[4:])
    assert text.split()[:2] == ["export", "2"], said
    assert "No space left on device" in text, said
    assert "Traceback" not in text, said


def test_a_tuning_cache_is_left_out_with_a_warning(tmp_path: Path) -> None:
    program = """
import warnings, numpy, cosparse, small_net
from cosparse.engine import artifact
artifact.write(folder / "net.cosparse", small_net.small_net())
fill(folder, 0)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    engine = cosparse.load(folder / "net.cosparse", threads=1)
assert engine._native.measured > 0
assert numpy.isfinite(engine(numpy.zeros((1, 3, 8, 8), numpy.float32))).all()
print([str(w.message).rpartition(" could ")[2] for w in heard], sorted(path.name for path in folder.rglob("*") if path.is_file()))
"""
    said = run_on_it(program, tmp_path, COSPARSE_CACHE=str(tmp_path / "cache"))
    assert said.strip() == "['not be written; the next load measures again'] ['ballast', 'net.cosparse']", said
