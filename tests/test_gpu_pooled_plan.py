"""Where a plan has a layer and the 2x2 max pool behind it as one step, and what it gives; in Triton's interpreter, or on a GPU."""

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
from cosparse.engine.gpu import forms
from cosparse.engine.gpu.engine import GpuEngine
from cosparse.engine.gpu.fuse import Step
from cosparse.kernels.conv import conv
from cosparse.kernels.gpu.epilogue import Epilogue
from cosparse.kernels.gpu.planes import Planes


class Small(nn.Module):
    """3x3, ReLU, pool, 1x1, pool, linear; `kind`: who else reads what comes before the first pool, or another pool."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.three, self.one = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 16, 1)
        self.pool = {"overlap": nn.MaxPool2d(3, 2, 1), "average": nn.AvgPool2d(2)}.get(kind, nn.MaxPool2d(2, ceil_mode=kind == "ceil"))
        self.fc = nn.Linear(16 * 2 * (width // 4), 5)

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.relu(self.three(x))
        z = nn.functional.max_pool2d(self.one(self.pool(y)), 2)
        z = self.fc(z.flatten(1))
        return (z, y) if self.kind == "output" else z + y.mean((1, 2, 3))[:, None] if self.kind == "read" else z


def made(folder: Path, kind: str, width: int, **options: Any) -> tuple[nn.Module, GpuEngine, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 8, width)
    model = impose(Small(kind, width).eval(), Budget(density=0.6), x[:1], block=8)
    path = folder / "small.cosparse"
    export(model, x[:1], path, name="small")
    return model, GpuEngine(path, torch.device(DEVICE), "float16", **{"tune": False} | options), x


@pytest.mark.parametrize(
    ("kind", "width", "pools"),
    [
        ("plain", 8, 0),
        ("ceil", 16, 0),
        ("plain", 4, 0),
        ("plain", 12, 2),
        ("output", 8, 1),
        ("read", 8, 1),
        ("overlap", 8, 1),
        ("average", 8, 0),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_pools_are_taken_in_where_tiles_are_whole_windows(tmp_path: Path, kind: str, width: int, pools: int, dense: bool) -> None:
    model, engine, x = made(tmp_path, kind, width, dense=dense)
    with torch.no_grad():
        want = model(x)
    got = engine(x.to(DEVICE))
    for one, two in zip(*(y if isinstance(y, tuple) else (y,) for y in (got, want)), strict=True):
        assert np.abs(one.float().cpu().numpy() - two.numpy()).max() < 1e-2 * np.abs(two.numpy()).max()
    rows = engine.plan_for(tuple(x.shape))
    assert [row.op for row in rows].count("max_pool") == pools
    assert [row.kernel for row in rows if row.kernel.startswith("pooled ")] or pools


@pytest.mark.parametrize("kernel", [1, 3])
def test_every_form_with_the_pool_gives_the_same(kernel: int) -> None:
    """Those that pool in their tiles, and those before a pool of its own."""
    rng, pad = np.random.default_rng(1), kernel // 2
    node = nodes.conv(rng, 40, 4, (kernel, kernel), block=8, density=0.5, transform="dct" if kernel == 3 else "identity", pad=[pad] * 4)
    attrs = {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0, 0, 0], "dilation": [1, 1], "ceil": 0}
    pool = nodes.FakeNode("pool", "max_pool", ("conv",), attrs, {})
    x = torch.from_numpy(nodes.normal(rng, 3, 4, 4, 4)).half()
    want = torch.nn.functional.max_pool2d(torch.from_numpy(conv(node, x.double().numpy())), 2).numpy()
    planes, seen = Planes.of(x.to(DEVICE)), set()
    bias = torch.from_numpy(node.tensors["bias"]).to(DEVICE)
    for form in forms.forms(Step(node, ("x",), "y", pool=pool), torch.float16, torch.device(DEVICE)):  # type: ignore[arg-type]
        if not forms.fits(form, 3 * 4 * 4, 4, 4):
            continue
        out = Planes.of(torch.full((3, 40, 2, 2), torch.nan, device=DEVICE), torch.float16)
        form.run([planes], out, Epilogue(bias))
        assert np.abs(out.nchw.double().cpu().numpy() - want).max() < 1e-2 * np.abs(want).max(), form.name
        seen.add(form.name.partition("/")[0])
    one = "maps" if kernel == 3 else "rows"
    assert {f"{one}16", f"pooled {one}16", f"{one}32", f"pooled {one}32"} <= seen
    assert any(name.startswith("taps") for name in seen) == (kernel == 3)
