"""The command line on standard outputs that are closed, full, narrow or left early."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from processes import command as process


def test_standard_output_that_is_closed_or_full(path) -> None:
    closed = subprocess.run(["bash", "-c", f"{sys.executable} -m cosparse inspect {path} >&-"], capture_output=True, text=True)
    assert closed.returncode == 2
    assert closed.stderr == "cosparse: standard output: expected an open one, got a closed one; > /dev/null where nobody reads it\n"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "cosparse", "inspect", path, "--json", "-"], stdout=full, stderr=-1, text=True)
    assert (done.returncode, done.stderr) == (2, "cosparse: standard output: No space left on device\n")


def test_names_that_standard_output_cannot_hold_stand_as_escapes(path, tmp_path) -> None:
    done = process("run", path, "--input", tmp_path / "\udcff", "--output", tmp_path / "y")
    assert (done.returncode, "\\udcff" in done.stderr) == (2, True)
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    done = process("run", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "\udcff\u00e4", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\udcff\\xe4" in done.stdout


def test_a_reader_that_leaves_early_is_no_error(path) -> None:
    command = f"{sys.executable} -m cosparse inspect {path} --json - | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert "BrokenPipe" not in done.stderr
