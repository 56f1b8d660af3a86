"""Experiments as rows: each is a `cosparse compress` command that anyone can repeat, and its result a JSON file under docs/results.

A row's result holds the command and what it printed, epoch by epoch; the artifact stays in --out. An interrupted row goes on from its
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosparse.atomic import replacing


@dataclass(frozen=True)
class Row:
    """`table`: where the page shows it; `weights`: a file in the data folder, or one beside --out that another recipe made."""

    name: str
    table: str
    network: str
    weights: str
    options: tuple[str, ...]


def command(row: Row, data: Path, out: Path) -> list[str]:
    """The row's command line, without what prints: the artifact is OUT/ROW.cosparse, the weights are found in DATA or beside OUT."""
    weights = (data if (data / row.weights).exists() else out.parent) / row.weights
    network = ["cosparse", "compress", f"zoo:{row.network}", "--weights", str(weights), "--data", str(data)]
    options = [option.replace("OUT/", f"{out.parent}/") for option in row.options]
    return [*network, *options, "--out", str(out / f"{row.name}.cosparse")]


def run(row: Row, results: Path, data: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Runs the row to its end and writes its result; raises CalledProcessError where the command fails."""
    line, start = command(row, data, out), time.perf_counter()
    call = [sys.executable, "-m", "cosparse", *line[1:], "--device", device, "--resume", "--json", "-"]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    result.pop("file", None)
    shown = shlex.join(line).replace(str(data), "DATA").replace(str(out.parent), "out")
    entry = {"row": row.name, "command": shown, "device": device, "seconds": round(time.perf_counter() - start), "result": result}
    results.mkdir(parents=True, exist_ok=True)
    with replacing(results / f"{row.name}.json") as part:
        part.write_text(json.dumps(entry, indent=1) + "\n")
    return entry


def main(rows: Mapping[str, Row], results: Path, out: Path, about: str, arguments: list[str] | None = None) -> None:
    """The command line of a table of rows: runs those that are named, or those that have no result yet."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("rows", nargs="*", help="rows to run; default: those that have no result yet")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, cuda, ...")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.rows) - set(rows)):
        parser.error(f"unknown row {unknown[0]!r}: --list names them")
    wanted = options.rows or [name for name in rows if not (results / f"{name}.json").exists()]
    if options.list:
        for row in rows.values():
            print(f"{row.name}: {shlex.join(command(row, options.data, options.out))}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        entry = run(rows[name], results, options.data, options.out, options.device)
        print(json.dumps({key: entry[key] for key in ("row", "seconds", "result")}), flush=True)
