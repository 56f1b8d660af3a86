"""Every malformed artifact is refused with the error that names the file, the thing, what was expected and what was got."""

import contextlib
import os
import threading
from collections import Counter

import pytest
from artifact_parts import take_apart
from malformed import CASES
from sample_graphs import every_op

from cosparse import _C
from cosparse.engine import artifact
from cosparse.errors import ArtifactError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refused(case, tmp_path):
    path = tmp_path / "net.cosparse"
    path.write_bytes(case.to_bytes())
    with pytest.raises(case.error) as caught:
        _C.read_artifact(path)
    assert type(caught.value) is case.error
    assert caught.value.about.startswith(str(path))
    message = str(caught.value)
    assert [part for part in case.says if part not in message] == [], message
    assert len(message) < 2000


def test_the_table_of_cases():
    assert len(CASES) >= 90
    assert [id for id, count in Counter(case.id for case in CASES).items() if count > 1] == []


def test_bending_nothing_is_accepted():
    _C.parse_artifact(take_apart(every_op()).to_bytes())


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.cosparse: expected a readable file, got No such file or directory"):
        artifact.read(tmp_path / "none.cosparse")


def test_directory(tmp_path):
    with pytest.raises(ArtifactError, match="expected a regular file, got a directory"):
        artifact.read(tmp_path)


def test_path_with_a_nul(tmp_path):
    (tmp_path / "net").write_bytes(artifact.to_bytes(every_op()))
    with pytest.raises(ArtifactError, match="expected a readable file, got a path with a NUL"):
        _C.read_artifact(os.fsencode(tmp_path / "net") + b"\0.cosparse")


def test_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="expected a regular file, got a named pipe"):
        artifact.read(tmp_path / "pipe")


def test_device():
    with pytest.raises(ArtifactError, match="expected a regular file, got a device or socket"):
        artifact.read("/dev/zero")


def test_sparse_giant_costs_nothing(tmp_path):
    """The size of the file is a number in the file system, not memory to take at once."""
    path = tmp_path / "giant.cosparse"
    path.write_bytes(artifact.to_bytes(every_op()))
    os.truncate(path, 2**35)
    with pytest.raises(ArtifactError, match="expected the tensors to fill the 34359"):
        artifact.read(path)
    os.truncate(path, 2**37)
    with pytest.raises(ArtifactError, match="expected at most 64 GiB, got 137438953472 bytes"):
        artifact.read(path)


def test_file_name_that_is_no_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.cosparse"
    with pytest.raises(ArtifactError, match=r"\\xff\.cosparse: expected a readable file"):
        _C.read_artifact(path)


def test_shrinks_or_grows_while_read(tmp_path):
    """A writer changes the length all the time; whatever the reader meets is either the whole file or a refusal."""
    path = tmp_path / "net.cosparse"
    content = artifact.to_bytes(every_op())
    path.write_bytes(content)
    stop = threading.Event()

    def writer() -> None:
        while not stop.is_set():
            os.truncate(path, 100)
            path.write_bytes(content)
            os.truncate(path, len(content) + 1)

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for _ in range(500):
            with contextlib.suppress(ArtifactError):
                assert _C.read_artifact(path).file_bytes == len(content)
    finally:
        stop.set()
        thread.join()
