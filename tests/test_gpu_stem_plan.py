"""Where a plan has a stem and its max pool as one step, and what it gives; on the CPU with kernels of both kinds emulated, or on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from torch import nn

from cosparse.bench.gpu import layers
from cosparse.bench.gpu.artifact_result import multiply_adds
from cosparse.bench.gpu.device import Ceilings
from cosparse.compress import Budget, export, impose
from cosparse.engine import artifact
from cosparse.engine.gpu import plan
from cosparse.engine.gpu.engine import GpuEngine
from cosparse.engine.gpu.forms import Form
from cosparse.kernels.gpu import stem

SIZE = (3, 18, 24)


class Stemmed(nn.Module):
    """A 7x7 stem, ReLU, a max pool, a 1x1 layer. `kind`: "plain", or who else reads what comes before the pool: "output", "add"; or ReLU
    behind the pool ("late"), an activation that the kernel does not know ("gelu"), a pool that sticks out ("ceil")."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(3, 16, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=kind == "ceil")
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.stem(x)
        y = y if self.kind == "late" else nn.functional.gelu(y) if self.kind == "gelu" else torch.relu(y)
        z = self.pool(y)
        z = self.last(torch.relu(z) if self.kind == "late" else z)
        if self.kind == "output":
            return z, y
        return z + y[:, :8, :1, :1] if self.kind == "add" else z


def network(folder: Path, kind: str = "plain", density: float = 1.0) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    example, path = torch.randn(1, *SIZE), folder / f"{kind}-{density}.cosparse"
    model = Stemmed(kind).eval()
    if density < 1:
        model = impose(model, Budget(density=density), example, block=8)
    export(model, example, path, name="stemmed")
    return model, path


def engine(path: Path, **options: Any) -> GpuEngine:
    return GpuEngine(path, torch.device(DEVICE), "float16", **{"tune": False} | options)


def compare(model: nn.Module, made: GpuEngine, batch: int) -> None:
    x = torch.randn(batch, *SIZE)
    with torch.no_grad():
        want = model.double()(x.double())
        model.float()
    got = made(x.to(DEVICE))
    for one, two in zip(*(y if isinstance(y, tuple) else (y,) for y in (got, want)), strict=True):
        assert one.shape == two.shape
        assert np.abs(one.cpu().numpy() - two.numpy()).max() < 1e-2 * np.abs(two.numpy()).max()


@pytest.fixture
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A library, and so few pixels as enough that a batch of two has them, and of one has not."""
    request.getfixturevalue("on_gpu" if DEVICE == "cuda" else "on_host")
    monkeypatch.setattr(stem, "LEAST", 2 * 9 * 12)
    return stem.LEAST


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.4])
def test_a_stem_takes_in_its_pool(few: int, tmp_path: Path, density: float, dense: bool) -> None:
    model, path = network(tmp_path, density=density)
    made = engine(path, dense=dense)
    compare(model, made, 3)
    first, last = made.plan_for((3, *SIZE))
    assert (first.name, first.op, first.kernel) == ("stem + pool", "conv", "stem64/8 rows+relu+max_pool")
    assert (first.density, first.dense_flops) == (1.0, 3 * 9 * 12 * 16 * 3 * 49)
    assert first.flops == first.dense_flops
    assert last.dense_flops == 3 * 5 * 6 * 8 * 16


def test_few_pixels_are_pooled_apart(few: int, tmp_path: Path) -> None:
    model, path = network(tmp_path)
    made = engine(path)
    for batch, steps in ((1, 3), (2, 2), (1, 3)):
        compare(model, made, batch)
        assert len(made.plan_for((batch, *SIZE))) == steps
    assert [row.op for row in made.plan_for((1, *SIZE))] == ["conv", "max_pool", "conv"]


@pytest.mark.parametrize("kind", ["output", "add", "gelu", "ceil"])
def test_what_others_need_is_written(few: int, tmp_path: Path, kind: str) -> None:
    model, path = network(tmp_path, kind)
    made = engine(path)
    compare(model, made, 2)
    assert [row.op for row in made.plan_for((2, *SIZE))].count("max_pool") == 1


def test_an_activation_behind_the_pool_stays_there(few: int, tmp_path: Path) -> None:
    model, path = network(tmp_path, "late")
    made = engine(path)
    compare(model, made, 2)
    assert [row.kernel for row in made.plan_for((2, *SIZE))][:2] == ["stem64/8 rows+max_pool", "activation"]


def test_without_the_library_nothing_changes(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_CUDA_LIBRARY", str(tmp_path / "none.so"))
    model, path = network(tmp_path)
    made = engine(path)
    compare(model, made, 2)
    assert len(made.plan_for((2, *SIZE))) == 3


def test_images_too_wide_for_the_kernel(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows where eight are too many for this width; two steps where two are."""
    _, path = network(tmp_path)
    for room, kernel in ((24, "stem64/8 rows+relu+max_pool"), (23, "stem64/7 rows+relu+max_pool")):
        monkeypatch.setattr(stem, "widest", lambda channels, rows, device, room=room: room if rows == 8 else 30)
        assert engine(path).plan_for((2, *SIZE)).rows[0].kernel == kernel
    for room in (23, 0, -5):
        monkeypatch.setattr(stem, "widest", lambda channels, rows, device, room=room: room)
        assert len(engine(path).plan_for((2, *SIZE))) == 3


def test_each_number_of_rows_is_measured_once(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSPARSE_CACHE", str(tmp_path))
    asked: list[str] = []

    def made_up(form: Form, layer: plan.Layer) -> float:
        asked.append(form.name)
        assert layer.pixels == (2 * 9 * 12 if layer.step.pool else 2 * 5 * 6)
        return 1.0 if "4 rows" in form.name else 2.0

    monkeypatch.setattr(plan, "_measured", made_up)
    _, path = network(tmp_path)
    row = engine(path, tune=True).plan_for((2, *SIZE)).rows[0]
    assert row.kernel == "stem64/4 rows+relu+max_pool"
    assert row.why == "measured, us: stem64 1.0"
    assert [name for name in asked if name.startswith("stem")] == [f"stem64/{rows} rows" for rows in stem.ROWS]
    assert len(engine(path, tune=True).plan_for((2, *SIZE))) == 2
    assert len([name for name in asked if name.startswith("stem")]) == len(stem.ROWS)


def test_figures_of_the_step(few: int, tmp_path: Path) -> None:
    """What it moves is the image, the weights and the pooled result; what stands beside it is the dense layer without its pool."""
    _, path = network(tmp_path)
    made = engine(path)
    rows, graph = made.plan_for((2, *SIZE)).rows, artifact.read(path)
    shapes = dict(made._shapes([(2, *SIZE)]))

    class Timed:
        us = 5.0

    first, last = layers.rows([Timed(), Timed()], rows, graph, shapes, {"stem": 10.0, "last": 5.0}, Ceilings(1e9, 1e12))
    assert first["bytes"] == rows[0].bytes + 2 * (2 * 3 * 18 * 24 + 2 * 16 * 5 * 6)
    assert (first["dense_us"], first["speedup"], first["realised"]) == (10.0, 2.0, 2.0)
    assert last["dense_us"] == 5.0
    stored, whole = multiply_adds(graph, rows)
    assert stored == whole == rows[0].dense_flops + rows[1].dense_flops
