"""The runs behind docs/results/nncs.md: every row is a `cosparse compress` command that anyone can repeat.

    python -m cosparse.bench.recipes.nncs --data ../shared/data --out out/nncs            all rows that have no result yet
    python -m cosparse.bench.recipes.nncs --data ../shared/data --out out/nncs ROW ...    these rows
    python -m cosparse.bench.recipes.nncs --list                                          the rows and their commands

A row's result is docs/results/nncs/ROW.json: the command and what it printed, epoch by epoch; the artifact stays in --out. A row that was
interrupted goes on from its checkpoint. `python -m cosparse.bench.recipes.nncs_page` makes the page of the results.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cosparse.bench.recipes.nncs_rows import ROWS, Row
from cosparse.compress.atomic import replacing

RESULTS = Path("docs/results/nncs")


def command(row: Row, data: Path, out: Path) -> list[str]:
    """The row's command line, without what prints: the artifact is OUT/ROW.cosparse, the weights are found in DATA or in OUT."""
    weights = (data if (data / row.weights).exists() else out.parent) / row.weights
    network = ["cosparse", "compress", f"zoo:{row.network}", "--weights", str(weights), "--data", str(data)]
    return [*network, *row.options, "--out", str(out / f"{row.name}.cosparse")]


def run(row: Row, data: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Runs the row to its end and writes its result; raises CalledProcessError where the command fails."""
    line, start = command(row, data, out), time.perf_counter()
    call = [sys.executable, "-m", "cosparse", *line[1:], "--device", device, "--resume", "--json", "-"]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    result.pop("file", None)
    shown = shlex.join(line).replace(str(data), "DATA").replace(str(out.parent), "out")
    entry = {"row": row.name, "command": shown, "device": device, "seconds": round(time.perf_counter() - start), "result": result}
    RESULTS.mkdir(parents=True, exist_ok=True)
    with replacing(RESULTS / f"{row.name}.json") as part:
        part.write_text(json.dumps(entry, indent=1) + "\n")
    return entry


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="rows to run; default: those that have no result yet")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/nncs"))
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, cuda, ...")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.rows) - set(ROWS)):
        parser.error(f"unknown row {unknown[0]!r}: --list names them")
    wanted = options.rows or [name for name in ROWS if not (RESULTS / f"{name}.json").exists()]
    if options.list:
        for row in ROWS.values():
            print(f"{row.name}: {shlex.join(command(row, options.data, options.out))}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        entry = run(ROWS[name], options.data, options.out, options.device)
        print(json.dumps({key: entry[key] for key in ("row", "seconds", "result")}), flush=True)


if __name__ == "__main__":
    main()
