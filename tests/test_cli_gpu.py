"""`--device` of the command line, as far as it goes without a GPU: what is refused, what arrives, and a bench on a pretended device."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_graphs import every_op, every_transform
from small_net import small_net

import cosparse
from cosparse import _C
from cosparse.bench import csv_out, html, report
from cosparse.bench.dense import densify
from cosparse.bench.gpu import artifact_bench, artifact_result, dense_module, device, layers, peers
from cosparse.bench.gpu.agreement import Network
from cosparse.bench.gpu.artifact_bench import Settings
from cosparse.bench.gpu.artifact_result import Found
from cosparse.bench.gpu.device import Ceilings
from cosparse.bench.gpu.fold import ConvRelu, folded, fused
from cosparse.bench.gpu.peers import Peer
from cosparse.bench.gpu.timing import Times
from cosparse.cli import run
from cosparse.cli.bench_outputs import failure, picture
from cosparse.engine import artifact
from cosparse.engine.graph import Graph, Input, Node
from cosparse.engine.plan import PlanRow, ProfileRow
from cosparse.errors import Error, UnsupportedError
from cosparse.kernels import reference

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "small.cosparse"
    artifact.write(path, small_net())
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32))
    return tmp_path / "x.npy"


def words(command: str, path: Path, images: Path) -> list[str]:
    more = {
        "run": ["--input", str(images), "--output", str(images.with_name("y.npy"))],
        "eval": ["--data", str(images.parent)],
        "bench": [],
    }
    return [command, str(path), *more[command]]


CPU_ONLY = {"--threads": "2", "--isa": "avx2", "--calibration": "{images}"}


@pytest.mark.parametrize("option", CPU_ONLY)
@pytest.mark.parametrize("command", ["run", "eval", "bench"])
def test_what_is_the_cpus_alone_is_refused(command: str, option: str, path: Path, images: Path, capsys) -> None:
    assert run([*words(command, path, images), "--device", "cuda:1", option, CPU_ONLY[option].format(images=images)]) == 2
    out, err = capsys.readouterr()
    assert err == f"cosparse: {option}: expected --device cpu, got --device cuda:1; leave it out: a GPU has no such setting\n"
    assert not out


@pytest.mark.parametrize("command", ["run", "eval", "bench"])
@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", "cpu:0"])
def test_a_device_is_cpu_or_cuda(command: str, name: str, path: Path, images: Path, capsys) -> None:
    assert run([*words(command, path, images), "--device", name]) == 2
    assert capsys.readouterr().err == f"cosparse: --device: expected cpu, cuda or cuda:N, got {name!r}\n"


@without_cuda
@pytest.mark.parametrize("command", ["run", "eval", "bench"])
def test_without_a_gpu_one_sentence_says_so(command: str, path: Path, images: Path, capsys) -> None:
    assert run([*words(command, path, images), "--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(r"cosparse: .*(CUDA device).*\n", err)
    assert not out


BAD = {
    "a dtype of the CPU": (["--dtype", "int8"], "dtype: expected float16 or bfloat16 on a GPU, got int8"),
    "no images": (["--batch", "0"], "--batch: expected whole numbers"),
    "an unknown peer": (["--against", "onnxruntime"], "peer: expected one of cudnn_graph, cudnn_fused, compile, tensorrt"),
    "a sweep": (["--density", "0.5"], "--density: expected --device cpu"),
    "a picture of several": (["--roofline", "r.svg", "--batch", "1,2"], "--roofline: expected one batch size"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bench_refuses_before_it_measures(options: list[str], message: str, path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(device, "require_cuda", lambda name="cuda": None)
    monkeypatch.setattr(artifact_bench, "bench", lambda *arguments: pytest.fail("measured"))
    assert run(["bench", str(path), "--device", "cuda", *options]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_a_card_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.require_cuda("cuda:1")
    with pytest.raises(UnsupportedError, match="expected cuda:0 to cuda:1, got cuda:2"):
        device.require_cuda("cuda:2")
    with pytest.raises(UnsupportedError, match="TensorrtExecutionProvider"):
        peers.require("tensorrt")
    assert peers.installed() == ("cudnn_graph", "cudnn_fused", "compile")


def test_the_driver_is_asked_about_the_card_that_is_used(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for visible, card in (("", "1"), ("4,GPU-ab", "GPU-ab"), ("3", "1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device.card_name() == card


class OnCpu:
    """The CPU engine under the face of the GPU's."""

    def __init__(self, engine: Any, device: str, dtype: str | None) -> None:
        self.engine, self.device, self.dtype, self.isa = engine, device, dtype or "float16", "sm_90"

    def __call__(self, *inputs: Any) -> Any:
        return self.engine(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def replay(self, *shapes: Any) -> Callable[[], None]:
        return lambda: None


class Pretended:
    """Answers where a GPU engine is asked for; `asked` is what it was asked with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict[str, Any]] = []
        real = cosparse.load

        def load(path: Path, device: str, dtype: str | None, **options: Any) -> Any:
            self.asked.append({"device": device, "dtype": dtype, **options})
            return OnCpu(real(path, threads=1, tune=False, **options), device, dtype)

        monkeypatch.setattr(cosparse, "load", load)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


def test_run_takes_the_device_and_its_own_dtype(path: Path, images: Path, pretended: Pretended, capsys) -> None:
    assert run([*words("run", path, images), "--device", "cuda:1", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert pretended.asked == [{"device": "cuda:1", "dtype": None}]
    assert (result["device"], result["dtype"]) == ("cuda:1", "float16")
    (wanted,) = reference.run(small_net(), np.load(images))
    np.testing.assert_allclose(np.load(images.with_name("y.npy")), wanted, rtol=1e-4, atol=1e-4)


def test_run_on_the_cpu_says_so(path: Path, images: Path, capsys) -> None:
    assert run([*words("run", path, images), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["device"], result["dtype"]) == ("cpu", "float32")


def test_eval_takes_the_device(path: Path, tmp_path: Path, pretended: Pretended, capsys) -> None:
    import pyarrow
    import pyarrow.parquet
    from image_sets import noise, png

    table = pyarrow.table({"image": [png(noise(8, 8, i)) for i in range(4)], "label": np.arange(4, dtype=np.int8)})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"noise_{split}.parquet")
    assert run(["eval", str(path), "--data", str(tmp_path), "--device", "cuda", "--dtype", "bfloat16", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert pretended.asked == [{"device": "cuda", "dtype": "bfloat16"}]
    assert (result["device"], result["dtype"], result["count"]) == ("cuda", "bfloat16", 4)


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


def times_of(ms: float) -> Times:
    return Times(np.full(5, ms * 1e-3), ((1980.0, 3201.0),))


MACHINE = {"gpu": "G", "driver": "1", "cuda": "13", "cores": 2, "versions": {"cosparse": "0.1.0", "torch": "2"}, "commit": None}
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


@pytest.fixture
def no_device(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """All that touches a device is replaced: what is left is the order of things."""

    def fast(candidates: dict[str, Any], seconds: float) -> dict[str, Times]:
        for call in candidates.values():
            call()
        return {name: times_of(1.0 + place) for place, name in enumerate(candidates)}

    def peer(name: str, module: Any, x: torch.Tensor, *, number: torch.dtype, factor: float = 1.0, **more: Any) -> Peer:
        with torch.no_grad():
            y = factor * fused(module)(x)
        return Peer(name, lambda: None, lambda: y, f"{name} {number}")

    def broken(*arguments: Any, **options: Any) -> Peer:
        raise RuntimeError("no algorithm\nat all")

    fakes = {
        "cudnn_graph": partial(peer, "cudnn_graph"),
        "cudnn_fused": partial(peer, "cudnn_fused", factor=1.5),
        "compile": partial(peer, "compile"),
        "tensorrt": broken,
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(peers.PEERS, name, fake)
    monkeypatch.setattr(peers, "require_tensorrt", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext())
    for name, value in (("require_cuda", None), ("busy", 0.0), ("description", dict(MACHINE)), ("ceilings", Ceilings(1e12, 5e14))):
        monkeypatch.setattr(device, name, lambda *arguments, value=value: value)
    monkeypatch.setattr(artifact_bench, "Network", partial(Network, device="cpu"))
    monkeypatch.setattr(
        artifact_bench, "random_input", lambda shape, seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    )
    monkeypatch.setattr(artifact_bench, "in_turn", fast)
    monkeypatch.setattr(layers, "_alone", lambda module, shapes, number: 1e5)
    monkeypatch.setattr(layers, "half", lambda module, number: module.to(number))
    return pretended


def test_bench_from_end_to_end_on_a_pretended_device(path: Path, no_device: Pretended, tmp_path: Path, capsys) -> None:
    options = ["--device", "cuda", "--batch", "1,3", "--report", str(tmp_path / "r.html"), "--csv", str(tmp_path / "c.csv")]
    assert run(["bench", str(path), *options, "--strict", "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(one["batch"], one["device"], one["dtype"]) for one in results] == [(1, "cuda", "float16"), (3, "cuda", "float16")]
    assert no_device.asked[:2] == [{"device": "cuda", "dtype": "float16"}, {"device": "cuda", "dtype": "float16", "dense": True}]
    one = results[0]
    assert one["check"]["passed"]
    assert list(one["peers"]) == ["cudnn_graph", "cudnn_fused", "compile", "tensorrt"]
    assert (one["fastest_peer"], one["speedup"], one["engine"]["dense_ms"]) == ("cudnn_graph", 3.0, 2.0)
    assert one["peers"]["cudnn_fused"]["median_ms"] is None
    assert "output differs from float64 by 0.5" in one["peers"]["cudnn_fused"]["label"]
    assert one["peers"]["tensorrt"]["label"] == "RuntimeError: no algorithm"
    assert {row["name"]: row["dense_us"] for row in one["layers"] if row["dense_us"]} == dict.fromkeys(
        ("stem", "conv1", "conv2", "linear"), 1e5
    )
    assert (tmp_path / "r.html").exists()
    assert (tmp_path / "c.csv").read_text().count("\n") == 11


def test_bench_of_wrong_outputs_times_nothing(path: Path, no_device: Pretended, monkeypatch, capsys) -> None:
    monkeypatch.setattr(artifact_bench, "in_turn", lambda *arguments: pytest.fail("timed"))
    wrong = replace(small_net(), name="wrong")
    monkeypatch.setattr(artifact_result, "rms", lambda got, wanted: 1.0 if got.dtype == torch.float32 else 1e-3)
    artifact.write(path.with_name("wrong.cosparse"), wrong)
    arguments = ["bench", str(path.with_name("wrong.cosparse")), "--device", "cuda", "--against", "compile"]
    assert run([*arguments, "--json", "-"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["check"]["passed"], made["speedup"], made["layers"]) == (False, None, [])
    assert run([*arguments, "--strict"]) == 1
    out, err = capsys.readouterr()
    assert "no speedup is given" in out
    assert "outputs differ" in err


def test_settings_out_of_range() -> None:
    with pytest.raises(Error, match="batch: expected at least 1, got 0"):
        artifact_bench.require(Settings(batch=0))
