"""Measuring on a GPU, as far as it goes without one: folding, statistics, bars, tables, limits. What needs one is marked."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_net import small_net
from torch import Tensor, nn
from typer.testing import CliRunner

from cosparse.bench import gpu_suite, zoo
from cosparse.bench.claims.networks import Variant
from cosparse.bench.gpu import layers, networks, page, sparse, table, timing
from cosparse.bench.gpu.agreement import LARGEST_ERROR, WRONG, Agreement, Network, allowed_of_peers, in_slices, rms
from cosparse.bench.gpu.device import Ceilings, require_cuda
from cosparse.bench.gpu.fold import ConvRelu, folded, fused
from cosparse.bench.gpu.networks import ROWS, Row, artifact, blocks, pack, row_of
from cosparse.bench.gpu.peers import PEERS, OutOfTime, within
from cosparse.bench.gpu.timing import Device, Times, in_turn
from cosparse.engine import artifact as files
from cosparse.errors import Error, UnsupportedError
from cosparse.kernels import reference

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
MACHINE = {"gpu": "G", "driver": "1", "cuda": "13", "cudnn": 9, "versions": {"torch": "2"}, "commit": None}


def lively(name: str) -> nn.Module:
    """A zoo network whose batch norms do something."""
    model = zoo.build(name)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_()  # type: ignore[union-attr, operator]
    return model


@pytest.mark.parametrize("make", [folded, fused])
@pytest.mark.parametrize(("name", "pairs"), [("resnet20", 19), ("vgg16", 13), ("mobilenet_v2", 0)])
def test_folding_keeps_the_function(make: Callable[[nn.Module], nn.Module], name: str, pairs: int) -> None:
    model, size = lively(name), 32
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = make(model)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert sum(isinstance(module, ConvRelu) for module in made.modules()) == (pairs if make is fused else 0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Awkward(nn.Module):
    """Convolutions that may not be folded or fused: read twice, called twice, followed by a sum of two."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.shared = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y = self.norm(y) + y
        y = self.relu(self.two(y) + self.one(y))
        return self.relu(self.shared(self.relu(self.shared(y))))


def test_what_others_read_is_left_alone() -> None:
    model = Awkward().eval()
    x = torch.randn(2, 4, 6, 6)
    made = fused(model)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
    assert [name for name, module in made.named_modules() if isinstance(module, ConvRelu)] == ["two"]


class Clock:
    """A device whose calls take as long as they say; its events read the time at which they were recorded."""

    def __init__(self) -> None:
        self.now, self.flushed, self.order = 0.0, 0, ""

    def candidate(self, name: str, *seconds: float) -> Callable[[], None]:
        kinds = iter(lambda: seconds, None)
        times: Iterator[float] = (one for several in kinds for one in several)

        def call() -> None:
            self.now += next(times)
            if not self.order.endswith(name):
                self.order += name

        return call

    def device(self) -> Device:
        clock = self

        class Stamp:
            at = 0.0

            def record(self) -> None:
                self.at = clock.now

            def elapsed_time(self, end: Stamp) -> float:
                return (end.at - self.at) * 1e3

        def flush() -> None:
            clock.flushed += 1
            clock.now += 1.0  # outside the events, so that no time sees it

        return Device(Stamp, lambda: None, lambda: None, flush, lambda: (1980.0, 3201.0))


def test_candidates_are_timed_in_turn() -> None:
    clock = Clock()
    times = in_turn({"a": clock.candidate("a", 1e-3), "b": clock.candidate("b", 2e-3, 4e-3)}, 0.2, device=clock.device())
    assert times["a"].median_ms == pytest.approx(1.0)
    assert times["b"].min_ms == pytest.approx(2.0)
    assert times["b"].median_ms == pytest.approx(3.0, abs=1.01)
    assert "ab" * timing.TURNS in clock.order
    shown = times["b"].to_json()
    assert shown["sm_mhz"] == 1980
    assert shown["l2"] == "warm"
    assert shown["p90_ms"] == pytest.approx(4.0)
    assert 0.15 < times["a"].seconds.sum() < 0.25
    assert clock.flushed > 0


