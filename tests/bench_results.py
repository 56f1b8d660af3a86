"""Bench objects as the harness makes them, with names that try to break out of wherever they are shown."""

from __future__ import annotations

from typing import Any

EVIL = "<script>alert(1)</script>\"'&$x$\x00"
SUMMARY = {"min_ms": 0.9, "p90_ms": 1.2, "p99_ms": 1.5, "spread": 0.05}


def figures(ms: float, **more: Any) -> dict[str, Any]:
    times = {key: value if key == "spread" else value * ms for key, value in SUMMARY.items()}
    cold = {"load_ms": 10.0, "first_run_ms": 5.0, "peak_rss_mb": 40.0}
    return {"median_ms": ms, "p50_ms": ms, **times, **cold, "samples_ms": [ms * (0.9 + 0.002 * i) for i in range(150)], **more}


def machine() -> dict[str, Any]:
    roof = {"peak_gflops": 200.0, "bandwidth_gbs": 25.0}
    return {"cpu": EVIL, "cores": 2, "isa": "avx512", "versions": {"cosparse": "0.1.0", "torch": None}, "commit": None, **roof}


def layer(name: str, us: float = 20.0) -> dict[str, Any]:
    row = {"name": name, "kernel": "conv_f32_8x2__avx512", "density": 0.2, "flops": 1e6, "bytes": 4000, "us": us, "gflops": 2e3 / us}
    roof = {"intensity": 12.5, "roof_gflops": 200.0, "roof_share": 0.5, "dense_gflops": 300.0}
    return row | {"dense_us": 3 * us, "realised": 0.6, "why": "sparse in the DCT"} | roof


def bench_result(**changes: Any) -> dict[str, Any]:
    setting = {"model": f"net {EVIL}", "device": "cpu", "dtype": "float32", "batch": 1, "threads": 2, "machine": machine()}
    found = {"flops_reduction": 0.75, "params_reduction": 0.7, "check": {"max_abs_err": 1e-6, "tolerance": 1e-4, "passed": True}}
    peers = {"torch": figures(3.0, dtype="float32", version="2"), "onnxruntime": figures(2.0, dtype="float32", version="1")}
    ratios = {"fastest_peer": "onnxruntime", "speedup": 2.0, "flop_speedup": 4.0, "realised": 0.5}
    layers = [layer(f"{EVIL} {i}", 10.0 + i) for i in range(3)] + [layer("pool", 1.0) | {"dense_us": None, "realised": None, "flops": 0.0}]
    verdict = {"stable": True, "neighbours": 0.01}
    return setting | found | {"engine": figures(1.0), "peers": peers} | ratios | {"layers": layers, "verdict": verdict} | changes


def sweep_result(**changes: Any) -> dict[str, Any]:
    result = bench_result()
    points = [
        {"name": f"{density:g}", "density": density, "flops_reduction": 1 - density, "params_reduction": 1 - density}
        | {"flop_speedup": 1 / density, "check": result["check"], "engine": figures(2.2 * density + 0.1)}
        | {"speedup": 1.0, "dense_speedup": 2.0 / (2.2 * density + 0.1), "realised": 0.8}
        for density in (1.0, 0.5, 0.2)
    ]
    frame = {key: result[key] for key in ("model", "device", "dtype", "batch", "threads", "machine", "peers", "fastest_peer", "verdict")}
    curve = {"block": 8, "break_even": 0.84, "monotone": True, "rises": []}
    return frame | {"dense": figures(2.0), "points": points} | curve | changes
