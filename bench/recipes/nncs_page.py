"""Writes the tables of docs/results/nncs.md from the results beside it, and the curves as a picture.

    python -m cosparse.bench.recipes.nncs_page

The page's text is written by hand; a table stands between the lines `<!-- table NAME -->` and `<!-- end -->`. Rows that have not been run
are not in the tables; the page says so itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosparse.bench.recipes.nncs import RESULTS
from cosparse.bench.recipes.nncs_latency import LATENCY
from cosparse.bench.recipes.nncs_rows import ROWS

PAGE = RESULTS.with_suffix(".md")
CURVES = RESULTS / "curves.png"

Results = Mapping[str, Mapping[str, Any]]


def results() -> dict[str, dict[str, Any]]:
    """Row name -> what it gave, in the order of the rows."""
    files = {name: RESULTS / f"{name}.json" for name in ROWS}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def latencies() -> dict[str, dict[str, Any]]:
    return json.loads(LATENCY.read_text()) if LATENCY.exists() else {}


def _option(row: str, name: str) -> str:
    options = ROWS[row].options
    return options[options.index(name) + 1] if name in options else ""


def _drop(result: Mapping[str, Any]) -> str:
    return f"{result['dense_top1'] - result['top1']:+.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _shares(result: Mapping[str, Any]) -> list[str]:
    return [f"-{result['flops_reduction']:.1%}", f"-{result['params_reduction']:.1%}"]


def _speed(timed: Mapping[str, Any] | None) -> list[str]:
    """Engine, fastest dense peer, ratio."""
    if timed is None:
        return ["–"] * 3
    return [f"{timed['engine_ms']:.3g}", f"{timed['peer_ms']:.3g} ({timed['peer']})", f"{timed['speedup']:.2f}"]


def reached(done: Results) -> str:
    """What a budget costs in accuracy, and what it brings in time."""
    times = latencies()
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "reached":
            result = entry["result"]
            accuracy = [f"{result['dense_top1']:.2f}", f"{result['top1']:.2f}", _drop(result)]
            rest = [*_speed(times.get(name)), f"{entry['seconds'] / 60:.0f}"]
            rows.append([name, *_shares(result), _option(name, "--epochs"), *accuracy, *rest])
    counted = ["row", "FLOPs", "parameters", "epochs", "dense top-1", "engine's top-1", "drop"]
    return _table([*counted, "ms", "dense peer, ms", "ratio", "minutes"], rows)


def controls(done: Results) -> str:
    """Domains across, block sizes down."""
    domains = ("identity", "random", "dct", "klt")
    rows = []
    for block in ("1", "4", "8"):
        names = [f"control-{domain}-r{block}" for domain in domains]
        if all(name in done for name in names):
            rows.append([block, *(f"{done[name]['result']['top1']:.2f}" for name in names)])
    return _table(["r", *domains], rows)


def steps(done: Results) -> str:
    rows = [
        [name.removeprefix("steps-"), " ".join(ROWS[name].options), f"{entry['result']['top1']:.2f}", _drop(entry["result"])]
        for name, entry in done.items()
        if ROWS[name].table == "steps"
    ]
    return _table(["variant", "options", "engine's top-1", "drop"], rows)


def trained(done: Results) -> str:
    """What the training alone brings to a network that keeps all its weights."""
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "trained-on":
            result = entry["result"]
            rows.append(
                [ROWS[name].network, _option(name, "--epochs"), f"{result['dense_top1']:.2f}", f"{result['top1']:.2f}", _drop(result)]
            )
    return _table(["network", "epochs", "before", "after, engine's top-1", "drop"], rows)


def curves(done: Results) -> str:
    times = latencies()
    rows = []
    for name, entry in done.items():
        if ROWS[name].table == "curves":
            result = entry["result"]
            accuracy = [f"{result['top1']:.2f}", _drop(result)]
            rows.append([ROWS[name].network, _option(name, "--block"), *_shares(result), *accuracy, *_speed(times.get(name))])
    return _table(["network", "r", "FLOPs", "parameters", "engine's top-1", "drop", "ms", "dense peer, ms", "ratio"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "reached": reached,
    "controls": controls,
    "steps": steps,
    "trained": trained,
    "curves": curves,
}


def filled(page: str, done: Results) -> str:
    """The page with every table made anew; what is outside the marks stays."""

    def table(mark: re.Match[str]) -> str:
        return f"<!-- table {mark[1]} -->\n\n{TABLES[mark[1]](done)}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


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
            lines.setdefault((ROWS[name].network, _option(name, "--block")), []).append(point)
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
    done = results()
    PAGE.write_text(filled(PAGE.read_text(), done))
    picture(done, CURVES)


if __name__ == "__main__":
    main()