def test_figures_of_times() -> None:
    times = Times(np.linspace(1e-3, 2e-3, 101), warm=False)
    assert times.to_json() == {
        "median_ms": 1.5, "min_ms": 1.0, "p50_ms": 1.5, "p90_ms": 1.9, "p99_ms": 1.99, "spread": 0.33333,
        "calls": 101, "l2": "flushed", "sm_mhz": None, "memory_mhz": None,
    }  # fmt: skip
    assert len(times.samples_ms()) == 101


def test_limits_stop_and_nest() -> None:
    with pytest.raises(OutOfTime), within(0.05):
        time.sleep(5)
    with pytest.raises(OutOfTime), within(0.1), within(30):
        time.sleep(5)
    with within(30), pytest.raises(OutOfTime), within(0.05):
        time.sleep(5)
    assert not issubclass(OutOfTime, Exception)


@without_cuda
@pytest.mark.parametrize("name", list(PEERS))
def test_peers_say_that_there_is_no_gpu(name: str) -> None:
    with pytest.raises(UnsupportedError, match="CUDA device"):
        PEERS[name](nn.Identity(), torch.zeros(1, 3, 8, 8))


@without_cuda
def test_everything_else_says_so_too(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="run this on a GPU machine"):
        require_cuda()
    with pytest.raises(UnsupportedError):
        in_turn({}, 1.0)
    with pytest.raises(UnsupportedError):
        sparse.product(sparse.LAYERS[0], 1)
    import typer

    app = typer.Typer()
    app.command()(gpu_suite.main)
    done = CliRunner().invoke(app, ["--cache", str(tmp_path)])
    assert done.exit_code == 2
    assert "CUDA device" in done.output


def test_the_rows_and_their_bars() -> None:
    assert {name: dict(ROWS[name].bars) for name in ("resnet50", "vgg16", "filters")} == {
        "resnet50": {1: 2.0, 32: 1.6, 256: 1.6}, "vgg16": {1: 1.5, 32: 2.0, 256: 2.5}, "filters": {1: 1.5, 32: 1.5, 256: 1.6},
    }  # fmt: skip
    assert ROWS["filters"].ideal == pytest.approx(1 / 0.419)
    assert len({row.variant.file for row in ROWS.values()}) == len(ROWS)
    with pytest.raises(Error, match="one of resnet50"):
        row_of("resnet49")


def test_an_artifact_is_made_found_and_unpacked(tmp_path: Path) -> None:
    row = Row("small", Variant("resnet20", density=0.3, block=16))
    path, model = artifact(row, tmp_path)
    assert isinstance(model, nn.Module)
    found = blocks(path)
    assert {one.block for one in found} == {16}
    assert "of 144 columns" in str(found[0])
    with pytest.raises(Error, match="without transforms"):
        pack(path)
    stamp = path.stat().st_mtime_ns
    assert artifact(row, tmp_path)[0].stat().st_mtime_ns == stamp

    dense = Row("dense", Variant("resnet20"))
    path, _ = artifact(dense, tmp_path)
    packed = pack(path)
    content = path.read_bytes()
    assert packed.stat().st_size < 0.7 * len(content)
    path.unlink()
    assert artifact(dense, tmp_path)[0].read_bytes() == content
    assert networks.BATCHES == (1, 32, 256)


def times_of(ms: float) -> Times:
    return Times(np.full(5, ms * 1e-3))


