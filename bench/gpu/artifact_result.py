"""The bench object of one artifact on a GPU, from what was measured; made without a GPU.

Its keys are those of the CPU's. What differs:

flops_reduction   of the values stored, whatever form the engine chose; the basis step is not counted
check             root mean square error against float64; the tolerance is twice cuDNN's own error in the same dtype
engine            load_ms and first_run_ms are taken in the bench's process; device_mb is GPU memory; dense_ms: our own dense forms
layers            bytes: weights, used inputs and output, each moved once; dense_us: cuDNN's dense layer with bias, addition and ReLU in its
                  call; realised is against it
verdict           neighbours: share of a second in which others' kernels ran on the GPU before the measurement
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cosparse.bench.check import PEER_FACTOR, closeness
from cosparse.bench.cold import FIGURES
from cosparse.bench.dense import WEIGHTED, density, parameters
from cosparse.bench.environment import cpu_model
from cosparse.bench.gpu.agreement import Agreement, rms
from cosparse.bench.gpu.device import Ceilings
from cosparse.bench.gpu.timing import Times
from cosparse.bench.timing import SUMMARY
from cosparse.engine.gpu.fuse import AND
from cosparse.engine.graph import Graph
from cosparse.kernels.conv import weight_shape

ENGINE, TWIN = "engine", "dense"
UNSTABLE_SPREAD, BUSY = 0.15, 0.10
# A layer takes some microseconds, and its median moves by a tenth of one.
LOSS_FACTOR, LOSS_US = 1.10, 0.5


@dataclass(frozen=True)
class Found:
    """What was measured. `plan`: rows of the engine's plan at this batch. `notes`: of each dense candidate how it ran or why it did not."""

    graph: Graph
    device: str
    dtype: str
    batch: int
    machine: Mapping[str, Any]
    plan: Any
    check: Mapping[str, Any]
    start: Mapping[str, float]
    times: Mapping[str, Times] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    busy: float | None = None


def check(got: Any, wanted: Tensor, peer: Tensor) -> dict[str, Any]:
    """The engine's output against float64, beside cuDNN's; None for figures that are not finite."""
    found = closeness(got.double().cpu().numpy(), wanted.cpu().numpy())
    agreement = Agreement(rms(got, wanted), rms(peer, wanted), bool(torch.isfinite(got).all() and torch.isfinite(peer).all()))
    judged = agreement.to_json()
    tolerance = PEER_FACTOR * (judged["cudnn_rms_rel_err"] or 0.0)
    figures = found.to_json() | {"bound": "rms_rel_err", "against": "float64", "tolerance": tolerance}
    return figures | {"cudnn_rms_rel_err": judged["cudnn_rms_rel_err"], "ratio": judged["ratio"], "passed": judged["passed"]}


def place(isa: str) -> dict[str, Any]:
    """What `machine` has besides the description of the GPU."""
    return {"cpu": cpu_model(), "isa": isa, "clocks": None, "peak_gflops": None, "bandwidth_gbs": None, "roofline_by": None}


def multiply_adds(graph: Graph, plan: Any) -> tuple[float, float]:
    """(those of the stored values, those of the dense layers) at the plan's batch."""
    nodes = {node.name: node for node in graph.nodes if node.op in WEIGHTED}
    stored = 0.0
    for row in plan:
        parts = [nodes[name] for name in row.name.split(AND) if name in nodes]
        weights = [math.prod(weight_shape(node)) for node in parts]  # two layers of one step have as many pixels
        kept = sum(weight * min(1.0, density(node)) for weight, node in zip(weights, parts, strict=True))
        stored += row.dense_flops * (kept / sum(weights) if parts else 1.0)
    return stored, sum(row.dense_flops for row in plan)


