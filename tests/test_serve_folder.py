"""The folder of models as it is looked at: names, versions, checksums, odd entries, errors that pass."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_parts import images, index, serving, until, write

import cosparse
from cosparse.engine.serve import models
from cosparse.engine.serve.folder import PIECE, checksum, scan
from cosparse.engine.serve.metrics import Metrics
from cosparse.engine.serve.models import Models
from cosparse.engine.serve.settings import Settings


def test_what_a_folder_holds(tmp_path: Path) -> None:
    write(tmp_path / "one.cosparse")
    write(tmp_path / "two" / "1" / "model.cosparse")
    write(tmp_path / "two" / "10" / "model.cosparse")
    write(tmp_path / "two" / "latest" / "model.cosparse")
    write(tmp_path / "two" / "02" / "model.cosparse")
    write(tmp_path / "one" / "1" / "model.cosparse")
    write(tmp_path / "bad name.cosparse")
    (tmp_path / "README.md").write_text("no model")
    (tmp_path / ".hidden.cosparse").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two" / "3").mkdir()
    look = scan(tmp_path)
    found, ignored = look.found, look.ignored
    assert set(found) == {("one", "1"), ("two", "1"), ("two", "10")}
    assert sorted(Path(path).name for path in ignored) in (["bad name.cosparse", "model.cosparse"], ["bad name.cosparse", "one.cosparse"])
    assert {why.partition(", got")[0] for why in ignored.values()} == {
        "expected a name that matches [A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        "expected version 1 of one once",
    }
    assert set(scan(tmp_path / "one.cosparse").found) == {("one", "1")}


def test_what_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(
        cosparse.Error, match=r"nothing/here: expected an artifact or a folder of artifacts, got nothing there; check the path"
    ):
        scan(tmp_path / "nothing/here")
    write(tmp_path / "bad name.cosparse")
    with pytest.raises(cosparse.Error, match=r"expected a file name that matches .*, got 'bad name'; rename it"):
        scan(tmp_path / "bad name.cosparse")


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.cosparse")
    assert checksum(path).startswith("blake2b-256:")
    assert checksum(write(tmp_path / "n.cosparse", seed=1)) != checksum(path)
    for content in (b"", b"12345678", b"\x02" + bytes(7) + b"[]", b"\x05" + bytes(7) + b"{'a':", (10**18).to_bytes(8, "little")):
        (tmp_path / "bad.cosparse").write_bytes(content)
        with pytest.raises(cosparse.ArtifactError, match=r"bad.cosparse: expected an artifact with a checksum"):
            checksum(tmp_path / "bad.cosparse")


def test_a_header_beyond_the_artifact_s_limit_is_not_read(tmp_path: Path) -> None:
    sparse = tmp_path / "bad.cosparse"
    sparse.write_bytes(((64 << 20) + 8).to_bytes(8, "little"))
    os.truncate(sparse, 1 << 27)
    with pytest.raises(cosparse.ArtifactError, match=r"expected an artifact with a checksum, got a header of 67108872 bytes"):
        checksum(sparse)


def test_a_header_is_searched_in_pieces_and_not_read_as_json(tmp_path: Path) -> None:
    """Read at once, one of 60 MB holds up the whole interpreter for seconds."""
    path, text = tmp_path / "m.cosparse", b"blake2b-256:" + b"7" * 64
    for before in (PIECE - 100, PIECE - 76, PIECE - 75, PIECE - 1, PIECE, 3 * PIECE + 5):
        header = b" " * before + text + b" " * 50
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"blake2b-256:" + b"8" * 64)  # behind the header: data
        assert checksum(path) == text.decode()
    hostile = b'{"a":[' + b"{}," * 10_000_000 + b"0]}"
    path.write_bytes(len(hostile).to_bytes(8, "little") + hostile)

    def take() -> None:
        with pytest.raises(cosparse.ArtifactError, match="got none in its header"):
            checksum(path)

    taking = threading.Thread(target=take)
    taking.start()
    pauses, last = [], time.monotonic()
    while taking.is_alive():
        time.sleep(0.001)
        pauses.append(time.monotonic() - last)
        last = time.monotonic()
    assert max(pauses) < 0.5


def test_a_header_with_several_checksums_is_told_apart_by_its_own(tmp_path: Path) -> None:
    path, seen = tmp_path / "m.cosparse", set()
    for digit in b"78":
        header = b" ".join(b"blake2b-256:" + bytes([other]) * 64 for other in b"123456789" if other <= digit)
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        seen.add(checksum(path))
    assert len(seen) == 2
    assert all(text.startswith("header-blake2b-256:") for text in seen)


@pytest.fixture
def alone() -> Iterator[Callable[[Path], Models]]:
    """Models without a server, looked at once. A test that fails leaves none of their threads to the next one."""
    made: list[Models] = []

    def look(source: Path) -> Models:
        made.append(Models(Settings(source, threads=1, max_batch=1), Metrics()))
        made[-1].sync()
        return made[-1]

    yield look
    closed = [each.close(20) for each in made]
    assert all(closed)


def test_an_error_that_passes_takes_no_model_out_of_service(
    tmp_path: Path, alone: Callable[[Path], Models], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network file system that is away for a moment, no file descriptor that is free: of one file, one folder, one version."""
    for name in ("a", "b/1/model", "c/2/model", "d"):
        write(tmp_path / f"{name}.cosparse")
    found = alone(tmp_path)
    before = found.all()
    status, listing = Path.stat, Path.iterdir

    def stale(path: Path, **options: Any) -> os.stat_result:
        if path.name == "a.cosparse" or path.parent == tmp_path / "c" / "2":
            raise OSError(errno.ESTALE, "Stale file handle")
        return status(path, **options)

    def crowded(path: Path) -> Any:
        if path.name == "b":
            raise OSError(errno.EMFILE, "Too many open files")
        return listing(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stale)
        patch.setattr(Path, "iterdir", crowded)
        (tmp_path / "d.cosparse").unlink()
        for _ in range(2):
            found.sync(settle=True)
            assert [model.name for model in found.all()] == ["a", "b", "c"]
    assert [Path(path).name for path, why in passed_over(caplog) if why.endswith("; what is served of it stays")] == [
        "a.cosparse",
        "b",
        "model.cosparse",
    ]
    found.sync(settle=True)
    assert found.all() == before[:3]  # nothing was loaded anew
    for gone in ("a.cosparse", "b/1/model.cosparse", "c/2/model.cosparse"):
        (tmp_path / gone).unlink()
    found.sync(settle=True)
    assert not found.all()