def test_a_result_and_its_bar() -> None:
    peers = {"compile": times_of(3.0), "cudnn_graph": times_of(2.0)}
    one = table.result(ROWS["vgg16"], 32, peers, times_of(1.0), {"flops_reduction": 0.75}, {})
    assert (one["fastest_peer"], one["speedup"], one["flop_speedup"], one["realised"]) == ("cudnn_graph", 2.0, 4.0, 0.5)
    assert (one["bar"], one["passed"], one["stable"]) == (2.0, True, True)
    wrong = table.result(ROWS["vgg16"], 32, peers, None, {"why": "outputs differ"}, {})
    assert (wrong["speedup"], wrong["passed"], wrong["why"]) == (None, False, "outputs differ")
    assert table.result(ROWS["vgg16"], 5, {}, times_of(1.0), {}, {})["passed"] is None


def test_reductions_count_the_filters_that_are_gone() -> None:
    model = zoo.build("resnet20")
    whole = table.reductions({"flops": 0.0}, model, "resnet20")
    assert whole == {"flops_reduction": 1.0, "params_reduction": None}


@dataclass
class Step:
    name: str
    kernel: str
    density: float
    flops: float
    dense_flops: float
    bytes: int
    why: str = "w"
    us: float = 20.0


def test_layers_are_held_against_the_floors() -> None:
    graph = small_net()
    shapes = {node.name: (2, 16, 8, 8) for node in graph.nodes} | {"x": (2, 3, 8, 8)}
    steps = [Step("conv1", "taps64+add+relu", 0.25, 1e6, 4e6, 1000), Step("pool", "mean", 1.0, 0.0, 0.0, 0)]
    (conv, pool) = layers.rows(steps, steps, graph, shapes, {"conv1": 40.0}, Ceilings(1e9, 1e12))
    used = layers.used_channels(graph.node("conv1"))
    assert 0 < used <= 1
    moved = 1000 + 2 * (used * 2048 + 2 * 2048)
    assert conv["bytes"] == round(moved)
    assert (conv["bound"], conv["floor_us"]) == ("bytes", pytest.approx(moved / 1e3, rel=1e-2))
    assert (conv["speedup"], conv["realised"], conv["of_floor"]) == (2.0, 0.5, pytest.approx(moved / 2e4, rel=1e-2))
    assert (pool["dense_us"], pool["speedup"], pool["realised"]) == (None, None, None)
    assert layers.totals([conv, pool])["losing"] == []
    assert layers.totals([conv | {"speedup": 0.9}])["losing"] == ["conv1"]


def test_the_dense_network_of_an_artifact(tmp_path: Path) -> None:
    graph, path = small_net(), tmp_path / "small.cosparse"
    files.write(path, graph)
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = Network(path, torch.float64, "cpu")
    (wanted,) = reference.run(graph, x.numpy())
    assert rms(exact(x), torch.from_numpy(wanted)) < 1e-5
    assert rms(in_slices(exact, x, 2), exact(x)) < 1e-12
    assert rms(exact(x)[:1], exact(x)) == math.inf


def test_an_engine_may_err_twice_as_much_as_cudnn() -> None:
    assert Agreement(2e-3, 1e-3, finite=True).passed
    assert not Agreement(2.1e-3, 1e-3, finite=True).passed
    assert not Agreement(1e-3, 1e-3, finite=False).passed
    assert not Agreement(math.nan, 1e-3, finite=True).passed
    shown = Agreement(math.inf, 1e-3, finite=True).to_json()
    assert shown["ratio"] is None
    assert not shown["passed"]


