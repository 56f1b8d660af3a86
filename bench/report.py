"""A bench result for people: one table of candidates, one of layers, and the sentence that sums them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from cosparse.bench.layers import loses

CANDIDATE_COLUMNS = ("runtime", "median ms", "min", "p90", "p99", "spread", "load ms", "first run ms", "peak MB", "version", "as")
LAYER_COLUMNS = ("step", "kernel", "density", "MFLOP", "kB", "us", "GFLOP/s", "of roof", "dense us", "realised", "why")


def tables(result: dict[str, Any]) -> list[RenderableType]:
    """What `cosparse bench` prints for one result."""
    where = f"{result['machine']['isa']} on {result['machine'].get('gpu') or result['machine']['cpu']}"
    title = f"{result['model']}: {setting(result)}, {result['dtype']}, {where}"
    shown: list[RenderableType] = [title, _candidates(result), _sentence(result)]
    if result["layers"]:
        shown += ["", _layers(result["layers"]), "", *_limits(result)]
    return shown


def failure(result: dict[str, Any]) -> str | None:
    """What `--strict` objects to, None if nothing: other outputs, a faster peer, or our own dense kernels that are faster."""
    if not result["check"]["passed"]:
        return f"{setting(result)}: outputs differ from the peers' ({_check(result)})"
    reasons = []
    if result["speedup"] is not None and result["speedup"] < 1:
        reasons.append(f"{1 / result['speedup']:.2f} times slower than {result['fastest_peer']}")
    own, dense = result["engine"]["median_ms"], result["engine"]["dense_ms"]
    if own is not None and dense is not None and loses(own * 1e3, dense * 1e3):
        reasons.append(f"{own / dense:.2f} times slower than our own dense kernels")
    if result["losing_layers"]:
        count = len(result["losing_layers"])
        reasons.append(f"{count} layer{'s' if count > 1 else ''} slower than dense: {', '.join(result['losing_layers'])}")
    return f"{setting(result)}: {', '.join(reasons)}" if reasons else None


def setting(result: Mapping[str, Any]) -> str:
    """What was measured, in words: the batch, and the threads or the GPU."""
    threads = f"{result['threads']} thread{'s' * (result['threads'] != 1)}"
    return f"batch {result['batch']}, {threads if result['device'] == 'cpu' else result['device']}"


def _candidates(result: dict[str, Any]) -> Table:
    made = Table(box=None, header_style="dim", pad_edge=False)
    for column in CANDIDATE_COLUMNS:
        made.add_column(column, justify="left" if column in ("runtime", "version", "as") else "right", no_wrap=True)
    keys = ("median_ms", "min_ms", "p90_ms", "p99_ms", "spread", "load_ms", "first_run_ms", "peak_rss_mb")
    engine = result["engine"] | {"version": result["machine"]["versions"]["cosparse"], "label": result["machine"]["isa"]}
    for name, row in {"engine": engine, **result["peers"]}.items():
        made.add_row(name, *(_number(row[key], 3 if key.endswith("_ms") else 2) for key in keys), row["version"], row["label"])
    return made


def _layers(rows: list[dict[str, Any]]) -> Table:
    made = Table(box=None, header_style="dim", pad_edge=False)
    for column in LAYER_COLUMNS:
        made.add_column(
            column,
            justify="left" if column in ("step", "kernel", "why") else "right",
            overflow="ellipsis" if column == "why" else "fold",
            no_wrap=column == "why",
        )
    for row in rows:
        roof = "" if row["roof_share"] is None else f"{row['roof_share']:.0%}"
        counts = (row["density"], row["flops"] / 1e6, row["bytes"] / 1e3, row["us"], row["gflops"])
        against_dense = (_number(row["dense_us"], 2), _number(row["realised"], 2))
        made.add_row(row["name"], row["kernel"], *(_number(figure, 2) for figure in counts), roof, *against_dense, row["why"])
    return made


def _sentence(result: dict[str, Any]) -> str:
    if not result["check"]["passed"]:
        return f"Outputs differ ({_check(result)}): no speedup is given."
    parts = [f"Outputs agree ({_check(result)})"]
    counted = " with the basis step" if result["device"] == "cpu" else ""
    cut = f"-{result['flops_reduction']:.1%} multiply-adds{counted}, -{result['params_reduction']:.1%} parameters"
    if result["speedup"] is None:
        parts.append(cut)
    else:
        flops = f"{result['flop_speedup']:.2f} x fewer multiply-adds" if result["flop_speedup"] else "no multiply-adds counted"
        realised = f", {result['realised']:.0%} of it realised" if result["realised"] else ""
        parts.append(f"{result['speedup']:.2f} x as fast as {result['fastest_peer']}; {flops} ({cut}){realised}")
    return ". ".join(parts) + ". " + verdict(result["verdict"], result["device"])


def verdict(value: dict[str, Any], device: str = "cpu") -> str:
    """Whether the times can be trusted, in words."""
    busy = value["neighbours"]
    whom = "" if busy is None else f"{busy:.2f} processors busy" if device == "cpu" else f"the GPU busy for {busy:.0%} of the time"
    beside = f"others kept {whom}" if whom else "neighbours cannot be seen here"
    return f"Times are stable ({beside})." if value["stable"] else f"Times are NOT stable ({beside}): measure again on a quiet machine."


def _limits(result: dict[str, Any]) -> list[str]:
    """What the roof of the layers is, and which of them lose."""
    machine, losing = result["machine"], result["losing_layers"]
    dense = "on our dense kernels" if result["device"] == "cpu" else "cuDNN's dense layer"
    lines = [f"Slower than {dense}: {', '.join(losing)}."] if losing else []
    if machine["peak_gflops"] is not None:
        lines.append(f"Roof: {machine['peak_gflops']:.0f} GFLOP/s, {machine['bandwidth_gbs']:.1f} GB/s ({machine['roofline_by']}).")
    return lines


def _check(result: dict[str, Any]) -> str:
    check = result["check"]
    figure = check[check["bound"]]
    size = "not finite or of another shape" if figure is None else f"{figure:.2g}"
    if check["bound"] == "max_abs_err":
        return f"largest difference {size}, bound {check['tolerance']:.2g}"
    against = f"against {check.get('against', 'float32')}"
    return f"{against}: error {size} of the outputs' size, bound {check['tolerance']:.2g}; same top-1 {check['top1_agreement']:.1%}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
