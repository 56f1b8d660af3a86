"""Heights and widths at which an imported network would compute something else than the model: they are in the artifact, and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cosparse
from cosparse.compress import export
from cosparse.compress.importer import from_torch
from cosparse.compress.importer.ranges import MOST
from cosparse.compress.importer.trace import trace
from cosparse.engine import artifact


class Net(nn.Module):
    """A convolution, and what `forward` makes of it."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 4, 3, padding=1), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def large_is_pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) if x.shape[2] > 40 else x


def all_but_tiny_is_pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) if x.shape[3] > 8 else x


def pooled_over_its_size(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, x.size()[2:])


def halved(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear")


def padded_to_a_multiple(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[3] % 32, 0, -x.shape[2] % 32))


class Patches(nn.Module):
    """As ConvNeXt begins. Below 16 rows the last plane has one, which would be a case of its own to torch.export; the model takes 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.norm = nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 2, stride=2), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.stem, self.down):
            x = self.norm(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x.mean((2, 3))


ANY, EXAMPLE = (1, MOST), (32, 32)


@pytest.mark.parametrize(
    ("then", "sizes"),
    [
        (large_is_pooled, ((1, 40), ANY)),
        (all_but_tiny_is_pooled, (ANY, (9, MOST))),
        (pooled_over_its_size, (EXAMPLE, EXAMPLE)),
        (halved, (EXAMPLE, EXAMPLE)),
        (padded_to_a_multiple, (EXAMPLE, EXAMPLE)),
        (F.relu, None),
        (lambda x: F.adaptive_avg_pool2d(x, 1), None),
    ],
)
def test_sizes_for_which_the_graph_is_the_model(then: Callable[[Tensor], Tensor], sizes: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net(then).eval()
    graph = from_torch(model, torch.randn(1, 3, 32, 32))
    assert graph.inputs[0].sizes == sizes
    artifact.write(tmp_path / "net.cosparse", graph)
    assert artifact.read(tmp_path / "net.cosparse").inputs == graph.inputs
    engine = cosparse.load(tmp_path / "net.cosparse", tune=False, threads=1)
    refused = 0
    for size in ((32, 32), (40, 40), (41, 33), (48, 48), (33, 17), (20, 8), (16, 64)):
        x = torch.randn(2, 3, *size)
        try:
            got = engine(x.numpy())
        except cosparse.ShapeError:
            refused += 1
            continue
        with torch.no_grad():
            np.testing.assert_allclose(got, model(x).numpy(), rtol=1e-4, atol=1e-4)
    assert (refused > 0) == (sizes is not None)


def test_a_cautious_bound_that_the_model_does_not_have_is_dropped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, example = Patches().eval(), torch.randn(1, 3, 64, 64)
    assert trace(model, (example,), "net", free_size=True).sizes == (((16, MOST), (16, MOST)),)
    artifact.write(tmp_path / "net.cosparse", from_torch(model, example))
    engine = cosparse.load(tmp_path / "net.cosparse", tune=False, threads=1)
    for size in ((64, 64), (8, 15), (9, 40), (100, 12)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            np.testing.assert_allclose(engine(x.numpy()), model(x).numpy(), rtol=1e-3, atol=1e-4)


def test_the_model_is_left_in_its_mode() -> None:
    model = Patches().train()
    from_torch(model, torch.randn(1, 3, 64, 64))
    assert model.training
    assert model.stem.training


def test_messages_name_the_range(tmp_path: Path) -> None:
    artifact.write(tmp_path / "net.cosparse", from_torch(Net(large_is_pooled), torch.randn(1, 3, 32, 32)))
    engine = cosparse.load(tmp_path / "net.cosparse", tune=False)
    with pytest.raises(cosparse.ShapeError, match=r"input 'x': expected a height from 1 to 40, got \[1, 3, 41, 32\]; the artifact"):
        engine(np.zeros((1, 3, 41, 32), np.float32))


@pytest.mark.parametrize(("size", "taken"), [((1, 9), ["height"]), ((9, 1), ["width"]), ((1, 1), ["height", "width"]), ((2, 9), [])])
def test_a_size_of_one_is_said_to_be_fixed(size: tuple[int, int], taken: list[str], tmp_path: Path) -> None:
    report = export(Net(F.relu), torch.randn(1, 3, *size), tmp_path / "net.cosparse")
    for axis in ("height", "width"):
        assert (f"{axis} of 1, which torch.export takes for fixed" in report.sizes) == (axis in taken)
    assert bool(report.sizes) == bool(taken)
