"""Two 1x1 layers that are added, as one product, against the float64 references; and where a network has such a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nodes
import numpy as np
import pytest
import torch
from gpu_place import DEVICE
from torch import nn

from cosparse.compress import Budget, export, impose
from cosparse.engine import artifact
from cosparse.engine.gpu.engine import GpuEngine
from cosparse.engine.gpu.fuse import AND, fuse, join
from cosparse.errors import UnsupportedError
from cosparse.kernels.conv import conv
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.joined import Joined, supports
from cosparse.kernels.gpu.planes import Planes
from cosparse.kernels.gpu.product import Tile


def layer(channels: int, filters: int = 20, seed: int = 0, **attrs: Any) -> Any:
    return nodes.conv(np.random.default_rng(seed), filters, channels, (1, 1), **({"block": 4, "density": 0.5} | attrs))


@pytest.mark.parametrize("tile", [Tile(16, 16), Tile(32, 32, ahead=True)])
@pytest.mark.parametrize(("stride", "size"), [(1, (5, 7)), (2, (6, 8)), (2, (6, 6)), (2, (7, 7)), (2, (2, 2))])
@pytest.mark.parametrize("sparse", [True, False])
def test_the_sum_of_both(stride: int, size: tuple[int, int], sparse: bool, tile: Tile) -> None:
    kind = {} if sparse else {"density": 1.0}
    first, second = layer(9, seed=1, **kind), layer(12, seed=2, stride=(stride, stride), **kind)
    rng = np.random.default_rng(3)
    x2 = torch.from_numpy(nodes.normal(rng, 3, 12, *size)).half()
    small = tuple(-(-n // stride) for n in size)
    x1 = torch.from_numpy(nodes.normal(rng, 3, 9, *small)).half()
    want = np.maximum(conv(first, x1.double().numpy()) + conv(second, x2.double().numpy()), 0)
    bias = torch.from_numpy(first.tensors["bias"] + second.tensors["bias"]).to(DEVICE)
    both = Joined(first, second, 16, torch.float16, DEVICE)
    assert sparse or both.density == 1
    out = Planes.of(torch.full(want.shape, torch.nan, device=DEVICE), torch.float16)
    both(Planes.of(x1.to(DEVICE)), Planes.of(x2.to(DEVICE)), out, Epilogue(bias, None, "relu"), tile)
    size_of_sums = np.abs(both.groups.dense()).sum(1).max() * 5 + 10
    assert np.abs(out.nchw.double().cpu().numpy() - want).max() <= 3 * 2.0**-11 * size_of_sums


def test_layers_without_a_column() -> None:
    first, second = layer(9, density=0.0), layer(12, seed=2, density=0.0, stride=(2, 2))
    out = Planes.of(torch.full((1, 20, 2, 2), torch.nan, device=DEVICE), torch.float16)
    x1, x2 = (Planes.of(torch.randn(1, c, n, n, device=DEVICE).half()) for c, n in ((9, 2), (12, 4)))
    Joined(first, second, 16, torch.float16, DEVICE)(x1, x2, out, Epilogue(), Tile(16, 16))
    assert not out.nchw.any()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (layer(4), nodes.conv(np.random.default_rng(0), 20, 4, (3, 3)), "no 1x1"),
        (layer(4), layer(4, pad=(0, 0, 1, 0)), "without padding"),
        (layer(4, stride=(2, 2)), layer(4), "has a stride"),
        (layer(4), layer(4, filters=8), "numbers of filters"),
        (layer(4), nodes.conv(np.random.default_rng(0), 20, 4, (1, 1), groups=2), "one channel group"),
    ],
)
def test_what_is_refused(first: Any, second: Any, why: str) -> None:
    assert why in supports(first, second)
    with pytest.raises(UnsupportedError, match=why):
        Joined(first, second, 16, torch.float16, DEVICE)


class Blocks(nn.Module):
    """Two residual blocks with projections, strides 1 and 2; `shared`: the second projection is read twice."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.one, self.last, self.short = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 16, 1), nn.Conv2d(6, 16, 1)
        self.two, self.last2 = nn.Conv2d(16, 8, 3, 2, 1), nn.Conv2d(8, 24, 1, bias=False)
        self.short2 = nn.Conv2d(16, 24, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.last(torch.relu(self.one(x))) + self.short(x))
        kept = self.short2(x)
        y = torch.relu(kept + self.last2(torch.relu(self.two(x))))
        return y * kept if self.shared else y


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("block", [1, 8])
def test_a_network_s_shortcuts_are_joined(tmp_path: Path, shared: bool, block: int) -> None:
    torch.manual_seed(1)
    example, path = torch.randn(1, 6, 6, 4), tmp_path / "blocks.cosparse"
    model = Blocks(shared).eval()
    if block > 1:
        model = impose(model, Budget(density=0.6), example, block=block)
    export(model, example, path, name="blocks")
    engine = GpuEngine(path, torch.device(DEVICE), "float16", tune=False)
    graph = artifact.read(path)
    single = fuse(graph, dict(engine._shapes([(2, 6, 6, 4)])), ("relu",))
    steps = join(single, graph.outputs)
    names = [step.name for step in steps if AND in step.name]
    assert len(names) == (1 if shared else 2)
    assert len(steps) == len(single) - len(names)
    x = torch.randn(2, 6, 6, 4)
    with torch.no_grad():
        want = model.double()(x.double()).numpy()
    assert np.abs(engine(x.to(DEVICE)).cpu().numpy() - want).max() < 2e-2 * np.abs(want).max()
    rows = {row.name: row for row in engine.plan_for(x.shape)}
    assert all(rows[name].kernel.startswith("joined") and "+shortcut" in rows[name].kernel for name in names)
    whole = GpuEngine(path, torch.device(DEVICE), "float16", tune=False, dense=True)
    assert np.abs(whole(x.to(DEVICE)).cpu().numpy() - want).max() < 2e-2 * np.abs(want).max()
    assert {row.density for row in whole.plan_for(x.shape)} == {1.0}
    pixels = 2 * 3 * 2
    joined = next(row for name, row in rows.items() if "short2" in name)
    assert joined.dense_flops == pixels * 24 * (16 if shared else 24)
