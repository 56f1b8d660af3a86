"""Networks in every transform, from the masks to the artifact, the interpreter and the engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cosparse
from cosparse import _C
from cosparse.bench.dense import densify
from cosparse.compress import Budget, export, impose, masks, transforms
from cosparse.engine import artifact
from cosparse.errors import Error
from cosparse.kernels import reference
from cosparse.kernels.transform import name_of
from tests.compress_nets import Mixed, seeded

NAMES = ["dct-channels:5", "dct+walsh:4", "walsh-filters:4", "dct+two-sided-dct:6", "klt:8"]
X = torch.randn(2, 9, 13, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mixed() -> nn.Module:
    model = seeded(Mixed)
    with torch.no_grad():
        model.norm.weight[::3] *= -1
    return model


@pytest.mark.parametrize(("name", "block"), [(name, 8) for name in NAMES] + [("dct+two-sided-dct:6", 1)])
def test_exported_network_is_torchs_and_the_interpreters(mixed: nn.Module, tmp_path: Path, name: str, block: int) -> None:
    model = impose(mixed, Budget(density=0.4), X, block=block, transform=f"{name}!")
    report = export(model, X, tmp_path / "net.cosparse")
    with torch.no_grad():
        wanted = model(X).numpy()
    graph = artifact.read(tmp_path / "net.cosparse")
    engine = cosparse.load(tmp_path / "net.cosparse", threads=1)
    for got in (reference.run(graph, X.numpy())[0], reference.run(densify(graph), X.numpy())[0], engine(X.numpy())):
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    masked = {layer: mask for layer, _, mask in masks.masked(model)}
    assert set(masked) == {"first", "point", "wide", "five", "hidden"}
    stored = {layer.name: (layer.transform, layer.block) for layer in report.layers if layer.name in masked}
    assert stored == {layer: (mask.transform.name, mask.block) for layer, mask in masked.items()}
    for row in engine.plan:
        if row.name in masked:
            plain = masked[row.name].transform == transforms.IDENTITY
            assert row.why.startswith("sparse" if plain else "no kernel for ")


@pytest.mark.parametrize(
    ("transform", "name", "why"),
    [
        ("dct+walsh:8!", "dct+walsh:8", "no kernel for dct along taps, walsh:8 along channels: transformed back, dense"),
        ("two-sided-walsh:8!", "two-sided-walsh:8", "no kernel for walsh:8 along channels and filters: transformed back, "),
        (
            "dct-channels:4+walsh-filters:4!",
            "dct-channels:4+walsh-filters:4",
            "no kernel for dct:4 along channels, walsh:4 along filters: transformed back, ",
        ),
        ("random:1!", "matrix", "no kernel for a matrix along taps: transformed back, dense"),
    ],
)
def test_plan_and_attributes_name_the_transform(mixed: nn.Module, tmp_path: Path, transform: str, name: str, why: str) -> None:
    export(impose(mixed, Budget(density=0.5), X, transform=transform), X, tmp_path / "net.cosparse")
    plan = cosparse.load(tmp_path / "net.cosparse", threads=1).plan
    assert next(row.why for row in plan if row.name == "first").startswith(why)
    assert name_of(artifact.read(tmp_path / "net.cosparse").node("first").attrs) == name


@pytest.mark.parametrize(("transform", "version"), [("dct", 1), ("identity", 1), ("walsh:8", 2), ("klt!", 2)])
def test_version_two_only_where_it_is_needed(mixed: nn.Module, tmp_path: Path, transform: str, version: int) -> None:
    export(impose(mixed, Budget(density=0.3), X, transform=transform), X, tmp_path / "net.cosparse")
    assert json.loads(_C.read_artifact(tmp_path / "net.cosparse").json)["version"] == version


def test_a_scale_that_is_folded_into_transformed_filters_is_stored_apart(mixed: nn.Module, tmp_path: Path) -> None:
    model = impose(mixed, Budget(density=0.4), X, transform="two-sided-walsh:4!")
    export(model, X, tmp_path / "net.cosparse")
    graph = artifact.read(tmp_path / "net.cosparse")
    scale = model.norm.weight / torch.sqrt(model.norm.running_var + model.norm.eps)
    alive = model.first.weight.detach().flatten(1).abs().amax(1) > 0
    assert (scale < 0).any()
    assert np.allclose(graph.node("first").tensors["scale"][alive], scale.detach().numpy()[alive], rtol=1e-5)


class Before(nn.Module):
    """A batch norm directly before a convolution, where it is folded into the input channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.conv(self.norm(x))))


@pytest.mark.parametrize("transform", ["walsh:8!", "walsh-filters:8!"])
def test_what_folding_breaks_is_refused(tmp_path: Path, transform: str) -> None:
    x = torch.randn(1, 16, 5, 5)
    model = impose(seeded(Before), Budget(density=0.5), x, transform=transform)
    with pytest.raises(Error, match="an affine layer before this one was folded into its input channels"):
        export(model, x, tmp_path / "net.cosparse")
    assert not list(tmp_path.iterdir())
