"""A sweep over variants for people: the table of points and the sentences that sum it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from cosparse.bench.report import verdict

COLUMNS = ("variant", "median ms", "p90", "spread", "FLOPs", "FLOP ratio", "vs dense", "vs peer", "realised", "outputs")


def tables(result: dict[str, Any]) -> list[RenderableType]:
    """What `cosparse bench --density` prints for one sweep."""
    where = f"{result['machine']['isa']} on {result['machine']['cpu']}"
    title = f"{result['model']}: batch {result['batch']}, {result['threads']} threads, {result['dtype']}, {where}"
    made = Table(box=None, header_style="dim", pad_edge=False)
    for column in COLUMNS:
        made.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for name, row in {"dense, our kernels": result["dense"], **result["peers"]}.items():
        made.add_row(name, *_times(row))
    for point in result["points"]:
        ratios = (point["flop_speedup"], point["dense_speedup"], point["speedup"], point["realised"])
        label = f"density {point['name']}" if point["density"] is not None else point["name"]
        outputs = "agree" if point["check"]["passed"] else "DIFFER"
        made.add_row(label, *_times(point["engine"]), f"-{point['flops_reduction']:.1%}", *map(_number, ratios), outputs)
    return [title, made, " ".join([*sentences(result), verdict(result["verdict"])])]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Break-even and monotony in words; empty for a sweep that is not over densities."""
    if "break_even" not in result or result["monotone"] is None:
        return []
    rises = ", ".join(f"from {high:g} to {low:g}" for high, low in result["rises"])
    return [
        "Sparsity never pays here." if result["break_even"] is None else f"Faster than dense below density {result['break_even']:.2f}.",
        "Latency falls with density throughout." if result["monotone"] else f"Latency RISES {rises}.",
    ]


def failure(result: dict[str, Any]) -> str | None:
    """What `--strict` objects to in a sweep, None if nothing."""
    setting = f"batch {result['batch']}, {result['threads']} threads"
    if wrong := [point["name"] for point in result["points"] if not point["check"]["passed"]]:
        return f"{setting}: outputs differ at {', '.join(wrong)}"
    if result.get("rises"):
        return f"{setting}: latency rises " + ", ".join(f"from density {high:g} to {low:g}" for high, low in result["rises"])
    return None


def _times(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_number(row[key], 3 if key.endswith("_ms") else 2) for key in ("median_ms", "p90_ms", "spread"))


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
