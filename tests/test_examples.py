"""The example files run as the pages say, and do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

import cosparse

EXAMPLES = REPOSITORY / "docs" / "examples"


def test_three_lines_compress_a_network_of_the_users_own(tmp_path: Path) -> None:
    script, out = EXAMPLES / "own_loop.py", tmp_path / "digits.cosparse"
    text = script.read_text()
    assert text.count("  # +") == 3
    loop = text[text.index("optimizer =") : text.index("print(nncs.finish")]
    assert len(loop.splitlines()) <= 30
    done = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"top-1 by the engine: ([\d.]+)%", done.stdout)
    assert accuracy
    assert float(accuracy[1]) > 94  # the same loop without the three lines: 98 %
    assert re.search(r"MFLOP .* \(-50\.\d+%\)", done.stdout)
    assert cosparse.load(out).outputs[0].shape == (None, 10)
