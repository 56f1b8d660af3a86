"""Images decoded on the fly: the view that is scored is exact, random views are as said, and workers change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import noise, write_folder, write_masks
from PIL import Image

from cosparse.compress.data import Batches, Chosen, Images, Stream, loader, read_folder, read_masks
from cosparse.compress.data.augment import View, centred, seeded
from cosparse.compress.score import IGNORED
from cosparse.errors import Error

PLAIN = {"channels": "RGB", "scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "size": [6, 5]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven images of sizes that differ, three classes."""
    return write_folder(tmp_path / "train", {f"{'abc'[i % 3]}/{i}.png": noise(9 + i, 13 - i % 4, i) for i in range(11)})


def collected(stream: Stream, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    stream.set_epoch(epoch)
    x, y = zip(*stream, strict=True)
    return torch.cat(x), torch.cat(y)


def test_workers_change_nothing(folder: Path) -> None:
    data = read_folder(folder)
    streams = [loader(data, PLAIN, 4, train=True, colour=0.3, workers=workers, seed=5) for workers in (0, 1, 2)]
    for epoch in (0, 1):
        (x, y), *others = (collected(stream, epoch) for stream in streams)
        assert all(torch.equal(x, a) and torch.equal(y, b) for a, b in others)
    assert x.shape == (11, 3, 6, 5)
    assert x.is_contiguous(memory_format=torch.channels_last)
    first, second = collected(streams[0], 0), collected(streams[0], 1)
    assert not torch.equal(first[0], second[0])
    assert first[1].tolist() != second[1].tolist()
    assert sorted(first[1].tolist()) == sorted(data.labels.tolist())


def test_an_image_is_seen_anew_in_every_epoch(folder: Path) -> None:
    one = Chosen(read_folder(folder), torch.tensor([4]))
    stream = loader(one, PLAIN, 1, train=True, workers=0)
    views = [collected(stream, epoch)[0] for epoch in (0, 1, 0)]
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])


def test_seeds_differ_and_the_random_state_is_left_alone(folder: Path) -> None:
    data = read_folder(folder)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    one, other = (collected(loader(data, PLAIN, 4, train=True, workers=0, seed=seed)) for seed in (1, 2))
    list(Batches(Images(torch.zeros(4, 3, 6, 5, dtype=torch.uint8), torch.arange(4)), PLAIN, 2, shuffle=True, augment=True))
    assert torch.equal(torch.rand(2), wanted)
    assert not torch.equal(one[0], other[0])


def test_images_of_the_right_size_are_scored_as_they_are(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "val", {f"a/{i}.png": noise(6, 5, i) for i in range(3)})
    stream = loader(read_folder(root), PLAIN, 2, workers=0)
    x, y = collected(stream)
    assert len(stream) == 2
    assert torch.equal(x, torch.stack([torch.from_numpy(noise(6, 5, i)).permute(2, 0, 1) for i in range(3)]).float())
    assert y.tolist() == [0, 0, 0]


def test_larger_images_are_scored_at_their_centre() -> None:
    """A ramp stays a ramp: bilinear resizing of a linear function is that function at the new pixels' centres, away from the border."""
    height, width = 100, 160
    ramp = (np.arange(width)[None, :] + 0 * np.arange(height)[:, None]).astype(np.uint8)
    image, _ = centred(Image.fromarray(ramp), 0, (40, 40), 0.8)  # the middle 80 x 80: columns 40 to 119
    wanted = 40 + (np.arange(40) + 0.5) * 2 - 0.5
    assert np.abs(np.asarray(image)[20].astype(float) - wanted).max() <= 0.5 + 1e-9  # rounding to whole grey levels


def test_masks_are_cut_with_their_images(tmp_path: Path) -> None:
    """Every pixel of the image says which label it has, so wherever an unblurred pixel went its label went too."""
    mask = np.kron(np.arange(12).reshape(3, 4), np.ones((16, 16))).astype(np.uint8)
    image = np.repeat((20 * mask)[:, :, None], 3, axis=2)
    data = read_masks(write_masks(tmp_path / "a_train.parquet", [image] * 5, [mask] * 5), ignored=(11,))
    x, y = collected(loader(data, PLAIN | {"size": [24, 32]}, 2, train=True, workers=0, seed=1))
    assert y.shape == (5, 24, 32)
    pure = (x[:, 0] == 20 * (x[:, 0] / 20).round()) & (x[:, 0] < 220)
    pure &= torch.nn.functional.max_pool2d(x[:, :1], 3, 1, 1)[:, 0] == -torch.nn.functional.max_pool2d(-x[:, :1], 3, 1, 1)[:, 0]
    assert pure.float().mean() > 0.4
    assert torch.equal(x[:, 0][pure], 20.0 * y[pure])
    assert (y[x[:, 0] == 220] == IGNORED).all()
    scored, labels = collected(loader(data, PLAIN | {"size": [40, 64]}, 5, workers=0))
    assert torch.equal(scored[0, 0], torch.from_numpy(image[4:44, :, 0]).float())
    assert torch.equal(labels[0], torch.from_numpy(np.where(mask == 11, IGNORED, mask.astype(np.int64))[4:44]))


def test_views_cover_the_shares_that_they_say() -> None:
    """From the widths of a ramp: the part's share of the area, and mirroring."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 250, 200), (100, 1)).astype(np.uint8))
    shares, mirrored = [], 0
    for number in range(60):
        with seeded(0, number):
            view, _ = View((10, 20), scale=(0.25, 0.5), ratio=1.0001)(ramp, 0)
        row = np.asarray(view)[5].astype(float)
        mirrored += row[0] > row[-1]
        shares.append((abs(row[-1] - row[0]) / 250 * 20 / 19) ** 2)
    assert 0.2 < min(shares) < 0.32
    assert 0.42 < max(shares) < 0.55
    assert 15 < mirrored < 45


def test_a_broken_image_is_named_from_a_worker_too(folder: Path) -> None:
    (folder / "b" / "4.png").write_bytes(b"nothing")
    for workers in (0, 2):
        with pytest.raises(Error, match=r"b/4\.png: expected an encoded image"):
            list(loader(read_folder(folder), PLAIN, 4, workers=workers))


def test_settings_that_cannot_be_used(folder: Path) -> None:
    data = read_folder(folder)
    with pytest.raises(Error, match="batch at least 1, workers at least 0, got batch 4, workers -1"):
        loader(data, PLAIN, 4, workers=-1)
    with pytest.raises(Error, match=r"preprocessing: expected size \[height, width\]"):
        loader(data, {key: value for key, value in PLAIN.items() if key != "size"}, 4, train=True)
    with pytest.raises(Error, match="preprocessing: expected scale, mean and std, got no mean"):
        loader(data, {"size": [4, 4], "scale": 1, "std": [1] * 3}, 4)
    with pytest.raises(Error, match=r"colour: expected 0 for images in memory, got 0\.5"):
        loader(Images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1)), PLAIN, colour=0.5)
