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
from gpu_measurements import MACHINE, times_of
from small_net import small_net

import cosparse
from cosparse.bench.gpu import artifact_bench, artifact_result, device, layers, peers
from cosparse.bench.gpu.agreement import Network
from cosparse.bench.gpu.device import Ceilings
from cosparse.bench.gpu.fold import fused
from cosparse.bench.gpu.peers import Peer
from cosparse.bench.gpu.timing import Times
from cosparse.cli import run
from cosparse.engine import artifact
from cosparse.errors import UnsupportedError
from cosparse.kernels import reference

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")


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
