"""A write is all or nothing: whatever fails, the old file stays and nothing is left beside it."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import null_device
from sample_graphs import every_op

from cosparse import _C
from cosparse.engine import artifact
from cosparse.engine.graph import Input
from cosparse.errors import ArtifactError, Error


@pytest.fixture
def old(tmp_path):
    """A file that is there already."""
    path = tmp_path / "net.cosparse"
    artifact.write(path, every_op())
    return path


NEW = replace(every_op(), name="new")


def failing(error: BaseException):
    def step(*_: object) -> None:
        raise error

    return step


@pytest.mark.parametrize(
    ("module", "step", "error"),
    [
        (artifact, "to_bytes", MemoryError()),
        (Path, "write_bytes", OSError(errno.ENOSPC, "No space left on device")),
        (os, "fsync", OSError(errno.EIO, "Input/output error")),
        (_C, "read_artifact", ArtifactError("net.cosparse", "this", "that")),
        (os, "replace", PermissionError(errno.EPERM, "Operation not permitted")),
        (os, "replace", KeyboardInterrupt()),
    ],
    ids=["serialise", "disk full", "fsync", "validate", "rename", "interrupt"],
)
def test_failure_leaves_the_old_file(old, monkeypatch, module, step, error):
    before = old.read_bytes()
    monkeypatch.setattr(module, step, failing(error))
    with pytest.raises(type(error)) as caught:
        artifact.write(old, NEW)
    assert not isinstance(error, OSError) or caught.value.filename == str(old)
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


def test_disk_full_half_way(old, monkeypatch):
    """The bytes run out after the file was begun."""
    before = old.read_bytes()

    def half(path, content):
        whole(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        artifact.write(old, NEW)
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


def test_damage_on_the_way_to_the_disk_is_found(old, monkeypatch):
    before = old.read_bytes()
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: whole(path, content[:-1] + b"?"))
    with pytest.raises(ArtifactError, match=r"net\.cosparse: graph: checksum"):
        artifact.write(old, NEW)
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


def test_an_invalid_graph_leaves_the_old_file(old):
    before = old.read_bytes()
    with pytest.raises(ArtifactError, match="outputs that name graph inputs or nodes, got 'y'"):
        artifact.write(old, replace(every_op(), outputs=("y",)))
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


def test_more_inputs_or_outputs_than_a_file_may_have(old):
    before = old.read_bytes()
    name, channels = every_op().outputs[0], Input("y", (None, 3))
    assert len(artifact.to_bytes(replace(every_op(), outputs=(name,) * 65536))) > 65536
    for change, message in (
        ({"outputs": (name,) * 65537}, "graph: expected at most 65536 outputs, got 65537"),
        ({"inputs": (channels,) * 65537}, "graph: expected at most 65536 inputs, got 65537"),
    ):
        with pytest.raises(ArtifactError) as caught:
            artifact.write(old, replace(every_op(), **change))
        assert str(caught.value) == message
    assert old.read_bytes() == before


def test_provenance_that_is_too_deep_or_a_circle(old):
    before = old.read_bytes()
    deep, circle = [], []
    for _ in range(100_000):
        deep = [deep]
    circle.append(circle)
    for provenance in (deep, circle):
        with pytest.raises(ArtifactError, match="graph 'new': expected attributes, preprocessing and provenance that JSON can hold, got"):
            artifact.write(old, replace(NEW, provenance={"a": provenance}))
    assert old.read_bytes() == before


def test_killed_while_writing(old):
    """At whatever moment the process dies, the file is the old one or the new one, whole."""
    program = (
        "import sys; from dataclasses import replace; from sample_graphs import every_op; from cosparse.engine import artifact\n"
        "print('ready', flush=True)\n"
        "for i in range(10**9): artifact.write(sys.argv[1], replace(every_op(), name=f'new{i}'))\n"
    )
    path = os.pathsep.join(p for p in [os.path.dirname(__file__), *sys.path] if p)
    for delay in (0.003, 0.011, 0.017):
        child = subprocess.Popen([sys.executable, "-c", program, old], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert artifact.read(old).nodes == every_op().nodes


def test_umask(tmp_path):
    before = os.umask(0o027)
    try:
        artifact.write(tmp_path / "net.cosparse", every_op())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "net.cosparse").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(old):
    link = old.with_name("link.cosparse")
    link.symlink_to(old)
    artifact.write(link, NEW)
    assert link.is_symlink()
    assert artifact.read(old).name == "new"


def test_a_link_that_dangles_gets_its_target(tmp_path):
    (tmp_path / "link.cosparse").symlink_to("net.cosparse")
    artifact.write(tmp_path / "link.cosparse", NEW)
    assert (tmp_path / "link.cosparse").is_symlink()
    assert artifact.read(tmp_path / "net.cosparse").name == "new"


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "through a link"])
@pytest.mark.parametrize("kind", ["a pipe", "a character device", "a socket"])
def test_what_is_no_file_is_refused_and_stays(kind, linked, tmp_path):
    target = path = tmp_path / "special"
    if kind == "a pipe":
        os.mkfifo(target)
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(str(target))
    else:
        target = path = null_device(tmp_path)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(target)
    before = target.stat()
    with pytest.raises(Error, match=f"{path.name}: expected a regular file, or nothing yet, got {kind}; give the name of a file"):
        artifact.write(path, NEW)
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)
    assert path.is_symlink() == linked
    assert {p.name for p in tmp_path.iterdir()} == {target.name, path.name}


@pytest.mark.parametrize("name", ["n" * 240 + ".cosparse", "\u00e4" * 120 + ".cosparse"], ids=["letters", "two bytes each"])
def test_a_long_file_name(name, tmp_path):
    path = tmp_path / name
    artifact.write(path, NEW)
    assert artifact.read(path).name == "new"
    assert os.listdir(tmp_path) == [path.name]


def test_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        artifact.write(tmp_path / "none" / "net.cosparse", NEW)
    assert caught.value.filename == str(tmp_path / "none" / "net.cosparse")  # not the hidden file beside it


def test_over_a_folder(tmp_path):
    (tmp_path / "net.cosparse").mkdir()
    with pytest.raises(IsADirectoryError):
        artifact.write(tmp_path / "net.cosparse", NEW)
    assert os.listdir(tmp_path) == ["net.cosparse"]
