"""Programs of their own for the tests of what happens to processes: forks, limits, other users; a device of one's own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def run(
    program: str, *arguments: str | Path, seconds: float = 120, under: Sequence[str | Path] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python text; its `sys.argv[1:]` are the arguments. A program that hangs fails the test.
    under: the command that starts Python, where it is not started by itself."""
    path = os.pathsep.join(p for p in [os.path.dirname(__file__), *sys.path] if p)
    return subprocess.run(
        [*map(str, under), sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def null_device(folder: Path) -> Path:
    """A second /dev/null, in the folder; skips where that cannot be made. Never try the first one: whoever may replace it does."""
    made = folder / "null"
    try:
        os.mknod(made, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device can be made here: mknod is not allowed")
    return made


def command(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    words = [sys.executable, "-m", "cosparse", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env={**os.environ, **variables}, check=False)


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
"""
"""Python text behind which no file grows beyond 1 KiB."""
