"""Bench results as rows for a spreadsheet: one row for each candidate and setting, or one for each layer and setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SETTING = ("model", "device", "dtype", "batch", "threads")
MACHINE = ("cpu", "cores", "isa", "commit")
TIMES = ("median_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "spread", "dense_ms")
START = ("load_ms", "first_run_ms", "peak_rss_mb", "grown_mb", "memory_ratio")
RATIOS = ("flops_reduction", "params_reduction", "flop_speedup", "speedup", "realised", "dense_speedup")
WHO = ("candidate", "variant", "label", "version")
CANDIDATES = (*SETTING, *WHO, *TIMES, *START, *RATIOS, "checked", "stable", "neighbours", *MACHINE)
LAYER = (
    "name",
    "kernel",
    "density",
    "flops",
    "bytes",
    "us",
    "gflops",
    "dense_us",
    "dense_gflops",
    "intensity",
    "roof_gflops",
    "roof_share",
)
LAYERS = (*SETTING, *LAYER, "realised", "why")


def candidates(results: Sequence[Mapping[str, Any]]) -> str:
    """CSV of CANDIDATES, header first; a figure that was not measured is an empty cell. Sweeps give one row for each variant."""
    return _csv(CANDIDATES, (row for result in results for row in _candidates(result)))


def layers(results: Sequence[Mapping[str, Any]]) -> str:
    """CSV of LAYERS: one row for each step of each result that has its layers timed."""
    return _csv(LAYERS, ({**result, **layer} for result in results for layer in result.get("layers", ())))


def _candidates(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    common = {key: result[key] for key in SETTING} | {key: result["machine"].get(key) for key in MACHINE}
    common |= {key: result["verdict"].get(key) for key in ("stable", "neighbours")}
    own = {"candidate": "engine", "version": result["machine"]["versions"]["cosparse"]}
    if "points" in result:
        yield {**common, **result["dense"], **own, "variant": "dense"}
        for point in result["points"]:
            yield {**common, **point, **point["engine"], **own, "variant": point["name"], "checked": point["check"]["passed"]}
    else:
        yield {**common, **result, **result["engine"], **own, "checked": result["check"]["passed"]}
    for name, row in result["peers"].items():
        yield {**common, **row, "candidate": name, "variant": "dense"}


def _csv(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(row.get(key)) for key in columns} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe: names come from files that strangers write."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
