"""The pictures of a report, each an SVG element, each from one bench result or sweep; None where the result has no data for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosparse.bench.break_even import GAIN
from cosparse.bench.svg import INK, element, figure, printable

WIDTH = 4.5  # inches: what a phone shows at about its natural size
MOST_LAYERS = 40
ENGINE = "cosparse"


def label(point: Mapping[str, Any]) -> str:
    """What a variant of a sweep is called."""
    return f"density {point['name']}" if point["density"] is not None else str(point["name"])


def candidates(result: Mapping[str, Any], name: str) -> str | None:
    """Median of each candidate, its 90th percentile as a whisker, the fastest on top."""
    rows = {candidate: row for candidate, row in _candidates(result).items() if row.get("median_ms")}
    if not rows:
        return None
    order = sorted(rows, key=lambda candidate: -rows[candidate]["median_ms"])
    colours = _colours(rows)
    with figure(WIDTH, 0.7 + 0.36 * len(order)) as made:
        axis = made.subplots()
        for y, candidate in enumerate(order):
            row = rows[candidate]
            axis.barh(y, row["median_ms"], height=0.62, color=colours[candidate])
            axis.plot([row["median_ms"], row["p90_ms"]], [y, y], color=INK["ink"], linewidth=1.2)
            _beside(axis, max(row["median_ms"], row["p90_ms"]), y, _ms(row["median_ms"]), 9)
        axis.set_yticks(range(len(order)), [printable(candidate, 24) for candidate in order])
        axis.set_xlim(0, 1.18 * max(max(row["median_ms"], row["p90_ms"]) for row in rows.values()))
        axis.set_xlabel("ms, median; line to p90")
        axis.grid(axis="y", visible=False)
        return element(made, name, "Latency of each candidate")


def latencies(result: Mapping[str, Any], name: str) -> str | None:
    """Histogram of all calls of each candidate, on one logarithmic axis; not of sweeps, whose many variants would hide each other."""
    rows = {candidate: row["samples_ms"] for candidate, row in _candidates(result).items() if row.get("samples_ms")}
    if not rows or "points" in result:
        return None
    everything = np.concatenate([np.asarray(samples) for samples in rows.values()])
    low, high = np.percentile(everything, [0, 99.8])
    bins = np.geomspace(0.97 * low, 1.03 * max(high, low), 80)
    colours = _colours(_candidates(result))
    with figure(WIDTH, 2.9) as made:
        axis = made.subplots()
        for candidate, samples in rows.items():
            weights = np.full(len(samples), 1 / len(samples))
            style: dict[str, Any] = {"weights": weights, "color": colours[candidate], "label": printable(candidate, 18)}
            axis.hist(np.clip(samples, bins[0], bins[-1]), bins=bins.tolist(), histtype="stepfilled", alpha=0.75, **style)
        axis.set_xscale("log")
        _plain_log(axis.xaxis, bins[0], bins[-1])
        axis.set_xlabel("ms a call (the slowest 0.2 % in the last bin)")
        axis.set_ylabel("share of calls")
        _legend(made, len(rows))
        return element(made, name, "Distribution of call times")


def layers(result: Mapping[str, Any], name: str) -> str | None:
    """Time of the longest steps in the order of the network, beside the same steps with dense weights."""
    timed = [row for row in result.get("layers", ()) if row["us"]]
    if not timed:
        return None
    limit = sorted((row["us"] for row in timed), reverse=True)[:MOST_LAYERS][-1]
    rows = [row for row in timed if row["us"] >= limit][:MOST_LAYERS][::-1]
    total = sum(row["us"] for row in timed)
    where = np.arange(len(rows))
    with figure(WIDTH, 1.0 + 0.24 * len(rows)) as made:
        axis = made.subplots()
        axis.barh(where + 0.2, [row["us"] for row in rows], height=0.38, color=INK["s0"], label=ENGINE)
        axis.barh(where - 0.2, [row["dense_us"] or 0 for row in rows], height=0.38, color=INK["s1"], label="same kernels, dense")
        for y, row in zip(where, rows, strict=True):
            _beside(axis, row["us"], y + 0.2, f"{row['us'] / total:.0%}", 7)
        axis.set_yticks(where, [printable(row["name"]) for row in rows], fontsize=8)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_xlabel("us; share of the network's time at the bar")
        axis.grid(axis="y", visible=False)
        _legend(made, 2)
        return element(made, name, "Time of each layer")


def roofline(result: Mapping[str, Any], name: str) -> str | None:
    """GFLOP/s over FLOP per byte, both logarithmic: the machine's two limits, and every step below them, its area its time."""
    peak, bandwidth = result["machine"].get("peak_gflops"), result["machine"].get("bandwidth_gbs")
    rows = [row for row in result.get("layers", ()) if row.get("intensity") and row.get("gflops")]
    if not peak or not bandwidth or not rows:
        return None
    x = np.array([row["intensity"] for row in rows])
    y = np.array([row["gflops"] for row in rows])
    us = np.array([row["us"] for row in rows])
    sparse = np.array([row["density"] < 1 for row in rows])
    ridge = peak / bandwidth
    span = np.geomspace(min(x.min(), ridge) / 2, max(x.max(), ridge) * 2, 200)
    with figure(WIDTH, 3.6) as made:
        axis = made.subplots()
        axis.plot(span, np.minimum(peak, span * bandwidth), color=INK["muted"], label=f"{peak:,.0f} GFLOP/s, {bandwidth:,.0f} GB/s")
        for mask, colour, kind in ((sparse, "s0", "sparse"), (~sparse, "s1", "dense")):
            if mask.any():
                axis.scatter(x[mask], y[mask], s=12 + 260 * us[mask] / us.sum(), color=INK[colour], alpha=0.75, linewidths=0, label=kind)
        axis.set_xscale("log")
        axis.set_yscale("log")
        _plain_log(axis.xaxis, *span[[0, -1]])
        _plain_log(axis.yaxis, y.min() / 1.5, peak * 1.5)
        axis.set_xlabel("FLOP per byte (weights, input and output once)")
        axis.set_ylabel("GFLOP/s on what is executed")
        _legend(made, 3)
        return element(made, name, "Roofline")