def result(found: Found, against: Sequence[str]) -> dict[str, Any]:
    """The object without its layers."""
    stored, whole = multiply_adds(found.graph, found.plan)
    ours, twin = found.times.get(ENGINE), found.times.get(TWIN)
    clocks = ours.to_json() if ours else {}
    machine = dict(found.machine) | {"clocks": {key: clocks.get(key) for key in ("sm_mhz", "memory_mhz")}}
    made = {
        "model": found.graph.name,
        "device": found.device,
        "dtype": found.dtype,
        "batch": found.batch,
        "threads": 1,
        "machine": machine,
        "flops_reduction": round(1 - stored / whole, 5) if whole else 0.0,
        "params_reduction": round(parameters(found.graph).reduction, 5),
        "check": dict(found.check),
        "engine": _row(ours) | dict(found.start) | _dense(twin, found.notes),
        "peers": {name: _row(found.times.get(name)) | _about(name, found) for name in against},
        "fastest_peer": None,
        "speedup": None,
        "flop_speedup": round(whole / stored, 4) if stored else None,
        "realised": None,
        "layers": [],
        "losing_layers": [],
        "verdict": {},
    }
    return made | _conclusion(made, found.busy)


def _row(times: Times | None) -> dict[str, Any]:
    timed = dict.fromkeys(SUMMARY) | {"samples_ms": []} if times is None else times.to_json() | {"samples_ms": times.samples_ms()}
    return timed | dict.fromkeys(FIGURES)


def _dense(twin: Times | None, notes: Mapping[str, str]) -> dict[str, Any]:
    return {"dense_ms": round(twin.median_ms, 5) if twin else None, "dense_by": notes.get(TWIN), "memory_ratio": None}


def _about(name: str, found: Found) -> dict[str, Any]:
    versions = found.machine["versions"]
    version = versions.get("onnxruntime" if name == "tensorrt" else "torch")
    return {"dtype": found.dtype, "version": version, "label": found.notes.get(name, "not timed: the engine's outputs differ")}


def _conclusion(made: Mapping[str, Any], busy: float | None) -> dict[str, Any]:
    medians = {name: row["median_ms"] for name, row in made["peers"].items() if row["median_ms"] is not None}
    spreads = [made["engine"]["spread"]]
    found: dict[str, Any] = {}
    if medians and made["engine"]["median_ms"]:
        fastest = min(medians, key=medians.__getitem__)
        speedup, ideal = medians[fastest] / made["engine"]["median_ms"], made["flop_speedup"]
        found = {"fastest_peer": fastest, "speedup": round(speedup, 4), "realised": round(speedup / ideal, 4) if ideal else None}
        spreads.append(made["peers"][fastest]["spread"])
    calm = all(spread is not None and spread <= UNSTABLE_SPREAD for spread in spreads)
    return found | {"verdict": {"stable": calm and (busy is None or busy <= BUSY), "neighbours": busy}}


def add_layers(made: dict[str, Any], rows: Sequence[Mapping[str, Any]], ceilings: Ceilings) -> None:
    """Puts the rows of `layers.rows` into the object, with rates and what the ceilings allow, and names the layers that lose."""
    peak, bandwidth = ceilings.flops_per_s / 1e9, ceilings.bytes_per_s / 1e9
    roof = {"peak_gflops": round(peak, 1), "bandwidth_gbs": round(bandwidth, 1), "roofline_by": ceilings.to_json()["how"]}
    made["machine"] |= roof
    made["layers"] = [_layer(row, peak, bandwidth) for row in rows]
    made["losing_layers"] = [row["name"] for row in rows if row["dense_us"] and row["us"] > LOSS_FACTOR * row["dense_us"] + LOSS_US]


def _layer(row: Mapping[str, Any], peak: float, bandwidth: float) -> dict[str, Any]:
    us, executed = row["us"], row["flops"]
    rate, dense_rate = (2e-3 * count / us if count and us else None for count in (executed, row["dense_flops"]))
    intensity = 2 * executed / row["bytes"] if executed and row["bytes"] else None
    roof = min(peak, bandwidth * intensity) if intensity else None
    found = {"gflops": rate, "dense_gflops": dense_rate, "intensity": intensity, "roof_gflops": roof}
    share = {"roof_share": rate / roof if rate and roof else None}
    return dict(row) | {key: None if value is None else round(value, 4) for key, value in (found | share).items()}
