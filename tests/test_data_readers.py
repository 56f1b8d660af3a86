"""Readers of images that are decoded on the fly: folders of classes, tables of masks, COCO; and what recognises them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_sets import coco_content, noise, png, write_coco, write_folder, write_masks

from cosparse.compress.data import describe, hold_out, open_data, read_coco, read_folder, read_masks
from cosparse.compress.score import IGNORED
from cosparse.errors import Error


def test_folder_numbers_sorted_classes_and_counts_what_it_passes_over(tmp_path: Path) -> None:
    images = {"zebra/b.png": noise(5, 7, 1), "ant/deep/a.PNG": noise(6, 4, 2), "ant/c.png": noise(3, 3, 3)}
    root = write_folder(tmp_path / "set" / "train", images)
    (root / "ant" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    data = read_folder(root)
    assert data.classes == ("ant", "zebra")
    assert data.labels.tolist() == [0, 0, 1]
    assert (len(data), data.skipped, data.masks) == (3, 1, False)
    assert describe(data) == "set/train: 3 images in 2 classes, 1 other files passed over"
    read = [(np.asarray(image), label) for image, label in map(data.read, range(3))]
    for (pixels, label), (place, number) in zip(read, [("ant/c.png", 0), ("ant/deep/a.PNG", 0), ("zebra/b.png", 1)], strict=True):
        assert np.array_equal(pixels, images[place])
        assert label == number


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(Error, match="none: expected a folder with one folder a class, got nothing there"):
        read_folder(tmp_path / "none")
    with pytest.raises(Error, match="expected one folder a class, got none"):
        read_folder(tmp_path)
    root = write_folder(tmp_path / "train", {"a/1.png": noise(4, 4)})
    with pytest.raises(Error, match="expected the 2 class folders of the training images, got others: b"):
        read_folder(root, ("a", "b"))
    (root / "b").mkdir()
    with pytest.raises(Error, match="train/b: expected at least one image, got an empty folder"):
        read_folder(root)
    (root / "b" / "x.txt").write_text("")
    with pytest.raises(Error, match="train/b: expected at least one image, got 1 other files"):
        read_folder(root)


@pytest.mark.parametrize("content", [b"", b"no image", png(noise(40, 40))[:-2000]])
def test_broken_images_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(content)
    with pytest.raises(Error, match=r"a/broken\.png: expected an encoded image, got .*; replace or remove it"):
        read_folder(tmp_path).read(0)


def test_masks_are_read_exactly_and_void_is_ignored(tmp_path: Path) -> None:
    mask = np.arange(35, dtype=np.uint8).reshape(5, 7) % 3
    data = read_masks(write_masks(tmp_path / "a_train.parquet", [noise(5, 7)], [mask], "Road Car Void"))
    assert (data.classes, data.ignored, data.masks) == (("Road", "Car"), (2,), True)
    image, labels = data.read(0)
    assert np.array_equal(np.asarray(image), noise(5, 7))
    assert np.array_equal(np.asarray(labels), np.where(mask == 2, IGNORED, mask.astype(int)))
    unnamed = read_masks(write_masks(tmp_path / "b_train.parquet", [noise(5, 7)], [mask]), ignored=(0,))
    assert np.array_equal(np.asarray(unnamed.read(0)[1]), np.where(mask == 0, IGNORED, mask.astype(int)))


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    good = np.zeros((5, 7), np.uint8)
    path = tmp_path / "a_train.parquet"
    with pytest.raises(Error, match=r"row 0, mask: expected classes 0 to 1, got 9"):
        read_masks(write_masks(path, [noise(5, 7)], [good + 9], "Road Car")).read(0)
    with pytest.raises(Error, match="row 0, mask: expected one class a pixel, 7 x 5 as the image, got mode L, 7 x 4"):
        read_masks(write_masks(path, [noise(5, 7)], [good[:4]])).read(0)
    with pytest.raises(Error, match="got mode RGB"):
        read_masks(write_masks(path, [noise(5, 7)], [noise(5, 7)])).read(0)
    with pytest.raises(Error, match="expected classes that stand for no label after all others, got Void Road"):
        read_masks(write_masks(path, [noise(5, 7)], [good], "Void Road"))
    with pytest.raises(Error, match=r"with columns image and label, or .* got a table of image, mask"):
        open_data(path, "train", masks=False)
    path.write_bytes(b"no table")
    with pytest.raises(Error, match=r"a_train\.parquet: expected a Parquet file"):
        open_data(tmp_path, "train")


def test_camvid(shared_data: Path) -> None:
    data = open_data(shared_data, "test", masks=True)
    assert (len(data), len(data.classes)) == (233, 11)
    image, labels = data.read(7)
    assert (image.width, image.height) == (480, 360)
    assert set(np.unique(np.asarray(labels))) <= {IGNORED, *range(11)}


SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]  # columns 1 to 4, rows 1 to 3


def test_coco_paints_small_on_large_and_ignores_crowds(tmp_path: Path) -> None:
    # Run lengths go down the columns: 6 x 8 pixels, the first column is a crowd.
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 7, "area": 2, "iscrowd": 0, "segmentation": [[2, 2, 4, 2, 4, 3, 2, 3]]},
        {"id": 2, "image_id": 5, "category_id": 3, "area": 12, "iscrowd": 0, "segmentation": [SQUARE]},
        {"id": 3, "image_id": 5, "category_id": 7, "area": 12, "iscrowd": 1, "segmentation": {"counts": [0, 12, 36], "size": [6, 8]}},
    ]
    images = [{"id": 5, "file_name": "b.png", "height": 6, "width": 8}, {"id": 9, "file_name": "a.png", "height": 3, "width": 3}]
    data = read_coco(write_coco(tmp_path, "train2017", coco_content(images, annotations)), "train")
    assert data.classes == ("background", "dog", "cat")
    empty, painted = data.read(0), data.read(1)  # by file name
    assert np.array_equal(np.asarray(empty[1]), np.zeros((3, 3)))
    wanted = np.zeros((6, 8), int)
    wanted[:, :2] = IGNORED
    wanted[1:4, 1:5] = 1
    wanted[2, 2:4] = 2
    assert np.array_equal(np.asarray(painted[1]), wanted)
    assert np.array_equal(np.asarray(painted[0]), noise(6, 8, 0))


def test_coco_reads_compressed_run_lengths(tmp_path: Path) -> None:
    from pycocotools import mask as codec

    wanted = np.asfortranarray(np.random.default_rng(0).integers(0, 2, (6, 8), dtype=np.uint8))
    coded = codec.encode(wanted)
    one = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": {"size": [6, 8], "counts": coded["counts"].decode()}}
    content = coco_content([{"id": 1, "file_name": "a.png", "height": 6, "width": 8}], [one])
    data = read_coco(write_coco(tmp_path, "val", content, folder="images"), "val")
    assert np.array_equal(np.asarray(data.read(0)[1]), wanted)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "got no polygon"),
        ([[1, 1, 2, 2]], r"got polygons of \[4\] numbers"),
        ({"counts": [1, 2], "size": [6, 8]}, "got run lengths of 6 x 8 pixels"),
        ({"counts": "0", "size": [5, 8]}, "got run lengths of 5 x 8 pixels"),
        ({"size": [6, 8]}, "got 'counts'"),
        (7, "got 'int' object"),
    ],
)
def test_coco_names_the_annotation_that_is_wrong(tmp_path: Path, segmentation, message: str) -> None:
    one = {"id": 44, "image_id": 1, "category_id": 3, "segmentation": segmentation}
    content = coco_content([{"id": 1, "file_name": "a.png", "height": 6, "width": 8}], [one])
    data = read_coco(write_coco(tmp_path, "train", content), "train")
    with pytest.raises(Error, match=r"annotation 44: expected polygons .*" + message):
        data.read(0)


def test_coco_files_that_cannot_be_used(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}]
    with pytest.raises(Error, match=r"expected one instances_train\*\.json, got none"):
        read_coco(tmp_path, "train")
    strange = [{"id": 3, "image_id": 2, "category_id": 3, "segmentation": [SQUARE]}]
    root = write_coco(tmp_path / "a", "train", coco_content(images, strange))
    with pytest.raises(Error, match="annotation 3: expected an image, a category and a segmentation of this file"):
        read_coco(root)
    (tmp_path / "b" / "images").mkdir(parents=True)
    with pytest.raises(Error, match="expected at least one image, got none"):
        read_coco(write_coco(tmp_path / "b", "train", coco_content([], [])))
    root = write_coco(tmp_path / "c", "train", coco_content(images, []))
    write_coco_width(root, 9)
    with pytest.raises(Error, match=r"expected 9 x 6 pixels as annotated, got 8 x 6"):
        read_coco(root).read(0)
    (root / "annotations" / "instances_train.json").write_text("[1")
    with pytest.raises(Error, match="expected instances as COCO writes them, got JSONDecodeError"):
        read_coco(root)
    (tmp_path / "d" / "annotations").mkdir(parents=True)
    (tmp_path / "d" / "annotations" / "instances_train.json").write_text("{}")
    with pytest.raises(Error, match=r"expected the images of instances_train\.json in a folder train, got none"):
        read_coco(tmp_path / "d")


def write_coco_width(root: Path, width: int) -> None:
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"][0]["width"] = width
    path.write_text(json.dumps(content))


def test_open_data_recognises_each_layout(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", {"train/a/1.png": noise(4, 4), "val/a/1.png": noise(4, 4), "val/a/2.png": noise(4, 4)})
    assert (open_data(folder, "train").name, open_data(folder, "test").name) == ("folder/train", "folder/val")
    write_folder(folder, {"test/a/9.png": noise(4, 4)})
    assert open_data(folder, "test").name == "folder/test"
    coco = write_coco(tmp_path / "coco", "val2017", coco_content([{"id": 1, "file_name": "a.png", "height": 6, "width": 8}], []))
    assert open_data(coco, "test").name == "coco/val2017"
    masks = write_masks(tmp_path / "street_train.parquet", [noise(4, 4)], [np.zeros((4, 4), np.uint8)])
    assert open_data(tmp_path, "train").name == open_data(masks, "train").name == "street_train.parquet"


def test_open_data_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"nowhere: expected one \*_train\.parquet with .* got nothing there"):
        open_data(tmp_path / "nowhere", "train")
    with pytest.raises(
        Error, match=r"or test/CLASS/\*, or val/CLASS/\*, or .* annotations/instances_val\*\.json with images, got an empty folder"
    ):
        open_data(tmp_path, "test")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(Error, match=r"columns image and mask, or annotations/instances_train\*\.json with images, got file\.txt"):
        open_data(tmp_path, "train", masks=True)
    with pytest.raises(Error, match="got another file"):
        open_data(tmp_path / "file.txt", "train")
    write_folder(tmp_path, {"train/a/1.png": noise(4, 4), "val/b/1.png": noise(4, 4)})
    with pytest.raises(Error, match="class folders of the training images, got others: a, b"):
        open_data(tmp_path, "test")


def test_hold_out_divides_without_decoding(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "train", {f"{name}/{i}.png": noise(4, 4, i) for name in "ab" for i in range(5)})
    rest, held = hold_out(read_folder(root), 0.3, seed=1)
    assert (len(rest), len(held), rest.classes) == (7, 3, ("a", "b"))
    labels = rest.labels.tolist() + held.labels.tolist()
    assert sorted(labels) == [0] * 5 + [1] * 5
    assert [held.read(i)[1] for i in range(3)] == held.labels.tolist()
    assert hold_out(read_folder(root), 0.3, seed=1)[1].labels.tolist() == held.labels.tolist()
    with pytest.raises(Error, match="share"):
        hold_out(read_folder(root), 0.01)