def example() -> dict[str, Any]:
    one = table.result(ROWS["vgg16"], 32, {"compile": times_of(3.0)}, times_of(1.0), {"flops_reduction": 0.75}, {})
    step = layers.rows([Step("c", "a|b", 0.5, 1.0, 2.0, 10)], [Step("c", "a|b", 0.5, 1.0, 2.0, 10)], small_net(), {}, {}, Ceilings(1, 1))
    return {
        "machine": MACHINE,
        "command": "gpu_suite",
        "ceilings": Ceilings(4.3e12, 7.9e14).to_json(),
        "kernels": {"summary": "3 passed"},
        "networks": [one, table.result(ROWS["vgg16"], 1, {}, None, {"why": "no kernels"}, {})],
        "agreement": [{"row": "vgg16", "batch": 1, **Agreement(1e-3, 1e-3, finite=True).to_json()}],
        "layers": [{"row": "vgg16", "batch": 32, "rows": step, "totals": layers.totals(step)}, {"row": "x", "batch": 1, "why": "none"}],
        "sparse": [
            {"layer": "1x1", "batch": 1, "density": 0.2, "us": {"dense": 1.0}},
            {"layer": "y", "batch": 1, "density": 1, "us": {"2:4": 2}},
        ],
        "sections": {"networks": {"status": "failed", "seconds": 1.0, "why": "missed"}},
    }


def test_the_page() -> None:
    text = page.page(json.loads(json.dumps(example(), allow_nan=False)))
    assert "| vgg16 | -75.0% | – | 32 | 1 | 3 (compile) | 3.00 | 4.00 | 0.75 | >= 2: pass | – |  |" in text
    assert "| vgg16 | – | – | 1 | – | – | – | 4.31 | – | >= 1.5: FAIL | – | no kernels |" in text
    assert "a\\|b" in text
    assert "4.3 TB/s, 790 TFLOP/s" in text
    assert "| networks | failed | 1 | missed |" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_a_section_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(suite: gpu_suite.Suite) -> None:
        suite.result["agreement"] = [{"row": "r", "batch": 1, "passed": True}]
        time.sleep(5)

    def bad(suite: gpu_suite.Suite) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(gpu_suite, "SECTIONS", {"slow": (slow, 0.05), "bad": (bad, 1.0), "good": (lambda suite: None, 1.0)})
    suite = gpu_suite.Suite([], [], table.Bench(tmp_path), {"machine": MACHINE})
    for name, (_, limit) in gpu_suite.SECTIONS.items():
        gpu_suite.run(name, suite, limit)
        gpu_suite.write(suite.result, tmp_path)
    kept = gpu_suite.earlier(tmp_path, MACHINE)
    assert {name: one["status"] for name, one in kept["sections"].items()} == {"slow": "out of time", "bad": "failed", "good": "done"}
    assert kept["sections"]["bad"]["why"] == "RuntimeError: first"
    assert kept["agreement"]
    assert gpu_suite.earlier(tmp_path, {"gpu": "another"}) == {}
    assert "out of time" in (tmp_path / "gpu.md").read_text()


def test_a_peer_may_err_as_much_as_its_dtype_makes_it() -> None:
    """Twice what torch's own layers do, as where logits cancel; never as much as a wrong answer."""
    assert allowed_of_peers(0.0005, "float16") == LARGEST_ERROR["float16"]
    assert allowed_of_peers(0.03, "float16") == pytest.approx(0.06)
    assert allowed_of_peers(0.03, "bfloat16") == LARGEST_ERROR["bfloat16"]
    assert allowed_of_peers(10.0, "float16") == allowed_of_peers(float("inf"), "float16") == WRONG


def test_the_limits_of_all_sections_stay_under_nine_minutes() -> None:
    assert sum(limit for _, limit in gpu_suite.SECTIONS.values()) < 540
    with pytest.raises(Error, match="--only"):
        gpu_suite.require_known("--only", ["nothing"], gpu_suite.SECTIONS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["cudnn_graph", "cudnn_fused"])
def test_a_peer_reads_its_input_at_each_replay(name: str) -> None:
    model = lively("resnet20")
    x = torch.randn(4, 3, 32, 32, device="cuda")
    peer = PEERS[name](model, x)
    peer.replay()
    with torch.no_grad():
        assert rms(peer.output(), model.cuda()(x)) < LARGEST_ERROR["float16"]
    times = in_turn({"a": peer.replay, "b": peer.replay}, 0.05, flush=True)
    assert times["a"].median_ms > 0
