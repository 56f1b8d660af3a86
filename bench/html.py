"""Bench results and sweeps as one HTML page: no script, nothing loaded from elsewhere, readable on a phone, light and dark.

Names in a result come from files that strangers may have written. The template escapes all of them, the pictures are built as XML trees,
and the page forbids scripts and requests to itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from cosparse.bench import plots, report, sweep_report
from cosparse.bench.plots import ENGINE
from cosparse.errors import Error

PLOTS = (
    ("Break-even", plots.curve),
    ("Latency", plots.candidates),
    ("Distribution of calls", plots.latencies),
    ("Roofline", plots.roofline),
    ("Layers", plots.layers),
)


def render(results: Sequence[Mapping[str, Any]]) -> str:
    """The page for one or more results of `bench`, `density_sweep` or `together`."""
    if not results:
        raise Error("report", "at least one result", "none")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cosparse.bench", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "share": share}
    views = [_view(result, index) for index, result in enumerate(results)]
    models = list(dict.fromkeys(str(result["model"]) for result in results))
    return environment.get_template("report.html").render(title=", ".join(models), views=views, machine=results[0]["machine"])


def figure(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent; a dash for None."""
    if value is None:
        return "–"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, places)}f}"


def share(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _view(result: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What the template shows of one result."""
    sweep = "points" in result
    pictures = [(title, draw(result, f"r{index}-{draw.__name__}")) for title, draw in PLOTS]
    passed = all(point["check"]["passed"] for point in result["points"]) if sweep else result["check"]["passed"]
    return {
        "setting": f"{report.setting(result)}, {result['dtype']}",
        "isa": result["machine"]["isa"],
        "result": result,
        "sweep": sweep,
        "passed": passed,
        "stable": bool(result["verdict"]["stable"]),
        "headline": _headline(result, passed),
        "sentence": " ".join(sweep_report.sentences(result)) if sweep else _check(result),
        "verdict": report.verdict(dict(result["verdict"]), result["device"]),
        "tiles": _sweep_tiles(result) if sweep else _tiles(result),
        "candidates": _candidates(result),
        "pictures": [(title, Markup(picture)) for title, picture in pictures if picture],
        "layers": result.get("layers", []),
        "losing": result.get("losing_layers", []),
    }


def _headline(result: Mapping[str, Any], passed: bool) -> tuple[str, str]:
    """The one figure, and what it is."""
    if not passed:
        return "Outputs differ", "no speed-up is given"
    if "points" in result:
        fastest = max(result["points"], key=lambda point: point["dense_speedup"] or 0)
        return f"{fastest['dense_speedup']:.2f}×", f"as fast as our dense kernels: {plots.label(fastest)}"
    if result["speedup"] is not None:
        return f"{result['speedup']:.2f}×", f"as fast as {result['fastest_peer']}, the fastest dense peer"
    return f"{figure(result['engine']['median_ms'])} ms", "median, no peers asked"


def _check(result: Mapping[str, Any]) -> str:
    check = result["check"]
    if check.get("against") == "float64":
        error = "not finite" if check["rms_rel_err"] is None else f"{check['rms_rel_err']:.2g} of the outputs' size"
        return f"Against float64: error {error}, bound {check['tolerance']:.2g}, twice cuDNN's own."
    error = "not finite or of another shape" if check["max_abs_err"] is None else f"{check['max_abs_err']:.2g}"
    return f"Largest output difference {error}, bound {check['tolerance']:.2g}."


def _tiles(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("engine, median", f"{figure(result['engine']['median_ms'])} ms"),
        ("fastest peer", f"{figure(result['peers'][result['fastest_peer']]['median_ms'])} ms" if result["fastest_peer"] else "–"),
        ("our dense kernels", f"{figure(result['engine'].get('dense_ms'))} ms"),
        ("fewer operations", f"{figure(result['flop_speedup'])}×"),
        ("of it realised", share(result["realised"])),
        ("peak memory", f"{figure(result['engine']['peak_rss_mb'])} MB"),
        ("FLOPs removed", share(result["flops_reduction"], 1)),
        ("parameters removed", share(result["params_reduction"], 1)),
    ]


def _sweep_tiles(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    peer = result["fastest_peer"]
    tiles = [("our dense kernels", f"{figure(result['dense']['median_ms'])} ms")]
    tiles += [(f"fastest peer: {peer}", f"{figure(result['peers'][peer]['median_ms'])} ms")] if peer else []
    if "break_even" in result:
        monotone = {True: "yes", False: "no", None: "–"}[result["monotone"]]
        tiles += [("break-even density", figure(result["break_even"], 2)), ("latency falls with density", monotone)]
    return tiles


def _candidates(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of candidates; `own` marks the engine's."""
    own = {"version": result["machine"]["versions"]["cosparse"], "own": True, "point": None, "label": result["machine"]["isa"]}
    if "points" not in result:
        rows = [{**result["engine"], **own, "name": ENGINE, "point": result}]
    else:
        rows = [{**point["engine"], **own, "name": f"{ENGINE}, {plots.label(point)}", "point": point} for point in result["points"]]
        rows.append({**result["dense"], **own, "name": f"{ENGINE}, dense"})
    return rows + [{"label": "", **row, "name": name, "own": False, "point": None} for name, row in result["peers"].items()]
