"""Times the artifacts of the NNCS runs against dense peers, for the latency columns of docs/results/nncs.md.

    python -m cosparse.bench.recipes.nncs_latency --out out/nncs

Run it on a quiet machine; a row is timed again only where its name is given. The result is docs/results/nncs/latency.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cosparse.atomic import replacing
from cosparse.bench.harness import bench
from cosparse.bench.recipes.nncs import RESULTS
from cosparse.bench.recipes.nncs_rows import ROWS
from cosparse.bench.settings import Settings
from cosparse.bench.timing import Effort

LATENCY = RESULTS / "latency.json"
TIMED = ("reached", "curves")


def time_artifact(path: Path, seconds: float) -> dict[str, Any]:
    """Batch 1, all threads: medians in ms of the engine and of the fastest dense peer, in turn in one process."""
    result = bench(path, Settings(batch=1, effort=Effort(seconds), cold_start=False, layers=False))
    peer = result["fastest_peer"]
    chosen = {key: result[key] for key in ("speedup", "flop_speedup", "realised", "threads", "batch")}
    engine_ms, peer_ms = result["engine"]["median_ms"], result["peers"][peer]["median_ms"]
    return {"engine_ms": engine_ms, "peer": peer, "peer_ms": peer_ms, "stable": result["verdict"]["stable"], **chosen}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="rows to time again; default: those that have an artifact and no latency yet")
    parser.add_argument("--out", type=Path, default=Path("out/nncs"), help="where bench.recipes.nncs left the artifacts")
    parser.add_argument("--seconds", type=float, default=1.0, help="timed seconds for each candidate")
    options = parser.parse_args(arguments)
    known: dict[str, Any] = json.loads(LATENCY.read_text()) if LATENCY.exists() else {}
    for row in ROWS.values():
        path = options.out / f"{row.name}.cosparse"
        if row.table not in TIMED or not path.exists() or not (row.name in options.rows if options.rows else row.name not in known):
            continue
        known[row.name] = time_artifact(path, options.seconds)
        print(row.name, json.dumps(known[row.name]), flush=True)
        with replacing(LATENCY) as part:
            part.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
