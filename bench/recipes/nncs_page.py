"""Writes the tables of docs/results/nncs.md from the results beside it, and the curves as a picture.

    python -m cosparse.bench.recipes.nncs_page

The page's text is written by hand; a table stands between the lines `<!-- table NAME -->` and `<!-- end -->`. Rows that have not been run
are not in the tables; the page says so itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosparse.bench.recipes.nncs import RESULTS
from cosparse.bench.recipes.nncs_latency import LATENCY
from cosparse.bench.recipes.nncs_rows import ROWS
from cosparse.bench.recipes.page import Results, drop, filled, option, results, shares, speed, table

PAGE = RESULTS.with_suffix(".md")
CURVES = RESULTS / "curves.png"


def latencies() -> dict[str, dict[str, Any]]:
    return json.loads(LATENCY.read_text()) if LATENCY.exists() else {}


def reached(done: Results) -> str:
    """What a budget costs in accuracy, and what it brings in time."""
    times = latencies()
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "reached":
            result = entry["result"]
            accuracy = [f"{result['dense_top1']:.2f}", f"{result['top1']:.2f}", drop(result)]
            rest = [*speed(times.get(name)), f"{entry['seconds'] / 60:.0f}"]
            rows.append([name, *shares(result), option(ROWS[name], "--epochs"), *accuracy, *rest])
    counted = ["row", "FLOPs", "parameters", "epochs", "dense top-1", "engine's top-1", "drop"]
    return table([*counted, "ms", "dense peer, ms", "ratio", "minutes"], rows)


def controls(done: Results) -> str:
    """Domains across, block sizes down."""
    domains = ("identity", "random", "dct", "klt")
    rows = []
    for block in ("1", "4", "8"):
        names = [f"control-{domain}-r{block}" for domain in domains]
        if all(name in done for name in names):
            rows.append([block, *(f"{done[name]['result']['top1']:.2f}" for name in names)])
    return table(["r", *domains], rows)


def steps(done: Results) -> str:
    rows = [
        [name.removeprefix("steps-"), " ".join(ROWS[name].options), f"{entry['result']['top1']:.2f}", drop(entry["result"])]
        for name, entry in done.items()
        if ROWS[name].table == "steps"
    ]
    return table(["variant", "options", "engine's top-1", "drop"], rows)


def trained(done: Results) -> str:
    """What the training alone brings to a network that keeps all its weights."""
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "trained-on":
            result = entry["result"]
            rows.append(
                [ROWS[name].network, option(ROWS[name], "--epochs"), f"{result['dense_top1']:.2f}", f"{result['top1']:.2f}", drop(result)]
            )
    return table(["network", "epochs", "before", "after, engine's top-1", "drop"], rows)


def curves(done: Results) -> str:
    times = latencies()
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "curves":
            result = entry["result"]
            accuracy = [f"{result['top1']:.2f}", drop(result)]
            rows.append([ROWS[name].network, option(ROWS[name], "--block"), *shares(result), *accuracy, *speed(times.get(name))])
    return table(["network", "r", "FLOPs", "parameters", "engine's top-1", "drop", "ms", "dense peer, ms", "ratio"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "reached": reached,
    "controls": controls,
    "steps": steps,
    "trained": trained,
    "curves": curves,
}


def picture(done: Results, path: Path) -> bool:
    """Drop against FLOPs removed, and latency against the same axis, one line for each network and block size; False without data."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = latencies()
    lines: dict[tuple[str, str], list[tuple[float, Any, Any]]] = {}
    for name, entry in done.items():
        if ROWS[name].table == "curves":
            point = (entry["result"]["flops_reduction"], entry["result"], times.get(name))
            lines.setdefault((ROWS[name].network, option(ROWS[name], "--block")), []).append(point)
    if not lines:
        return False
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(5, 6), layout="constrained")
    for (network, block), points in lines.items():
        points.sort(key=lambda point: point[0])
        label = f"{network}, r = {block}"
        removed = [100 * share for share, _, _ in points]
        (line,) = above.plot(removed, [result["dense_top1"] - result["top1"] for _, result, _ in points], marker="o", label=label)
        timed = [(100 * share, measured["engine_ms"]) for share, _, measured in points if measured]
        if timed:
            below.plot(*zip(*timed, strict=True), marker="o", color=line.get_color(), label=label)
    above.set(ylabel="points of top-1 lost", title="CIFAR-10 (JPEG), one run each")
    below.set(ylabel="ms, batch 1", xlabel="% of FLOPs removed, basis step counted", ylim=(0, None))
    above.legend()
    for axis in (above, below):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def main() -> None:
    done = results(ROWS, RESULTS)
    PAGE.write_text(filled(PAGE.read_text(), TABLES, done))
    picture(done, CURVES)


if __name__ == "__main__":
    main()
