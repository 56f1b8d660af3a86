"""Readers and batches: decoded exactly, refused clearly, augmented as said, the same for a seed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from cosparse.compress.data import DIGITS, Batches, Images, digits, read_parquet
from cosparse.errors import Error

PLAIN = {"channels": "RGB", "scale": 1 / 255, "mean": [0.5, 0.25, 0.0], "std": [0.5, 1.0, 2.0], "size": [6, 5]}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[bytes], **columns: list[int]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"image": images, **(columns or {"label": list(range(len(images)))})}), path)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def test_parquet_is_read_exactly(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path / "some_train.parquet", [png(image) for image in pixels])
    write(tmp_path / "masks_train.parquet", [png(pixels[0])], mask=[1])
    images = read_parquet(tmp_path)
    assert np.array_equal(images.pixels.numpy(), pixels.transpose(0, 3, 1, 2))
    assert images.labels.tolist() == list(range(7))


def test_grey_images_become_rgb(tmp_path: Path, pixels: np.ndarray) -> None:
    images = read_parquet(write(tmp_path / "grey_train.parquet", [png(pixels[0, :, :, 0])]))
    assert (images.pixels[0] == images.pixels[0, :1]).all()


def test_files_that_cannot_be_used(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(Error, match="expected a Parquet file or a folder of them, got nothing there"):
        read_parquet(tmp_path / "missing")
    with pytest.raises(Error, match=r"expected one \*_train\.parquet with columns image and label, got none"):
        read_parquet(tmp_path)
    write(tmp_path / "a_train.parquet", [png(pixels[0])])
    write(tmp_path / "b_train.parquet", [png(pixels[0])])
    with pytest.raises(Error, match=r"got a_train\.parquet, b_train\.parquet"):
        read_parquet(tmp_path)
    with pytest.raises(Error, match=r"c\.parquet, row 1: expected an encoded image"):
        read_parquet(write(tmp_path / "c.parquet", [png(pixels[0]), b"no image"]))
    with pytest.raises(Error, match=r"d\.parquet, row 1: expected \[6, 5, 3\] as in row 0, got \[5, 5, 3\]"):
        read_parquet(write(tmp_path / "d.parquet", [png(pixels[0]), png(pixels[0, :5])]))
    with pytest.raises(Error, match=r"e\.parquet: expected at least one image"):
        read_parquet(write(tmp_path / "e.parquet", []))


def test_cifar10(shared_data: Path) -> None:
    images = read_parquet(shared_data / "cifar10_test.parquet")
    assert images.pixels.shape == (10000, 3, 32, 32)
    assert torch.bincount(images.labels).tolist() == [1000] * 10


def test_digits_and_their_preprocessing() -> None:
    training, test = digits()
    again = digits()[1]
    assert (len(training), len(test)) == (1438, 359)
    assert torch.equal(test.pixels, again.pixels)
    every = torch.cat([training.pixels, test.pixels]).double() / 16
    assert DIGITS["mean"][0] == pytest.approx(float(every.mean()), abs=1e-4)
    assert DIGITS["std"][0] == pytest.approx(float(every.std()), abs=1e-4)


def test_split_divides_and_refuses_to_leave_nothing(pixels: np.ndarray) -> None:
    images = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.arange(7))
    rest, held = images.split(0.3, seed=4)
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(7))
    assert len(held) == 2
    with pytest.raises(Error, match="share"):
        images.split(0.01)


def test_plain_batches_are_the_preprocessing(pixels: np.ndarray) -> None:
    images = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.arange(7))
    batches = Batches(images, PLAIN, 3)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert len(batches) == 3
    assert y.tolist() == list(range(7))
    mean, std = (np.array(PLAIN[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    wanted = (pixels.transpose(0, 3, 1, 2) / 255 - mean) / std
    assert np.abs(x.numpy() - wanted).max() <= 4 * np.finfo(np.float32).eps * np.abs(wanted).max()


def test_augmented_image_is_a_shifted_and_mirrored_one(pixels: np.ndarray) -> None:
    one = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2)[:1].repeat(200, 1, 1, 1), torch.zeros(200, dtype=torch.int64))
    keep = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
    possible = {}
    padded = np.pad(pixels[0].transpose(2, 0, 1), ((0, 0), (2, 2), (2, 2)))
    for dy in range(5):
        for dx in range(5):
            for mirrored in (False, True):
                window = padded[:, dy : dy + 6, dx : dx + 5]
                possible[(window[:, :, ::-1] if mirrored else window).astype(np.float32).tobytes()] = mirrored
    batches = Batches(one, keep, 64, shuffle=True, augment=True, pad=2)
    seen = [np.ascontiguousarray(image.numpy()).tobytes() for x, _ in batches for image in x]
    assert set(seen) <= possible.keys()
    assert len(set(seen)) > 40
    assert 60 < sum(possible[image] for image in seen) < 140


def test_epochs_differ_and_come_back(pixels: np.ndarray) -> None:
    images = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.arange(7))
    batches = Batches(images, PLAIN, 4, shuffle=True, augment=True, seed=1)
    first, second = ([x.clone() for x, _ in batches] for _ in range(2))
    batches.set_epoch(0)
    again = [x for x, _ in batches]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_preprocessing_must_fit_the_channels(pixels: np.ndarray) -> None:
    images = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.arange(7))
    with pytest.raises(Error, match="preprocessing: expected mean and std of 3 channels"):
        Batches(images, DIGITS)
