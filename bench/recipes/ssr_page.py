"""Writes the tables of docs/results/ssr.md from the results beside it.

    python -m cosparse.bench.recipes.ssr_page

Rows that have not been run are not in the tables; the page says so itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from cosparse.bench.recipes.page import Results, drop, filled, option, results, shares, speed, table
from cosparse.bench.recipes.ssr import RESULTS
from cosparse.bench.recipes.ssr_rows import ROWS

PAGE = RESULTS.with_suffix(".md")
LATENCY, RANKING, SEARCH = (RESULTS / f"{name}.json" for name in ("latency", "ranking", "search"))


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else {}


def reached(done: Results) -> str:
    """What a budget costs in accuracy, and what it brings in time."""
    times, rows = _read(LATENCY), []
    for name, entry in done.items():
        if ROWS[name].table != "segmentation":
            result, timed = entry["result"], times.get(name)
            accuracy = [f"{result['dense_top1']:.2f}", f"{result['top1']:.2f}", drop(result)]
            own = [f"{timed['dense_speedup']:.2f} of {timed['flop_speedup']:.2f}"] if timed else ["–"]
            rows.append([name, *shares(result), option(ROWS[name], "--epochs"), *accuracy, *speed(timed), *own])
    counted = ["row", "FLOPs", "parameters", "epochs", "dense top-1", "engine's top-1", "drop"]
    return table([*counted, "ms", "dense peer, ms", "ratio", "against our own dense, of the FLOP ratio"], rows)


def together(done: Results) -> str:
    """Filters and masks, each share and both."""
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "together":
            result = entry["result"]
            parts = [f"-{result[part]['flops_reduction']:.1%}" for part in ("filters", "masks")]
            rows.append([name, *parts, *shares(result), f"{result['top1']:.2f}", drop(result)])
    return table(["row", "filters, FLOPs", "masks of the rest", "FLOPs", "parameters", "engine's top-1", "drop"], rows)


def segmentation(done: Results) -> str:
    times, rows = _read(LATENCY), []
    for name, entry in done.items():
        if ROWS[name].table == "segmentation":
            result = entry["result"]
            scores = [f"{result['dense_miou']:.2f}", f"{result['miou']:.2f}", drop(result, "miou"), f"{result['pixel_accuracy']:.2f}"]
            rows.append([name, *shares(result), option(ROWS[name], "--epochs"), *scores, *speed(times.get(name))])
    counted = ["row", "FLOPs", "parameters", "epochs", "dense mIoU", "engine's mIoU", "drop", "pixel accuracy"]
    return table([*counted, "ms", "dense peer, ms", "ratio"], rows)


def ranking(done: Results) -> str:
    rows = [
        [entry["ranking"], *(f"{entry[fold]['loss']:.3f} / {entry[fold]['top1']:.1f}" for fold in ("plain", "folded"))]
        for entry in _read(RANKING).get("entries", [])
    ]
    return table(["ranking", "loss / top-1", "folded"], rows)


def search(done: Results) -> str:
    found = defaultdict(list)
    for entry in _read(SEARCH).get("entries", []):
        found[entry["search"]].append(entry)
    rows = [
        [
            name,
            ", ".join(f"{entry['fitness']:.4f}" for entry in entries),
            f"{mean(entry['fitness'] for entry in entries):.4f}",
            ", ".join(str(entry["evaluated"]) for entry in entries),
        ]
        for name, entries in found.items()
    ]
    return table(["search", "loss, seeds 0, 1, 2", "mean", "networks scored"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "reached": reached,
    "together": together,
    "segmentation": segmentation,
    "ranking": ranking,
    "search": search,
}


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text(), TABLES, results(ROWS, RESULTS)))


if __name__ == "__main__":
    main()
