"""Times the artifacts of the SSR+PSO runs beside the networks that they were made from, on the engine and on dense peers.

    python -m cosparse.bench.recipes.ssr_latency --data ../shared/data --out out/ssr

All networks made from one dense network run in turn in one process. Run it on a quiet machine. The result is docs/results/ssr/latency.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cosparse.atomic import replacing
from cosparse.bench import zoo
from cosparse.bench.recipes.page import option
from cosparse.bench.recipes.rows import Row
from cosparse.bench.recipes.ssr import RESULTS
from cosparse.bench.recipes.ssr_rows import ROWS
from cosparse.bench.settings import Settings
from cosparse.bench.sweep import together
from cosparse.bench.timing import Effort
from cosparse.compress import export

LATENCY = RESULTS / "latency.json"


def time_rows(rows: list[Row], data: Path, out: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """Row name -> medians in ms at batch 1, all threads; the rows share network, weights and input size."""
    first = rows[0]
    classes, size = option(first, "--classes"), option(first, "--size")
    model, example = zoo.build(first.network, int(classes) if classes else None), zoo.example(first.network)
    if size:
        _, height, width = (int(side) for side in size.split(","))
        example = example[..., :height, :width]
    zoo.load_weights(model, (data if (data / first.weights).exists() else out.parent) / first.weights)
    with TemporaryDirectory(prefix="cosparse-") as folder:
        dense = Path(folder) / "dense.cosparse"
        export(model, example, dense, name=first.network)
        settings = Settings(batch=1, effort=Effort(seconds), cold_start=False, layers=False)
        result = together({row.name: out / f"{row.name}.cosparse" for row in rows}, dense, settings)
    peer = result["fastest_peer"]
    common = {"peer": peer, "peer_ms": result["peers"][peer]["median_ms"], "dense_ms": result["dense"]["median_ms"]}
    common |= {"threads": result["threads"], "stable": result["verdict"]["stable"]}
    ratios = ("speedup", "dense_speedup", "flop_speedup", "realised")
    return {
        point["name"]: {"engine_ms": point["engine"]["median_ms"], **common, **{r: point[r] for r in ratios}} for point in result["points"]
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/ssr"), help="where bench.recipes.ssr left the artifacts")
    parser.add_argument("--seconds", type=float, default=1.0, help="timed seconds for each candidate")
    options = parser.parse_args(arguments)
    families = defaultdict(list)
    for row in ROWS.values():
        if (options.out / f"{row.name}.cosparse").exists():
            families[row.network, row.weights, option(row, "--size")].append(row)
    known: dict[str, Any] = {}
    for rows in families.values():
        known |= time_rows(rows, options.data, options.out, options.seconds)
    with replacing(LATENCY) as part:
        part.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
