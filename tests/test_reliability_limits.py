"""A disk that is full, a folder that cannot be written, threads that the system does not give: what is said, and what stays whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LIMITED, run
from sample_graphs import every_op
from small_net import small_net

from cosparse.engine import artifact


@pytest.fixture
def network(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "net.cosparse", small_net())
    return tmp_path / "net.cosparse"


def test_a_full_disk_while_an_artifact_is_written(tmp_path: Path) -> None:
    old = tmp_path / "net.cosparse"
    artifact.write(old, every_op())
    before = old.read_bytes()
    program = f"""
import sys, small_net
from cosparse.engine import artifact
{LIMITED}
try:
    artifact.write(sys.argv[1], small_net.small_net())
except OSError as error:
    print(error.strerror)
"""
    done = run(program, old)
    assert done.stdout.strip() == "File too large", done.stdout + done.stderr
    assert old.read_bytes() == before
    assert os.listdir(tmp_path) == [old.name]


@pytest.mark.parametrize("kind", ["state", "checkpoint", "text"])
def test_a_full_disk_while_a_run_saves_its_state(kind: str, tmp_path: Path) -> None:
    program = f"""
import sys, torch
from pathlib import Path
from cosparse.cli import output
from cosparse.compress import checkpoint, search
save = {{
    "state": lambda path, n: search.save_state(path, {{"kind": "a" * n}}),
    "checkpoint": lambda path, n: checkpoint.save(path, {{"model": {{"w": torch.zeros(n)}}}}, {{"epoch": 1}}),
    "text": lambda path, n: output.write_text(path, "a" * n),
}}[sys.argv[1]]
path = Path(sys.argv[2])
save(path, 10)
before = path.read_bytes()
{LIMITED}
try:
    save(path, 10**6)
except OSError as error:
    print(type(error).__name__, "File too large" in str(error), path.read_bytes() == before)
"""
    done = run(program, kind, tmp_path / "saved")
    assert done.stdout.strip() == "OSError True True", done.stdout + done.stderr
    assert os.listdir(tmp_path) == ["saved"]


LOADS = """
import sys, warnings, numpy, cosparse
{limits}
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    engine = cosparse.load(sys.argv[1], threads=2)
    engine.warmup((2,))
assert engine._native.measured > 0
assert numpy.isfinite(engine(numpy.zeros((1, 3, 8, 8), numpy.float32))).all()
print(sorted({{str(w.message).partition("tuning cache ")[2].rpartition(" could ")[2] for w in heard}}))
"""
UNWRITTEN = "['not be written; the next load measures again']"


def test_a_full_disk_while_the_tuning_cache_is_written(network: Path, tmp_path: Path) -> None:
    done = run(LOADS.format(limits=LIMITED.replace("1024", "64")), network, COSPARSE_CACHE=str(tmp_path / "cache"))
    assert done.stdout.strip() == UNWRITTEN, done.stdout + done.stderr
    assert os.listdir(tmp_path / "cache") == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_tuning_cache_that_may_only_be_read(network: Path, open_folder: Path) -> None:
    """What lies there is used; what is new is measured and not kept, with a warning."""
    shutil.copy(network, open_folder / "net.cosparse")
    (open_folder / "net.cosparse").chmod(0o644)
    cache = open_folder / "cache"
    other = open_folder / "other.cosparse"
    artifact.write(other, small_net(channels=8))
    other.chmod(0o644)
    program = LOADS.partition("print")[0].format(limits="").replace("engine.warmup((2,))\n", "\n")
    first = run(program, open_folder / "net.cosparse", COSPARSE_CACHE=str(cache))
    assert first.returncode == 0, first.stderr
    (file,) = cache.iterdir()
    file.chmod(0o644)
    before = file.read_bytes()
    cache.chmod(0o555)
    unprivileged = "import os\ncosparse.load(sys.argv[1], threads=1, tune=False)\nif os.getuid() == 0: os.setuid(65534)"
    done = run(LOADS.format(limits=unprivileged), other, COSPARSE_CACHE=str(cache))
    assert done.stdout.strip() == UNWRITTEN, done.stdout + done.stderr
    known = LOADS.format(limits=unprivileged).replace("engine.warmup((2,))", "").replace("measured > 0", "measured == 0")
    done = run(known, open_folder / "net.cosparse", COSPARSE_CACHE=str(cache))
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert file.read_bytes() == before
    assert os.listdir(cache) == [file.name]


def test_engines_that_load_side_by_side_write_one_whole_cache(network: Path, tmp_path: Path) -> None:
    """They had one file to write to before it took its name: whoever renamed it first took the other's half."""
    program = """
import json, os, sys, threading, warnings, cosparse
warnings.simplefilter("error")
failed = []
def load(i):
    os.environ["COSPARSE_CACHE"] = sys.argv[2]
    try:
        cosparse.load(sys.argv[1], threads=2).warmup((i + 2,))
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=load, args=(i,)) for i in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
(name,) = os.listdir(sys.argv[2])
layers = json.load(open(os.path.join(sys.argv[2], name)))["layers"]
print(failed, len(layers) > 0)
"""
    done = run(program, network, tmp_path / "cache", COSPARSE_CACHE=str(tmp_path / "cache"))
    assert done.stdout.strip() == "[] True", done.stdout + done.stderr


def test_threads_that_the_system_does_not_give_are_an_error(network: Path) -> None:
    """The process was terminated before: a std::thread that nobody joins. Address space is limited, of which each stack takes some."""
    program = """
import resource, sys, threading, numpy, cosparse
artifact = cosparse.engine.engine._C.read_artifact(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))
try:
    cosparse.load(sys.argv[1], threads=1024, tune=False)
except cosparse.Error as error:
    print(error)
print(cosparse.load(sys.argv[1], threads=1, tune=False)(numpy.zeros((1, 3, 8, 8), numpy.float32)).shape)
"""
    done = run(program, network)
    first, _, second = done.stdout.strip().partition("\n")
    assert first.startswith("threads: expected 1024 threads that the system has to give, got "), done.stdout + done.stderr
    assert first.endswith("(Resource temporarily unavailable); use fewer, or raise the limit of processes")
    assert second == "(1, 10)"
