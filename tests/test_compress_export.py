"""Export: what is packed is what torch computes, in the smallest fitting form, and nothing is written where it is not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cosparse.bench import zoo
from cosparse.compress import NNCS, Budget, count, export, impose, masks
from cosparse.compress.importer import from_torch
from cosparse.compress.pack import pack, to_blocks
from cosparse.compress.verify import check_outputs, check_weights
from cosparse.engine import artifact
from cosparse.errors import Error
from cosparse.kernels import reference
from cosparse.kernels.conv import scatter_blocks
from tests.compress_nets import Awkward, Residual, seeded

EXAMPLE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def outputs(path: Path, x: torch.Tensor) -> np.ndarray:
    return reference.run(artifact.read(path), x.numpy())[0]


def assert_same(got: np.ndarray, model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = model.eval()(x).numpy()
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("block", [1, 2, 8, 16])
@pytest.mark.parametrize("transform", ["dct", "identity"])
def test_awkward_network_comes_back(tmp_path: Path, transform: str, block: int) -> None:
    model = impose(seeded(Awkward), Budget(flops=0.6), EXAMPLE, block=block, transform=transform)
    report = export(model, EXAMPLE, tmp_path / "net.cosparse", name="awkward")
    x = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    assert_same(outputs(tmp_path / "net.cosparse", x), model, x)
    assert report.difference <= 1e-4
    assert report.bytes == (tmp_path / "net.cosparse").stat().st_size


def test_resnet56_at_sixty_percent(tmp_path: Path) -> None:
    example = zoo.example("resnet56", 2)
    model = impose(zoo.build("resnet56"), Budget(flops=0.6), example)
    report = export(model, example, tmp_path / "net.cosparse", name="resnet56")
    graph = artifact.read(tmp_path / "net.cosparse")
    assert_same(reference.run(graph, example.numpy())[0], model, example)
    assert graph.provenance["flops_reduction"] == pytest.approx(0.6, abs=0.002)
    stored = sum(layer.density * layer.bytes_dense / 4 for layer in report.layers)
    assert stored == pytest.approx(sum(layer.params for layer in report.counts.layers))


def test_file_holds_the_mask_and_no_more(tmp_path: Path) -> None:
    model = impose(seeded(Awkward), Budget(flops=0.7), EXAMPLE)
    export(model, EXAMPLE, tmp_path / "net.cosparse")
    graph = artifact.read(tmp_path / "net.cosparse")
    for name, _, mask in masks.masked(model):
        node = graph.node(name)
        assert (node.attrs["format"], node.attrs["transform"], node.attrs["block"]) == ("block", mask.transform.name, mask.block)
        assert node.tensors["columns"].size == int(mask.keep.sum())
        blocks = np.ones_like(node.tensors["values"])
        dense = scatter_blocks(blocks, node.tensors["columns"], node.tensors["rows"], mask.keep.shape[1])
        assert np.array_equal(dense[: mask.filters] != 0, mask.full.numpy())


def test_trained_network_and_its_notes(tmp_path: Path) -> None:
    model = seeded(Residual)
    example = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nncs = NNCS(model, Budget(flops=0.5), example)
    nncs.mask()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(example).square().mean().backward()
        nncs.step(optimizer)
    nncs.finish()
    notes = {"preprocessing": {"scale": 0.5}, "provenance": {"method": "nncs", "accuracy": 0.9}}
    report = export(model, example, tmp_path / "net.cosparse", name="small", **notes)
    assert model.training
    graph = artifact.read(tmp_path / "net.cosparse")
    assert_same(reference.run(graph, example.numpy())[0], model, example)
    assert (graph.name, graph.preprocessing) == ("small", {"scale": 0.5})
    assert graph.provenance["method"] == "nncs"
    assert graph.provenance["params"] == count(model, example).params == report.counts.params
    assert "small" in report.name
    assert "dct 8x1" in str(report)


def test_zeros_of_a_pruned_network_are_found(tmp_path: Path) -> None:
    """Whole 4 x 1 blocks are zero: 4 is the block size that stores least per kept weight; a dense layer stays dense."""
    model = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 8, 1))
    keep = torch.rand(8, 72, generator=torch.Generator().manual_seed(0)) < 0.2
    with torch.no_grad():
        model[0].weight.mul_(keep.repeat_interleave(4, 0).reshape(32, 8, 3, 3))
    example = torch.randn(1, 8, 6, 6)
    export(model, example, tmp_path / "net.cosparse")
    graph = artifact.read(tmp_path / "net.cosparse")
    assert (graph.node("0").attrs["format"], graph.node("0").attrs["block"]) == ("block", 4)
    assert graph.node("0").tensors["columns"].size == int(keep.sum())
    assert graph.node("1").attrs["format"] == "dense"


def test_scattered_zeros_stay_dense(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(8, 32, 3))
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(32, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.6)
    export(model, torch.randn(1, 8, 6, 6), tmp_path / "net.cosparse")
    assert artifact.read(tmp_path / "net.cosparse").nodes[0].attrs["format"] == "dense"


def test_all_zero_layer_has_no_blocks(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 1))
    nn.init.zeros_(model[0].weight)
    example = torch.randn(1, 8, 6, 6)
    export(model, example, tmp_path / "net.cosparse")
    assert artifact.read(tmp_path / "net.cosparse").node("0").tensors["values"].shape[0] == 0
    assert_same(outputs(tmp_path / "net.cosparse", example), model, example)


@pytest.mark.parametrize(("filters", "columns", "block"), [(10, 27, 8), (8, 27, 8), (1, 5, 1), (3, 70000, 2)])
def test_blocks_hold_the_matrix(filters: int, columns: int, block: int) -> None:
    rng = np.random.default_rng(0)
    matrix, keep = rng.standard_normal((filters, columns)).astype(np.float32), rng.random((-(-filters // block), columns)) < 0.3
    tensors = to_blocks(matrix, keep, block)
    assert tensors["columns"].dtype == (np.uint32 if columns > 65536 else np.uint16)
    dense = scatter_blocks(tensors["values"], tensors["columns"], tensors["rows"], columns)
    full = np.repeat(keep, block, 0)[:filters]
    assert np.array_equal(dense[:filters], np.where(full, matrix, 0))
    assert not dense[filters:].any()


def test_weight_outside_the_mask_is_refused(tmp_path: Path) -> None:
    model = impose(seeded(Awkward), Budget(flops=0.7), EXAMPLE)
    with torch.no_grad():
        model.wide.weight.add_(0.01)
    target = tmp_path / "net.cosparse"
    target.write_bytes(b"older")
    with pytest.raises(Error, match=r"node 'wide': expected masked-out coefficients of at most .*; project the weights"):
        export(model, EXAMPLE, target)
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_masked_layer_that_never_runs_is_refused(tmp_path: Path) -> None:
    model = impose(seeded(Awkward), Budget(flops=0.7), EXAMPLE)
    spare = nn.Conv2d(8, 8, 1)
    masks.attach(spare, masks.LayerMask("identity", 8, torch.ones(1, 8, dtype=torch.bool), 8, 1))
    model.spare = spare
    with pytest.raises(Error, match="masked layer 'spare': expected a convolution or linear node of its own"):
        export(model, EXAMPLE, tmp_path / "net.cosparse")


def test_wrong_packing_names_the_node() -> None:
    model = impose(seeded(Awkward), Budget(flops=0.7), EXAMPLE)
    dense = from_torch(model, EXAMPLE, "net")
    packed, _ = pack(dense, model)
    check_weights(dense, packed)
    node = packed.node("wide")
    values = node.tensors["values"].copy()
    values[len(values) // 2, 0] += 1e-3
    spoiled = replace(node, tensors={**node.tensors, "values": values})
    nodes = tuple(spoiled if n.name == "wide" else n for n in packed.nodes)
    with pytest.raises(Error, match=r"node 'wide': expected unpacked weights within .*; nothing was written"):
        check_weights(dense, replace(packed, nodes=nodes))


def test_wrong_outputs_name_the_first_node() -> None:
    model = seeded(Awkward)
    graph = from_torch(model, EXAMPLE, "net")
    node = graph.node("point")
    spoiled = replace(node, tensors={**node.tensors, "bias": node.tensors["bias"] + 1})
    nodes = tuple(spoiled if n.name == "point" else n for n in graph.nodes)
    assert check_outputs(graph, model, (EXAMPLE,), 0.0) <= 1e-5
    with pytest.raises(
        Error, match=r"within 0\.0001 of torch's largest value .* the first node whose value no torch module gives: 'point'"
    ):
        check_outputs(replace(graph, nodes=nodes), model, (EXAMPLE,), 0.0)


class Cancels(nn.Module):
    """Adds 1e5 and takes it away again: float32 has lost 0.4 % of the values in between, float64 nothing that counts."""

    def __init__(self, only_float32: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.only_float32 = only_float32
        for layer, bias in ((self.up, 1e5), (self.down, -1e5)):
            nn.init.dirac_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x.float() if self.only_float32 else x))


def test_float32_rounding_of_the_model_is_no_difference(tmp_path: Path) -> None:
    report = export(Cancels(only_float32=False), EXAMPLE, tmp_path / "net.cosparse")
    assert report.difference <= 1e-9
    # Where the model cannot be asked in float64, its float32 is all there is to hold the artifact against.
    with pytest.raises(Error, match=r"within 0\.0001 of torch's largest value"):
        export(Cancels(only_float32=True), EXAMPLE, tmp_path / "other.cosparse")


class Squeezed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 1).squeeze()


@pytest.mark.parametrize("batch", [1, 4])
def test_model_that_drops_the_batch_of_one_image_is_told_to_flatten(tmp_path: Path, batch: int) -> None:
    with pytest.raises(
        Error, match=r"expected shapes \[\(3,\)\], got \[\(1, 3\)\]; nothing was written; the torch model drops .* flatten\(1\)"
    ):
        export(Squeezed(), torch.randn(batch, 3, 4, 4), tmp_path / "net.cosparse")


def test_an_output_that_the_input_does_not_change_proves_little_and_that_is_said(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    nn.init.zeros_(model[0].weight)
    with pytest.warns(RuntimeWarning, match="output '0' of the torch model is the same for any input, zero everywhere"):
        export(model, EXAMPLE, tmp_path / "net.cosparse")
    model[0].bias = nn.Parameter(torch.ones(4))
    with pytest.warns(RuntimeWarning, match="the same for any input, 1 for instance"):
        export(model, EXAMPLE, tmp_path / "net.cosparse")
    nn.init.ones_(model[0].weight)
    model[0].bias = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in (0, 1):
            example = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
            export(model, example, tmp_path / "net.cosparse")


def test_network_that_gives_nan_is_refused(tmp_path: Path) -> None:
    model = seeded(Residual)
    model.bn1.running_var.fill_(-1.0)
    with pytest.raises(Error, match="expected finite values"):
        export(model, torch.randn(1, 1, 8, 8), tmp_path / "net.cosparse")
    assert not list(tmp_path.iterdir())
