"""The command line of a recipe that is one `cosparse compress` command: on real data, or as a proof on a tiny set that it makes."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def main(
    about: str,
    data: str,
    tiny: str,
    network: str,
    arguments: Callable[[argparse.Namespace], list[str]],
    given: list[str] | None = None,
) -> int:
    """Parses the options, runs what `arguments` makes of them, and gives its exit status; `data`, `tiny`: help for these options."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help=data)
    where.add_argument("--tiny", type=Path, metavar="DIR", help=tiny)
    parser.add_argument("--weights", type=Path, help="trained weights, safetensors; random ones without")
    parser.add_argument("--network", default=network, help="of the zoo")
    parser.add_argument("--out", type=Path, required=True, help="artifact to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    line = arguments(parser.parse_args(given))
    print("cosparse", shlex.join(line), flush=True)
    return subprocess.run([sys.executable, "-m", "cosparse", *line], check=False).returncode