def curve(result: Mapping[str, Any], name: str) -> str | None:
    """Latency over density beside our dense kernels and the fastest peer, with the break-even density."""
    points = sorted((p["density"], p["engine"]["median_ms"], p["engine"]["p90_ms"]) for p in result.get("points", ()) if _on_curve(p))
    if not points:
        return None
    density, median, p90 = (np.array(column) for column in zip(*points, strict=True))
    with figure(WIDTH, 3.4) as made:
        axis = made.subplots()
        dense = result["dense"]["median_ms"]
        axis.fill_between(density, median, p90, color=INK["s0"], alpha=0.2, linewidth=0)
        axis.plot(density, median, marker="o", markersize=5, color=INK["s0"], label="sparse (band to p90)")
        axis.plot([0, 1], [0, dense], linestyle=":", linewidth=1.2, color=INK["muted"], label="every operation saved is time")
        axis.axhline(dense, color=INK["s1"], label="dense, our kernels")
        if peer := result["fastest_peer"]:
            axis.axhline(result["peers"][peer]["median_ms"], color=INK["s2"], linestyle="--", label=f"dense, {printable(peer, 18)}")
        if even := result.get("break_even"):
            axis.axvline(even, color=INK["muted"], linewidth=1)
            axis.text(even, 0, f"break-even {even:.2f} ", ha="right", va="bottom", fontsize=9)
            axis.plot(even, (1 - GAIN) * dense, marker="D", markersize=6, color=INK["ink"])
        axis.set_xlim(0, 1.02)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("density of the masked layers")
        axis.set_ylabel("ms")
        _legend(made, 2)
        return element(made, name, "Latency over density")


def _on_curve(point: Mapping[str, Any]) -> bool:
    return point["density"] is not None and point["engine"]["median_ms"] is not None


def _candidates(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    if "points" in result:
        variants = {f"{ENGINE}, {label(point)}": point["engine"] for point in result["points"]}
        return {**variants, f"{ENGINE}, dense": result["dense"], **result["peers"]}
    return {ENGINE: result["engine"], **result["peers"]}


def _colours(rows: Mapping[str, Any]) -> dict[str, str]:
    peers = [name for name in rows if not name.startswith(ENGINE)]
    return {name: INK["s0"] if name not in peers else INK[f"s{1 + peers.index(name) % 7}"] for name in rows}


def _beside(axis: Any, x: float, y: float, text: str, size: int) -> None:
    axis.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=size, annotation_clip=False)


def _legend(made: Any, columns: int) -> None:
    made.legend(loc="outside upper left", ncols=columns if columns <= 3 else 2)


def _plain_log(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis from low to high with plain numbers at 1, 2, 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, (1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)


def _ms(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
