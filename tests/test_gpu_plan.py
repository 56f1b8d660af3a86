"""Fusing, placing and running whole networks as the GPU runtime does, on the CPU: Triton's interpreter stands in for the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from torch import nn

import cosparse
from cosparse.compress import Budget, export, impose
from cosparse.engine import artifact
from cosparse.engine.gpu import plan
from cosparse.engine.gpu.arena import arrange, lifetimes
from cosparse.engine.gpu.engine import GpuEngine, load_gpu
from cosparse.engine.gpu.forms import Form
from cosparse.engine.gpu.fuse import fuse
from cosparse.errors import UnsupportedError


class Residual(nn.Module):
    """A stem with a stride, a residual block whose shortcut is a convolution of its own, pooling, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.one = nn.Conv2d(16, 24, 1)
        self.three = nn.Conv2d(24, 24, 3, padding=1)
        self.short = nn.Conv2d(16, 24, 1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        y = torch.relu(self.three(torch.relu(self.one(x))) + self.short(x))
        return self.fc(y.mean((2, 3)))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    example = torch.randn(1, 3, 9, 6)
    model = impose(Residual().eval(), Budget(density=0.5), example, block=8)
    path = tmp_path_factory.mktemp("net") / "residual.cosparse"
    export(model, example, path, name="residual")
    return model, path


def test_additions_and_activations_are_taken_in(network: tuple[nn.Module, Path]) -> None:
    graph = artifact.read(network[1])
    shapes = {i.name: (1, 3, 9, 6) for i in graph.inputs} | {node.name: (1, 24, 3, 2) for node in graph.nodes}
    steps = fuse(graph, shapes, ("relu",))
    residuals = [step for step in steps if step.residual]
    assert len(residuals) == 1
    assert residuals[0].act == "relu"
    given = {i.name for i in graph.inputs}
    for step in steps:  # every value is there before it is read
        assert set(step.reads) <= given
        given.add(step.output)
    assert set(graph.outputs) <= given
    assert [step.node.op for step in steps].count("activation") == 0


def test_values_that_live_at_once_never_share_memory(network: tuple[nn.Module, Path]) -> None:
    graph = artifact.read(network[1])
    shapes = {i.name: (1, 3, 9, 6) for i in graph.inputs} | {node.name: (1, 24, 3, 2) for node in graph.nodes}
    steps = fuse(graph, shapes, ("relu",))
    lives = lifetimes(steps, [i.name for i in graph.inputs], graph.outputs)
    sizes = {name: 1000 + 300 * i for i, name in enumerate(lives)}
    arena = arrange(lives, sizes)
    assert arena.bytes < sum(sizes.values())
    for a in sizes:
        for b in sizes:
            if a != b and lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]:
                assert arena.offsets[a] + sizes[a] <= arena.offsets[b] or arena.offsets[b] + sizes[b] <= arena.offsets[a]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_a_network_gives_what_the_cpu_gives(network: tuple[nn.Module, Path], batch: int, dense: bool) -> None:
    model, path = network
    engine = GpuEngine(path, torch.device(DEVICE), "float16", tune=False, dense=dense)
    x = torch.randn(batch, 3, 9, 6)
    with torch.no_grad():
        want = model.double()(x.double()).numpy()
        model.float()
    got = engine(x.to(DEVICE)).cpu()
    assert got.shape == (batch, 10)
    assert got.dtype == torch.float32
    assert np.abs(got.numpy() - want).max() < 2e-2 * np.abs(want).max()
    assert np.array_equal(engine(x.numpy()), got.numpy())
    assert not dense or {row.density for row in engine.plan_for(x.shape)} == {1.0}
    assert len(engine.plan_for(x.shape)) == len(fuse(artifact.read(path), dict(engine._shapes([x.shape])), ("relu",)))


def test_the_fastest_form_is_taken_and_remembered(network: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up times: forms that cannot run are passed over, and a second engine measures nothing."""
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path))
    asked: list[str] = []

    def made_up(form: Form, layer: plan.Layer) -> float | None:
        asked.append(form.name)
        return None if form.name.startswith("rows") and "16px" in form.name else 1.0 + len(form.name) % 7 + form.pixels / 1000

    monkeypatch.setattr(plan, "_measured", made_up)
    engine = GpuEngine(network[1], torch.device(DEVICE), "float16", tune=True)
    rows = [row for row in engine.plan if row.dense_flops]
    assert len(asked) > len(rows) == 5
    assert all(row.why.startswith("measured, us: ") for row in rows)
    assert not any(row.kernel.startswith("rows") and "16px" in row.kernel for row in rows)
    first = len(asked)
    again = GpuEngine(network[1], torch.device(DEVICE), "float16", tune=True)
    assert [row.kernel for row in again.plan] == [row.kernel for row in engine.plan]
    assert len(asked) == first
    (file,) = tmp_path.glob("gpu-*.json")
    file.write_text("{ damaged", encoding="utf-8")
    assert [row.kernel for row in GpuEngine(network[1], torch.device(DEVICE), "float16", tune=True).plan] == [
        row.kernel for row in engine.plan
    ]
    assert len(asked) == 2 * first


def test_a_layer_that_no_form_can_run_is_named(network: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path))
    monkeypatch.setattr(plan, "_measured", lambda *_: None)
    with pytest.raises(UnsupportedError, match=r"stem.*that all fail"):
        GpuEngine(network[1], torch.device(DEVICE), "float16", tune=True).warmup()


@pytest.mark.parametrize("ours_is_faster", [True, False])
def test_the_faster_of_two_networks_runs(network: tuple[nn.Module, Path], ours_is_faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, or all of it in torch's operators; with made-up times, in the order in which they are asked for."""
    times = iter([10.0, 20.0] if ours_is_faster else [20.0, 10.0])
    monkeypatch.setattr("cosparse.engine.gpu.engine.replay_us", lambda replay: next(times))
    engine = GpuEngine(network[1], torch.device(DEVICE), "float16", tune=False, compare=True)
    x = torch.randn(2, 3, 9, 6)
    with torch.no_grad():
        want = network[0].double()(x.double()).numpy()
        network[0].float()
    assert np.abs(engine(x.to(DEVICE)).cpu().numpy() - want).max() < 2e-2 * np.abs(want).max()
    kernels = {row.op: row.kernel for row in engine.plan_for(x.shape)}
    assert (kernels["linear"] == "cudnn") != ours_is_faster
    why = {row.why for row in engine.plan_for(x.shape) if row.dense_flops}
    assert ours_is_faster or why == {"whole network, us: our layers 20, dense by cuDNN 10"}


def test_shapes_are_given_up_oldest_first(network: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosparse.engine.gpu.engine.MOST_SHAPES", 2)
    engine = GpuEngine(network[1], torch.device(DEVICE), "float16", tune=False)
    made: list[Any] = []
    make = engine._make
    monkeypatch.setattr(engine, "_make", lambda shapes: made.append(shapes) or make(shapes))
    for batch in (1, 2, 1, 3, 1, 2):  # 3 drives out 2, and 2 then 3
        engine.warmup((batch,))
    assert [shapes[0][0] for shapes in made] == [1, 2, 3, 2]


def test_a_device_that_is_not_there_is_named(network: tuple[nn.Module, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        cosparse.load(network[1], device="cuda")
    with pytest.raises(UnsupportedError, match="dtype"):
        load_gpu(network[1], dtype="float32")
