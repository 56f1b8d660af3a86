"""The results on a GPU as a page: short tables, made anew from the JSON each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
NOTHING = "–"


def cell(value: Any, form: str = "") -> str:
    """A table's cell: the value in that format, a dash for None; bars are escaped."""
    return NOTHING if value is None else format(value, form).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def networks(result: Result) -> str:
    """One line for each row and batch size."""
    rows = []
    for one in result.get("networks", []):
        ms, peer = one["engine"].get("median_ms"), one["fastest_peer"]
        dense = f"{one['peers'][peer]['median_ms']:.3g} ({peer})" if peer else NOTHING
        bar = NOTHING if one["bar"] is None else f">= {one['bar']:g}: {'pass' if one['passed'] else 'FAIL'}"
        parts = ["run by cuDNN as a whole" if one.get("ran") == "cuDNN" else "", "" if one["stable"] else "not stable"]
        note = one.get("why") or "; ".join(filter(None, parts))
        shares = [f"-{one[key]:.1%}" if one.get(key) else NOTHING for key in ("flops_reduction", "params_reduction")]
        ratio = (one.get("check") or {}).get("ratio")
        figures = [cell(ms, ".3g"), dense, cell(one["speedup"], ".2f"), cell(one["flop_speedup"], ".2f"), cell(one["realised"], ".2f")]
        rows.append([one["row"], *shares, str(one["batch"]), *figures, bar, cell(ratio, ".2f"), cell(note)])
    header = [
        "row",
        "FLOPs",
        "parameters",
        "batch",
        "ms",
        "dense peer, ms",
        "speed-up",
        "ideal",
        "realised",
        "bar",
        "error / cuDNN's",
        "note",
    ]
    return table(header, rows)


def agreement(result: Result) -> str:
    rows = [
        [one["row"], str(one["batch"]), *(cell(one.get(key), ".3g") for key in ("engine_rms_rel_err", "cudnn_rms_rel_err", "ratio")),
         "pass" if one["passed"] else "FAIL", cell(one.get("why", ""))]
        for one in result.get("agreement", [])
    ]  # fmt: skip
    return table(["row", "batch", "engine's error", "cuDNN's", "ratio", "at most 2", "note"], rows)


def layers(result: Result) -> str:
    """The slowest steps of each network, and their sums."""
    parts = []
    for one in result.get("layers", []):
        if "why" in one:
            parts.append(f"{one['row']}, batch {one['batch']}: {one['why']}")
            continue
        slowest = sorted(one["rows"], key=lambda row: -row["us"])[:12]
        rows = [[row["name"], cell(row["kernel"]), *(cell(row[k], f) for k, f in LAYER_FIGURES.items()), row["bound"]] for row in slowest]
        sums = one["totals"]
        text = f"{one['row']}, batch {one['batch']}: {sums['us']:g} us in steps timed alone, floors {sums['floor_us']:g} us"
        losing = f"; slower than dense: {', '.join(sums['losing'])}" if sums["losing"] else ""
        parts.append(f"{text}{losing}. The slowest:\n\n{table(['step', 'kernel', *LAYER_FIGURES, 'bound'], rows)}")
    return "\n\n".join(parts)


LAYER_FIGURES = {
    "density": ".3f",
    "us": ".1f",
    "dense_us": ".1f",
    "speedup": ".2f",
    "realised": ".2f",
    "floor_us": ".1f",
    "of_floor": ".2f",
}


def sparse(result: Result) -> str:
    made = result.get("sparse", [])
    names = list(dict.fromkeys(name for one in made for name in one["us"]))
    rows = [[one["layer"], str(one["batch"]), f"{one['density']:g}", *(cell(one["us"].get(name), ".1f") for name in names)] for one in made]
    return table(["layer", "batch", "density", *(f"{name}, us" for name in names)], rows)


def sections(result: Result) -> str:
    rows = [[name, one["status"], f"{one['seconds']:.0f}", cell(one.get("why", ""))] for name, one in result.get("sections", {}).items()]
    return table(["section", "status", "s", "note"], rows)


PARTS: dict[str, tuple[str, Callable[[Result], str], str]] = {
    "networks": (
        "Networks",
        networks,
        "Engine and peers run in turn, float16, each as one CUDA graph, the L2 warm. `ideal` is the dense network's multiply-adds over the "
        "artifact's, the basis step counted. A peer whose output is wrong is left out. Rows ending in `-even` have one density throughout; "
        "the others what magnitude leaves of random weights, which is whole layers or next to nothing.",
    ),
    "agreement": ("Agreement", agreement, "Root mean square errors against float64, relative to the output, on fresh random inputs."),
    "layers": ("Layers", layers, "`dense_us` is cuDNN's layer alone; floors follow from the measured ceilings."),
    "sparse": ("Sparse products of torch", sparse, "1x1 layers. Blocks of `bsr` are square and lie as suits it; `2:4` keeps half."),
}


def page(result: Result) -> str:
    """The whole page."""
    machine, ceilings = result.get("machine", {}), result.get("ceilings")
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items() if number)
    lines = [
        "# Results on a GPU",
        f"Made by `{result.get('command', '')}`; all figures are in gpu.json beside this page.",
        f"{machine.get('gpu', 'no GPU')}, driver {machine.get('driver')}, CUDA {machine.get('cuda')}, cuDNN {machine.get('cudnn')}, "
        f"{versions}, "
        f"commit {machine.get('commit')}.",
    ]
    if ceilings:
        lines.append(f"Ceilings: {ceilings['copy_tb_s']:g} TB/s, {ceilings['fp16_tflop_s']:g} TFLOP/s ({ceilings['how']}).")
    if kernels := result.get("kernels"):
        lines.append(f"Kernels against their references: {kernels['summary']}.")
    if note := result.get("note"):
        lines.append(note)
    for key, (title, make, text) in PARTS.items():
        if result.get(key):
            lines += [f"## {title}", text, make(result)]
    return "\n\n".join([*lines, "## Sections", sections(result)]) + "\n"