def test_a_lone_artifact_that_is_deleted_is_no_longer_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "in" / "a.cosparse")
    with serving(path, poll=0.05) as server:
        path.unlink()
        until(lambda: server.infer(images(1), "a")[0] == 404)
        assert server.ask("GET", "/v2/health/ready")[0] == 503
        write(path, seed=1)
        until(lambda: server.infer(images(1), "a")[0] == 200)
        assert "folder not read" not in caplog.text
        path.parent.rename(tmp_path / "away")  # the file system is gone rather than the file
        until(lambda: "folder not read" in caplog.text)
        assert server.infer(images(1), "a")[0] == 200


def test_a_change_in_place_whose_time_was_set_back_is_seen(tmp_path: Path, alone: Callable[[Path], Models]) -> None:
    path = write(tmp_path / "a.cosparse")
    found = alone(path)
    before, status = found.all(), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        found.sync(settle=True)
    assert found.all() == before
    assert "the file is damaged" in found.index()[0]["reason"]


def test_a_reason_is_cut(
    tmp_path: Path, alone: Callable[[Path], Models], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.cosparse")

    def refuse(*_: Any, **__: Any) -> None:
        raise cosparse.ArtifactError(f"{path}: tensor '{'x' * 12_000_000}'", "a known dtype", "another")

    monkeypatch.setattr(models, "load", refuse)
    found = alone(tmp_path)
    reason = found.index()[0]["reason"]
    assert reason.startswith("a.cosparse: tensor 'xxx")
    assert reason.endswith(" characters in all)")
    assert len(reason) < 2100
    assert len(next(record.reason for record in caplog.records if record.message == "not loaded")) < 2100  # type: ignore[attr-defined]


def odd_entries(folder: Path) -> list[Path]:
    """What no model can be, and nothing that should keep the others from being served."""
    (folder / "nowhere").symlink_to(folder / "nothing")
    (folder / "nowhere.cosparse").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.cosparse")
    (folder / "device.cosparse").symlink_to("/dev/null")
    (folder / "odd" / "1").mkdir(parents=True)
    (folder / "odd" / "2").mkdir()
    (folder / "odd" / "1" / "model.cosparse").symlink_to(folder / "nothing")
    os.mkfifo(folder / "odd" / "2" / "model.cosparse")
    return [folder / name for name in ("nowhere", "nowhere.cosparse", "loop", "pipe.cosparse", "device.cosparse")] + [
        folder / "odd" / version / "model.cosparse" for version in ("1", "2")
    ]


def passed_over(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Paths and reasons, as the log has them so far."""
    return [(record.path, record.reason) for record in caplog.records if record.message == "passed over"]  # type: ignore[attr-defined]


def test_odd_entries_are_passed_over_with_a_word_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.cosparse")
    write(tmp_path / "odd" / "3" / "model.cosparse")
    with serving(tmp_path, poll=0.05, control=True) as server:
        odd = odd_entries(tmp_path)
        until(lambda: {path for path, _ in passed_over(caplog)} == set(map(str, odd)))
        assert set(index(server)) == {("a", "1"), ("odd", "3")}
        assert server.ask("POST", "/v2/repository/models/a/load")[0] == 200
        (tmp_path / "a.cosparse").unlink()
        until(lambda: set(index(server)) == {("odd", "3")})
    words = passed_over(caplog)
    assert len(words) == len(set(words))  # once for each reason: a look may fall between two steps of making an entry
    with serving(tmp_path) as server:
        assert set(index(server)) == {("odd", "3")}


def test_an_entry_that_vanishes_once_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.cosparse")
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([*real(folder), tmp_path / "gone.cosparse"]))
    look = scan(tmp_path)
    assert set(look.found) == {("a", "1")}
    assert list(look.ignored) == [str(tmp_path / "gone.cosparse")]
    assert not look.unseen


def test_a_look_at_the_folder_that_fails_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.cosparse")
    errors: list[Exception] = [OSError("disk"), KeyError("fault"), cosparse.Error("gone")]

    def sometimes(source: Path) -> Any:
        if errors:
            raise errors.pop()
        return scan(source)

    monkeypatch.setattr(models, "scan", sometimes)
    with serving(tmp_path, poll=0.05) as server:
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        assert caplog.text.count("folder not read") == 3
        errors += [OSError("disk"), KeyError("fault")]
        until(lambda: not errors)
        write(tmp_path / "b.cosparse", seed=1)
        until(lambda: index(server).get(("b", "1"), ("",))[0] == "READY")


def test_clients_do_not_see_where_the_repository_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import tritonclient.grpc as client

    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1").mkdir()
    (tmp_path / "bad" / "1" / "model.cosparse").write_bytes(b"nothing")
    (tmp_path / "closed.cosparse").write_bytes(bytes(8))
    for source in (tmp_path, tmp_path / "closed.cosparse"):
        with serving(source, control=True) as server:
            seen = [reason for _, reason in index(server).values()]
            for name, _ in index(server):
                seen.append(server.infer(images(1), name)[1]["error"])
                seen.append(server.ask("POST", f"/v2/repository/models/{name}/load")[1]["error"])
            assert all("model.cosparse: " in text or "closed.cosparse: " in text for text in seen)
            if source == tmp_path:
                assert any("got bad/1/model.cosparse: expected" in text for text in seen)
                source.rename(tmp_path.with_name("moved"))
                seen.append(server.ask("POST", "/v2/repository/models/bad/load")[1]["error"])
                with client.InferenceServerClient(server.grpc) as triton, pytest.raises(client.InferenceServerException) as info:
                    triton.load_model("bad")
                seen.append(str(info.value))
                assert all("model repository: expected a folder that can be read, got none; try again later" in text for text in seen[-2:])
                tmp_path.with_name("moved").rename(source)
        assert not any(str(tmp_path) in text for text in seen)
    assert any(str(tmp_path / "closed.cosparse") in getattr(record, "reason", "") for record in caplog.records)
