"""Programs of their own for the tests of what happens to processes: forks, limits, other users."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


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


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
"""
"""Python text behind which no file grows beyond 1 KiB."""
