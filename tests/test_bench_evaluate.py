"""Accuracy, agreement and the picture of the masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from few_rows import few_rows
from small_net import small_net

import cosparse
from cosparse.bench import agreement as claim
from cosparse.bench.bands import band_density, draw, masked_layers
from cosparse.bench.dense import densify
from cosparse.bench.evaluate import accuracy, agreement, evenly, predict, score, torch_runner
from cosparse.bench.overlap import overlap
from cosparse.compress.data import Images
from cosparse.compress.score import IGNORED, logits_of
from cosparse.engine import artifact
from cosparse.errors import Error, ShapeError

PREPROCESSING = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1]}


def images(count: int, size: int = 8) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10)


def test_accuracy_counts_ranks() -> None:
    logits = np.array([[9, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], np.float32)
    assert accuracy(logits, np.array([0, 1, 5])) == {"top1": 33.3333, "top5": 66.6667, "count": 3}


def test_labels_beyond_the_classes_are_an_error() -> None:
    with pytest.raises(Error, match="labels: expected 0 to 1, the network's classes, got 0 to 2"):
        accuracy(np.zeros((2, 2), np.float32), np.array([0, 2]))


def test_agreement_tells_ties_from_errors() -> None:
    theirs = np.array([[100.0, 0.0, 0.0], [50.0, 50.0 - 1e-3, 0.0], [0.0, 0.0, 90.0]], np.float32)
    ours = theirs.copy()
    ours[1] = [50.0 - 1e-3, 50.0, 0.0]  # two logits closer than the tolerance change places
    row = agreement(ours, theirs)
    assert (row["ties"], row["differ"], row["passed"]) == (1, 0, True)
    assert row["same_top1"] == pytest.approx(2 / 3, abs=1e-6)
    ours[2] = [0.0, 90.0, 0.0]
    row = agreement(ours, theirs)
    assert (row["ties"], row["differ"], row["passed"]) == (1, 1, False)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_predict_is_the_network_on_every_image(batch, tmp_path) -> None:
    artifact.write(tmp_path / "small.cosparse", small_net())
    engine = cosparse.load(tmp_path / "small.cosparse", threads=1)
    data, counted = images(40), []
    logits = predict(engine, data, PREPROCESSING, batch, counted.append)
    x = (data.pixels.numpy() / 255 - np.reshape(PREPROCESSING["mean"], (3, 1, 1))) / np.reshape(PREPROCESSING["std"], (3, 1, 1))
    # Inputs differ by a rounding of the preprocessing; the network is 1-Lipschitz up to a small factor.
    np.testing.assert_allclose(logits, engine(x.astype(np.float32)), rtol=1e-3, atol=1e-4 * np.abs(logits).max())
    assert sum(counted) == 40
    assert logits.shape == (40, 10)


def test_predict_wants_one_row_of_logits_an_image_and_the_preprocessing() -> None:
    with pytest.raises(ShapeError, match="one output"):
        predict(lambda x: np.zeros((len(x), 10, 4, 4), np.float32), images(3), PREPROCESSING)
    with pytest.raises(ShapeError, match="2 outputs"):
        predict(lambda x: (x, x), images(3), PREPROCESSING)  # type: ignore[arg-type, return-value]
    with pytest.raises(Error, match="no mean, std"):
        predict(lambda x: x, images(3), {"scale": 1})


def test_torch_runner_evaluates() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10), torch.nn.BatchNorm1d(10), torch.nn.Dropout(0.9)).train()
    x = np.ones((2, 3, 8, 8), np.float32)
    expected = model.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_array_equal(torch_runner(model.train())(x), expected)


def test_a_limit_takes_images_from_all_over() -> None:
    data = images(100)
    chosen = evenly(data, 10)
    assert len(chosen) == 10
    assert torch.equal(chosen.pixels[[0, -1]], data.pixels[[0, -1]])
    assert evenly(data, None) is data
    assert evenly(data, 1000) is data


def test_bands_are_counted() -> None:
    graph = small_net()
    node = graph.node("conv1")
    dense = densify(graph).node("conv1").tensors["values"]
    assert dense.shape == (16, 16, 3, 3)
    density = band_density(node)
    assert density.shape == (3, 3)
    block_rows = len(node.tensors["rows"]) - 1
    expected = np.zeros((3, 3))
    for column in node.tensors["columns"]:
        expected[column % 9 // 3, column % 3] += 1
    np.testing.assert_allclose(density, expected / (block_rows * 16))
    assert density.mean() == pytest.approx(len(node.tensors["columns"]) / (block_rows * 144))
    assert set(masked_layers(graph)) == {"conv1", "conv2"}


def test_the_picture_is_a_png_and_a_dense_network_has_none(tmp_path) -> None:
    draw(small_net(), tmp_path / "masks.png")
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG\r\n")
    with pytest.raises(Error, match="at least one layer that is sparse in a transform domain"):
        draw(densify(small_net()), tmp_path / "none.png")


def test_the_claim_of_agreement_on_a_few_images(shared_data, tmp_path) -> None:
    few = few_rows(shared_data, tmp_path / "data", {"test": 200})
    rows = claim.measure(few, claim.instruction_sets(), [1, 7], [1, 2], limit=8)
    assert len(rows) == len(claim.instruction_sets()) * 4
    assert all(claim.agreed(row) for row in rows), rows


def test_disagreement_is_seen() -> None:
    assert not claim.agreed({"passed": False, "differ": 0})
    assert not claim.agreed({"passed": True, "differ": 1})
    assert claim.agreed({"passed": True, "differ": 0})


def test_overlap_is_counted_by_hand(tmp_path) -> None:
    """Two classes and ignored pixels: |both| / |either| of each class that occurs."""
    from image_sets import noise, write_masks

    from cosparse.compress.data import read_masks

    labels = np.array([[0, 0, 1], [1, 1, 3]], np.uint8)  # 3 counts nowhere
    said = np.array([[0, 1, 1], [1, 0, 0]])
    data = read_masks(write_masks(tmp_path / "a_test.parquet", [noise(2, 3)] * 3, [labels] * 3), ignored=(3,))
    logits = np.moveaxis(np.eye(3, dtype=np.float32)[said], -1, 0)  # class 2 occurs nowhere and is left out
    preprocessing, counted = PREPROCESSING | {"size": [2, 3]}, []
    row = score(lambda x: np.stack([logits] * len(x)), data, preprocessing, 2, counted.append, workers=0)
    assert row == {"miou": round(100 * (1 / 3 + 2 / 4) / 2, 4), "pixel_accuracy": 60.0, "count": 3}
    assert counted == [2, 1]
    for given, message in (
        (lambda x: logits[None, :, :1], r"output: expected one output \[2, classes, 2, 3\]"),
        (lambda x: np.zeros((len(x), 1, 2, 3), np.float32), "labels: expected 0 to 0, the network's classes, got 0 to 1"),
    ):
        with pytest.raises(Error, match=message):
            score(given, data, preprocessing, 2, workers=0)
    with pytest.raises(Error, match=r"output: expected one output \[2, classes, 2, 3\], got 2 outputs"):
        score(lambda x: (x, x), data, preprocessing, 2, workers=0)  # type: ignore[arg-type, return-value]
    nothing = read_masks(tmp_path / "a_test.parquet", ignored=(0, 1, 3))
    with pytest.raises(Error, match="labels: expected at least one pixel with a label, got none"):
        score(lambda x: np.stack([logits] * len(x)), nothing, preprocessing, 2, workers=0)


def test_masks_of_two_runtimes_are_compared_pixel_by_pixel() -> None:
    """Of 24 pixels one differs by more than rounding and one by less; labels have no part in it."""
    first = np.zeros((2, 3, 3, 4), np.float32)
    first[:, 1] = 100
    second = first.copy()
    second[0, 2, 0, 0] = 150
    first[1, 2, 2, 3], second[1, 2, 2, 3] = 100 - 1e-3, 100 + 1e-3  # as close as two sums in another order come
    labels = torch.full((2, 3, 4), IGNORED)
    labels[0, 1, 1] = 1
    memory, counted = np.empty_like(first), []

    def reused(x: np.ndarray) -> np.ndarray:
        memory[:] = first
        return memory

    def after(x: np.ndarray) -> np.ndarray:
        memory[:] = 0  # what an engine does that gives the same memory at every call
        return second

    rows = overlap({"a": reused, "b": after, "c": lambda x: first}, [(torch.zeros(2, 3, 3, 4), labels)], counted.append)
    assert rows["a"] == {"miou": 100.0, "pixel_accuracy": 100.0, "count": 2}
    assert rows["b"]["same_pixels"] == pytest.approx(22 / 24)
    assert (rows["b"]["ties"], rows["b"]["differ"], rows["b"]["passed"], rows["b"]["max_abs_err"]) == (1, 1, False, 150.0)
    assert (rows["c"]["same_pixels"], rows["c"]["passed"], rows["c"]["max_abs_err"]) == (1.0, True, 0.0)
    assert counted == [2]


def test_a_tensor_or_the_only_one_of_a_mapping_is_what_a_network_says() -> None:
    x = torch.zeros(1, 2)
    assert logits_of(x) is logits_of({"out": x}) is logits_of({"out": x, "note": None}) is x
    for given, message in (
        ({"out": x, "aux": x}, "net: expected a tensor of logits, or a mapping with one, got a mapping of out, aux; wrap the network"),
        ({}, "net: expected .* got a mapping of nothing"),
        ((x, x), "net: expected .* got tuple"),
    ):
        with pytest.raises(Error, match=message):
            logits_of(given, "net")
