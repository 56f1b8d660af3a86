"""Networks that decide by sizes computed from the input's, or by the batch: what the artifact takes is what torch computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sympy
import torch
from engines import engine_of
from import_check import ops
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._sympy.functions import FloorDiv, Mod

import cosparse
from cosparse.compress.export import export
from cosparse.compress.importer import from_torch
from cosparse.compress.importer.guards import Guard
from cosparse.compress.importer.ranges import MOST, box
from cosparse.errors import Error, UnsupportedError

ANY, EXAMPLE = (1, MOST), (64, 64)
Then = Callable[[Tensor, Tensor], Tensor]


class Net(nn.Module):
    """A quarter of the size, and what `then` makes of input and result."""

    def __init__(self, then: Then) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(x, F.relu(self.second(F.relu(self.first(x)))))


def net(then: Then) -> nn.Module:
    torch.manual_seed(0)
    return Net(then).eval()


def even(x: Tensor, y: Tensor) -> Tensor:
    h, w = y.shape[2:]
    if h % 2 == 1 or w % 2 == 1:
        y = F.pad(y, (0, w % 2, 0, h % 2))
    return F.avg_pool2d(y, 2)


def one_row(x: Tensor, y: Tensor) -> Tensor:
    return y + 1 if y.shape[2] == 1 else y


CASES: dict[str, tuple[Then, tuple[int, int], str]] = {
    "whole": (lambda x, y: F.avg_pool2d(y, (y.shape[2], y.shape[3])), ANY, ""),
    "whole, viewed": (lambda x, y: F.avg_pool2d(y, y.shape[2:]).view(-1, 8), ANY, ""),
    "gate": (lambda x, y: y * F.avg_pool2d(y, y.size()[2:4]).sigmoid(), ANY, ""),
    "whole maximum": (lambda x, y: F.max_pool2d(y, (y.shape[2], y.shape[3]), stride=(y.shape[2], y.shape[3])), ANY, ""),
    "whole, by int": (lambda x, y: F.avg_pool2d(y, [int(n) for n in y.shape[2:]]), (61, 64), "== 16 at test_import_guards.py"),
    "half": (lambda x, y: F.interpolate(x, size=(int(x.shape[2] * 0.5), int(x.shape[3] * 0.5))), (64, 65), "int(0.5*float(height)) == 32"),
    "even": (even, (61, 64), "!= 1 at test_import_guards.py"),
    "window": (lambda x, y: F.avg_pool2d(y, 16), (61, MOST), ""),
    "window, squeezed": (lambda x, y: F.avg_pool2d(y, 16).squeeze(3).squeeze(2), (61, 124), "== 1"),
    "window, viewed": (lambda x, y: F.avg_pool2d(y, 16).view(x.size(0), 8), (61, 124), "== 1"),
    "square": (lambda x, y: y + 1 if x.shape[2] == x.shape[3] else y, EXAMPLE, "not known to be the same there"),
}
TRIED = ((64, 64), (96, 128), (80, 80), (66, 66), (32, 32), (61, 64), (65, 65), (62, 63), (1, 5), (124, 61))


@pytest.mark.parametrize("name", CASES)
def test_the_engine_computes_what_torch_computes_or_refuses(name: str) -> None:
    then, sizes, why = CASES[name]
    model = net(then)
    graph = from_torch(model, torch.randn(1, 3, 64, 64))
    assert graph.inputs[0].sizes == (None if sizes == ANY else (sizes, sizes))
    assert why in str(graph.provenance["import"]["size"])
    assert (graph.provenance["import"]["size"] == "free") == (why == "")
    engine = engine_of(graph)
    for size in TRIED:
        x = torch.randn(2, 3, *size)
        if not all(sizes[0] <= n <= sizes[1] for n in size):
            with pytest.raises(cosparse.ShapeError, match=r"input .x.: expected a (height|width)"):
                engine(x.numpy())
            continue
        with torch.no_grad():
            wanted = model(x).numpy()
        got = engine(x.numpy())
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_window_taken_from_the_size_is_a_global_pool_and_a_number_is_none() -> None:
    example = torch.randn(1, 3, 64, 64)
    assert ops(from_torch(net(CASES["whole"][0]), example))[-1] == "adaptive_avg_pool"
    assert ops(from_torch(net(CASES["whole maximum"][0]), example))[-1] == "adaptive_max_pool"
    assert ops(from_torch(net(CASES["window"][0]), example))[-1] == "avg_pool"


def test_a_branch_that_torch_had_decided_before_is_found_all_the_same() -> None:
    """torch asks nothing twice: one of its operators asks first whether a map has one row."""
    sizes = from_torch(net(one_row), torch.randn(1, 3, 64, 64)).inputs[0].sizes
    assert sizes is not None
    assert sizes[0][0] == 5  # a quarter of 4 rows is one
    sizes = from_torch(net(lambda x, y: y + 1 if x.shape[2] == 1 else y), torch.randn(1, 3, 64, 64)).inputs[0].sizes
    assert sizes is not None
    assert sizes[0][0] > 1


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (
            lambda x, y: y + 1 if x.size(0) > 4 else y,
            r"code that decides by it, batch <= 4 at test_import_guards\.py:\d+; an artifact takes any",
        ),
        (lambda x, y: y + 1 if x.size(0) == 1 else y, "one that computes something else for a single image; an artifact takes any batch"),
    ],
)
def test_a_branch_on_the_batch_is_refused(then: Then, text: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"expected the same network for every batch, got {text}"):
        export(net(then), torch.randn(1, 3, 64, 64), tmp_path / "net.cosparse")
    assert not list(tmp_path.iterdir())


def test_a_single_image_that_differs_is_named_where_small_images_are_none(tmp_path: Path) -> None:
    model = net(lambda x, y: F.avg_pool2d(y + 1 if x.size(0) == 1 else y, 16))
    with pytest.raises(Error, match="expected the same network for every batch, got one that computes something else for a single image"):
        export(model, torch.randn(1, 3, 64, 64), tmp_path / "net.cosparse")


def test_export_says_once_which_sizes_it_takes(tmp_path: Path) -> None:
    report = export(net(even), torch.randn(1, 3, 64, 64), tmp_path / "net.cosparse")
    assert report.sizes.startswith("input 'x': a height from 61 to 64 and a width from 61 to 64; limited by Mod(")
    assert str(report).count(report.sizes) == 1
    assert export(net(lambda x, y: y), torch.randn(1, 3, 64, 64), tmp_path / "net.cosparse").sizes == ""


def test_ranges_are_exact() -> None:
    h, w = sympy.symbols("h w", integer=True, positive=True)
    example, quarter = {h: 64, w: 64}, FloorDiv(h - 1, 4) + 1
    conditions = {
        sympy.Eq(quarter, 16): (61, 64),
        sympy.Ne(Mod(quarter, 2), 1): (61, 64),
        sympy.Ne(quarter, 20_000): (1, 79_996),
        quarter <= 1_000_003: (1, 4_000_012),
        sympy.Ne(h, 1): (2, MOST),
    }
    for condition, wanted in conditions.items():
        assert box([Guard(condition)], example, [h, w]) == {h: wanted, w: ANY}
    assert box([Guard(None)], example, [h, w]) == {h: EXAMPLE, w: EXAMPLE}
    assert box([Guard(h >= w)], example, [h, w]) == {h: EXAMPLE, w: EXAMPLE}
    cut = box([Guard(sympy.Ne(h * w, 1))], example, [h, w])
    assert cut == {h: (2, MOST), w: ANY}
