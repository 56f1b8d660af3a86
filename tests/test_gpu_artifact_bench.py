"""A bench of an artifact on a GPU, as far as it goes without one: the dense module for the peers, and the object of a measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_measurements import MACHINE, times_of
from sample_graphs import every_op, every_transform
from small_net import small_net

from cosparse import _C
from cosparse.bench import csv_out, html, report
from cosparse.bench.dense import densify
from cosparse.bench.gpu import artifact_bench, artifact_result, dense_module, layers
from cosparse.bench.gpu.artifact_bench import Settings
from cosparse.bench.gpu.artifact_result import Found
from cosparse.bench.gpu.device import Ceilings
from cosparse.bench.gpu.fold import ConvRelu, folded, fused
from cosparse.cli.bench_outputs import failure, picture
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.engine.plan import PlanRow, ProfileRow
from cosparse.errors import Error, UnsupportedError
from cosparse.kernels import reference


def built(graph: Graph, folder: Path, batch: int = 3) -> tuple[dense_module.Dense, torch.Tensor, torch.Tensor]:
    """(the dense module, an input, what the reference says of it)."""
    path = folder / "net.cosparse"
    artifact.write(path, graph)
    x = np.random.default_rng(0).standard_normal((batch, *graph.inputs[0].shape[1:]), np.float32)  # type: ignore[arg-type]
    shapes = _C.infer_shapes(_C.read_artifact(path), [list(x.shape)])
    return dense_module.build(densify(graph), shapes), torch.from_numpy(x), torch.from_numpy(reference.run(graph, x)[0]).float()


def one_input(output: str) -> Graph:
    """every_op without its second input, and with one output."""
    graph = every_op()
    nodes = tuple(node for node in graph.nodes if node.name not in ("both", "linear", "softmax"))
    return replace(graph, inputs=graph.inputs[:1], outputs=(output,), nodes=nodes)


def uneven_pool() -> Graph:
    window = {"kernel": [3, 3], "stride": [2, 2], "pad": [0, 1, 1, 0], "ceil": 0, "count_pad": 0, "divisor": 0}
    return Graph("pool", (Input("x", (None, 4, 8, 8)),), ("pool",), (Node("pool", "avg_pool", ("x",), window),))


NETS: dict[str, Callable[[], Graph]] = {
    "small": small_net,
    "transforms": every_transform,
    **{f"every op to {name}": partial(one_input, name) for name in ("mean", "like", "permute")},
    "uneven pool": uneven_pool,
}


@pytest.mark.parametrize("make", [lambda module: module, folded, fused], ids=["built", "folded", "fused"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_dense_module_computes_what_the_artifact_says(net: Callable[[], Graph], make: Callable[..., Any], tmp_path: Path) -> None:
    dense, x, wanted = built(net(), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(make(dense.module)(x), wanted, rtol=1e-4, atol=1e-4)


def test_its_tensors_move_and_a_compiler_reads_it_whole(tmp_path: Path) -> None:
    for net in (partial(one_input, "mean"), uneven_pool):
        dense, x, wanted = built(net(), tmp_path)
        compiled = torch.compile(folded(dense.module), backend="eager", fullgraph=True, dynamic=False)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), wanted, rtol=1e-4, atol=1e-4)
            moved = folded(dense.module).to(dtype=torch.float64)
            assert moved(x.double()).dtype == torch.float64
            torch.testing.assert_close(moved(x.double()).float(), wanted, rtol=1e-4, atol=1e-4)
            on_meta = folded(dense.module).to(device="meta", dtype=torch.float16)(x.to("meta").half())
            assert (on_meta.device.type, on_meta.shape) == ("meta", wanted.shape)  # nothing stays behind on the CPU


def test_it_is_fused_and_its_modules_are_named_as_the_nodes(tmp_path: Path) -> None:
    dense, _, _ = built(small_net(), tmp_path)
    made = fused(dense.module)
    found = {dense.names[name] for name, module in made.named_modules() if isinstance(module, ConvRelu)}
    assert found == {"stem", "conv1", "conv2"}


def test_a_peer_takes_one_input_and_one_output() -> None:
    with pytest.raises(UnsupportedError, match="2 inputs and 3 outputs; bench it on the CPU"):
        dense_module.require_one(every_op())


CHECK = {"max_abs_err": 1e-3, "rms_rel_err": 1e-3, "top1_agreement": 1.0, "bound": "rms_rel_err", "against": "float64", "tolerance": 2e-3}


def plan() -> list[PlanRow]:
    return [
        PlanRow("stem", "conv", "taps64+relu", 1.0, 1e6, 0.0, 1e6, 800, "the only form"),
        PlanRow("conv1", "conv", "maps64+add+relu", 0.5, 2e6, 0.0, 4e6, 1000, "measured"),
        PlanRow("pool", "mean", "mean", 1.0, 0.0, 0.0, 0.0, 0, ""),
    ]


def found(**changes: Any) -> Found:
    times = {"engine": times_of(1.0), "dense": times_of(2.5), "cudnn_graph": times_of(3.0), "compile": times_of(2.0)}
    notes = {"cudnn_graph": "one CUDA graph", "compile": "max-autotune", "tensorrt": "not installed", "dense": "dense forms"}
    start = {"load_ms": 5.0, "first_run_ms": 50.0, "device_mb": 7.0}
    machine = MACHINE | artifact_result.place("sm_90")
    whole = Found(small_net(), "cuda", "float16", 32, machine, plan(), CHECK | {"passed": True}, start, times, notes, 0.0)
    return replace(whole, **changes)


AGAINST = ("cudnn_graph", "compile", "tensorrt")
KEYS = (
    "model, device, dtype, batch, threads, machine, flops_reduction, params_reduction, check, engine, peers, fastest_peer, speedup, "
    "flop_speedup, realised, layers, losing_layers, verdict"
)


def with_layers() -> dict[str, Any]:
    made = artifact_result.result(found(), AGAINST)
    profile = [ProfileRow(row.name, row.op, row.kernel, us, us, 0.1, 0.0, 0.0) for row, us in zip(plan(), (9.0, 20.0, 2.0), strict=True)]
    shapes = {node.name: (32, 16, 8, 8) for node in small_net().nodes} | {"x": (32, 3, 8, 8)}
    ceilings = Ceilings(1e12, 5e14)
    rows = layers.rows(profile, plan(), small_net(), shapes, {"stem": 6.0, "conv1": 40.0}, ceilings)
    artifact_result.add_layers(made, rows, ceilings)
    return made


def test_the_object_of_a_measurement() -> None:
    made = json.loads(json.dumps(with_layers(), allow_nan=False))
    assert list(made) == KEYS.split(", ")
    graph = small_net()
    stored = 1e6 + 4e6 * artifact_result.density(graph.node("conv1"))
    assert made["flops_reduction"] == pytest.approx(1 - stored / 5e6, abs=1e-5)
    assert made["flop_speedup"] == pytest.approx(5e6 / stored, abs=1e-4)
    assert (made["fastest_peer"], made["speedup"]) == ("compile", 2.0)
    assert made["realised"] == pytest.approx(2 * stored / 5e6, abs=1e-4)
    assert 0 < made["params_reduction"] < 1
    assert made["engine"]["dense_ms"] == 2.5
    assert (made["engine"]["load_ms"], made["engine"]["device_mb"], made["engine"]["peak_rss_mb"]) == (5.0, 7.0, None)
    assert made["machine"]["clocks"] == {"sm_mhz": 1980.0, "memory_mhz": 3201.0}
    assert made["peers"]["tensorrt"]["median_ms"] is None
    assert made["peers"]["tensorrt"]["label"] == "not installed"
    assert made["verdict"] == {"stable": True, "neighbours": 0.0}
    stem, conv, pool = made["layers"]
    assert made["losing_layers"] == ["stem"]
    assert conv.keys() >= {"name", "kernel", "density", "flops", "bytes", "us", "gflops", "dense_us", "realised", "why"}
    assert (conv["gflops"], conv["dense_gflops"], conv["realised"]) == (200.0, 400.0, 1.0)
    assert stem["realised"] == pytest.approx(6 / 9, abs=1e-3)
    assert (pool["gflops"], pool["dense_us"], pool["realised"]) == (None, None, None)


def test_what_strict_objects_to() -> None:
    assert "cuda: 1 layer slower than dense: stem" in (failure(with_layers()) or "")
    assert failure(artifact_result.result(found(), AGAINST)) is None
    slow = artifact_result.result(found(times=found().times | {"engine": times_of(4.0)}), AGAINST)
    assert failure(slow) == "batch 32, cuda: 2.00 times slower than compile, 1.60 times slower than our own dense kernels"
    wrong = artifact_result.result(found(check=CHECK | {"passed": False}, times={}, notes={}), AGAINST)
    assert (wrong["speedup"], wrong["verdict"]["stable"]) == (None, False)
    assert "outputs differ" in (failure(wrong) or "")
    assert not artifact_result.result(found(busy=0.5), AGAINST)["verdict"]["stable"]


def test_it_is_shown_to_people(capsys) -> None:
    from cosparse.cli.output import emit

    made = with_layers()
    emit(made, None, *report.tables(made))
    shown = capsys.readouterr().out
    assert "small: batch 32, cuda, float16, sm_90 on G" in shown
    assert "2.00 x as fast as compile" in shown
    assert "against float64: error 0.001 of the outputs' size, bound 0.002" in shown
    assert "Slower than cuDNN's dense layer: stem." in shown
    assert "others kept the GPU busy for 0% of the time" in shown
    page = html.render([made])
    assert "<dt>GPU</dt><dd>G, driver 1, CUDA 13</dd>" in page
    assert "batch 32, cuda, float16" in page
    assert picture(made).startswith("<?xml") or "<svg" in picture(made)
    assert csv_out.candidates([made]).count("\n") == 5
    assert csv_out.layers([made]).count("\n") == 4


def test_the_engine_may_err_twice_as_much_as_cudnn() -> None:
    wanted = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off = wanted * (1 + 1e-3)
    judged = artifact_result.check((wanted * (1 + 1.9e-3)).float(), wanted, off)
    assert judged["passed"]
    assert judged["tolerance"] == pytest.approx(2e-3, rel=1e-3)
    assert judged["rms_rel_err"] == pytest.approx(1.9e-3, rel=1e-3)
    assert not artifact_result.check((wanted * (1 + 2.1e-3)).float(), wanted, off)["passed"]
    broken = artifact_result.check(torch.full((4, 10), torch.nan), wanted, off)
    assert not broken["passed"]
    json.dumps(broken, allow_nan=False)


def test_settings_out_of_range() -> None:
    with pytest.raises(Error, match="batch: expected at least 1, got 0"):
        artifact_bench.require(Settings(batch=0))
