"""What only a CUDA device can show of the GPU engine: graphs, streams, threads, memory. Skipped where there is none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import nodes
import numpy as np
import pytest
import torch
from torch import nn

import cosparse
from cosparse.compress import Budget, export, impose
from cosparse.engine.gpu.forms import Library
from cosparse.engine.gpu.fuse import Step
from cosparse.errors import Error
from cosparse.kernels.conv import conv
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.planes import Planes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.three = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.last, self.short, self.fc = nn.Conv2d(64, 128, 1), nn.Conv2d(64, 128, 1), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.last(torch.relu(self.three(torch.relu(self.one(x))))) + self.short(x))
        return self.fc(y.mean((2, 3)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    example = torch.randn(1, 3, 32, 32)
    made = tmp_path_factory.mktemp("net") / "net.cosparse"
    export(impose(Net().eval(), Budget(density=0.3), example, block=64), example, made, name="net")
    return made


@pytest.fixture(scope="module")
def exact(path: Path) -> Any:
    engine = cosparse.load(path, threads=1)
    return lambda x: torch.from_numpy(engine(x.cpu().numpy()))


def wrong_by(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.cpu() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("tune", [False, True])
def test_a_graph_s_answers(path: Path, exact: Any, dtype: str, tune: bool) -> None:
    engine: Any = cosparse.load(path, device="cuda", dtype=dtype, tune=tune)
    for seed, batch in enumerate((1, 5, 1, 5)):
        x = torch.randn(batch, 3, 32, 32, device="cuda", generator=torch.Generator("cuda").manual_seed(seed))
        assert wrong_by(engine(x), exact(x)) < (0.01 if dtype == "float16" else 0.08)


def test_calls_allocate_nothing(path: Path) -> None:
    engine: Any = cosparse.load(path, device="cuda", tune=False).warmup((4,))
    x = torch.randn(4, 3, 32, 32, device="cuda")
    y = engine(x)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(10):
        engine(x, out=y)
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


def test_dlpack_without_torch_s_type(path: Path) -> None:
    class Foreign:
        """An array of another library."""

        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

        def __dlpack__(self, **more: Any) -> Any:
            return self.x.__dlpack__(**more)

        def __dlpack_device__(self) -> Any:
            return self.x.__dlpack_device__()

    engine: Any = cosparse.load(path, device="cuda", tune=False)
    x = torch.randn(2, 3, 32, 32, device="cuda")
    assert torch.equal(engine(Foreign(x)), engine(x))


def test_engines_threads_and_streams(path: Path, exact: Any) -> None:
    """Two engines, four threads with a stream each, all at once; every answer is its input's."""
    engines: list[Any] = [cosparse.load(path, device="cuda", tune=False).warmup((1, 3)) for _ in range(2)]
    wrong: list[float] = []

    def work(seed: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for i in range(20):
                x = torch.randn(1 + 2 * (i % 2), 3, 32, 32, device="cuda", generator=torch.Generator("cuda").manual_seed(100 * seed + i))
                y = engines[seed % 2](x)
                stream.synchronize()
                wrong.append(wrong_by(y, exact(x)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert max(wrong) < 0.01


def test_out_of_memory_is_said_and_leaves_the_engine_usable(path: Path, exact: Any) -> None:
    engine: Any = cosparse.load(path, device="cuda", tune=False).warmup((2,))
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    filler = torch.empty(free - (1 << 30), dtype=torch.uint8, device="cuda")
    held = torch.cuda.memory_allocated()
    with pytest.raises(Error, match="enough device memory"):
        engine.warmup((50_000,))  # 128 channels of 16 x 16 are 3.3 GB
    assert torch.cuda.memory_allocated() <= held + (1 << 20)
    del filler
    x = torch.randn(2, 3, 32, 32, device="cuda")
    assert wrong_by(engine(x), exact(x)) < 0.01


@pytest.mark.parametrize("pad", [(1, 1, 1, 1), (0, 1, 1, 2)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("act", ["none", "relu"])
def test_cudnn_on_planes(pad: tuple[int, ...], residual: bool, act: str) -> None:
    node: Any = nodes.conv(np.random.default_rng(0), 24, 8, (3, 3), pad=pad, stride=(2, 1))
    x = torch.randn(3, 8, 9, 7, device="cuda").half()
    want = torch.from_numpy(conv(node, x.double().cpu().numpy()))
    z = torch.randn(want.shape, device="cuda").half()
    want = want + z.double().cpu() if residual else want
    want = want.relu() if act == "relu" else want
    out = Planes.of(torch.full(want.shape, torch.nan, device="cuda"), torch.float16)
    layer = Library(Step(node, ("x",), "y"), torch.float16, torch.device("cuda"))
    layer(Planes.of(x), out, Epilogue(None, Planes.of(z) if residual else None, act))
    assert float((out.nchw.double().cpu() - want).abs().max() / want.abs().max()) < 4e-3
