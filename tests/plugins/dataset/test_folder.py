from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset.folder import Folder

RANDOM = np.random.default_rng(0)


def fill(folder: Path, count: int, side: int = 5, suffix: str = ".png") -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for index in range(count):
        made[f"{index}{suffix}"] = RANDOM.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(made[f"{index}{suffix}"]).save(folder / f"{index}{suffix}")
    return made


def test_a_fixed_share_of_each_class_is_for_test(tmp_path: Path) -> None:
    pixels = {name: fill(tmp_path / name, count) for name, count in (("dog", 10), ("cat", 20))}
    data = load(Folder(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert torch.bincount(data.train_labels).tolist() == [16, 8]
    assert torch.bincount(data.test_labels).tolist() == [4, 2]
    assert Folder(tmp_path).sizes() == (24, 6)
    everything = {
        (int(label), image.numpy().tobytes())
        for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
        for image, label in zip(images, labels, strict=True)
    }
    expected = {
        (index, image.transpose(2, 0, 1).tobytes())
        for index, name in enumerate(("cat", "dog"))
        for image in pixels[name].values()
    }
    assert everything == expected


def test_adding_an_image_moves_at_most_one_other(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / name, 30)
    before = {image.numpy().tobytes() for image in load(Folder(tmp_path)).test_images}
    Image.fromarray(RANDOM.integers(0, 256, (5, 5, 3), np.uint8)).save(tmp_path / "cat" / "new.png")
    after = {image.numpy().tobytes() for image in load(Folder(tmp_path)).test_images}
    assert len(before - after) <= 1
    assert len(after - before) <= 1


@settings(deadline=None, max_examples=50)
@given(count=st.integers(2, 60), share=st.floats(0.01, 0.99))
def test_both_parts_of_a_class_have_images(count: int, share: float) -> None:
    files = [Path("/set/cat") / f"{index}.png" for index in range(count)]
    chosen = Folder(Path("/set"), test_share=share)._test_files(files)
    assert 1 <= len(chosen) <= count - 1
    assert len(chosen) == min(max(round(share * count), 1), count - 1)


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_the_split(tmp_path: Path, test: str) -> None:
    for name, count in (("a", 3), ("b", 2)):
        fill(tmp_path / "train" / name / "deeper", count)
    fill(tmp_path / test / "b", 4)
    data = load(Folder(tmp_path))
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1]
    assert data.test_labels.tolist() == [1] * 4
    assert data.class_names == ("a", "b")


def test_formats_and_gray(tmp_path: Path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for suffix in ("png", "bmp", "tif", "pgm"):
        Image.fromarray(gray).save(tmp_path / "a" / f"x.{suffix}")
        Image.fromarray(gray).save(tmp_path / "b" / f"x.{suffix}".upper())
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    data = load(Folder(tmp_path, test_share=0.5))
    assert data.train_images.shape == (4, 1, 8, 8)
    assert (data.train_images == torch.from_numpy(gray)).all()


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((6, 4), np.uint8)
    upright[0] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(upright).save(tmp_path / name / "0.png")
        lying, exif = Image.fromarray(np.rot90(upright)), Image.Exif()
        exif[0x0112] = 6  # turn clockwise to view
        lying.save(tmp_path / name / "1.png", exif=exif)
    data = load(Folder(tmp_path, test_share=0.5))
    for image in (*data.train_images, *data.test_images):
        assert torch.equal(image[0], torch.from_numpy(upright))


def test_size_brings_all_to_one_size(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        fill(tmp_path / name, 4, side=9 + index, suffix=".jpg")
    with pytest.raises(DataError, match=r"b/.\.jpg: 10 x 10 pixels, the first image has 9 x 9: give the option size"):
        load(Folder(tmp_path))
    assert load(Folder(tmp_path, size=7)).image_shape == (3, 7, 7)


def truncate(folder: Path) -> None:
    file = folder / "a" / "1.png"
    file.write_bytes(file.read_bytes()[:-30])


DAMAGES = [
    (truncate, r"a/1.png: corrupt image: ", False),
    (lambda f: (f / "a" / "1.png").write_text("text"), r"a/1.png: not an image", False),
    (lambda f: (f / "c").mkdir(), r"/c: no image in this class folder", True),
    (lambda f: (f / "a").rename(f / "b" / "deeper"), r"at least two classes, found 1", False),
    (lambda f: fill(f / "c", 1), r"/c: one image can't serve both training and test", True),
    (lambda f: [fill(f / "train" / "a", 1), fill(f / "test" / "z", 1)], r"test/z: class 'z' is not in .*train", True),
]


@pytest.mark.parametrize(("damage", "message", "cheap"), DAMAGES)
def test_faults_name_the_file(tmp_path: Path, damage: object, message: str, cheap: bool) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, 3)
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load(Folder(tmp_path))
    assert "\n" not in str(caught.value)
    if cheap:
        with pytest.raises(DataError, match=message):
            Folder(tmp_path).fingerprint()


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        Folder(tmp_path / "nowhere").fingerprint()
    with pytest.raises(DataError, match=r"no subfolders; it should hold one subfolder of images for each class"):
        Folder(tmp_path).fingerprint()


def test_fingerprint_follows_names_and_bytes_not_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "one" / name, 3)
    dataset = Folder(tmp_path / "one")
    before = dataset.fingerprint()
    (tmp_path / "one").rename(tmp_path / "two")
    moved = Folder(tmp_path / "two")
    assert moved.fingerprint() == before
    (tmp_path / "two" / "a" / "0.png").rename(tmp_path / "two" / "b" / "9.png")
    without = moved.fingerprint()
    assert without != before
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "aa")
    assert moved.fingerprint() != without


def test_fingerprint_follows_the_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "train" / name, 3)
        fill(tmp_path / "test" / name, 3)
    before = Folder(tmp_path).fingerprint()
    (tmp_path / "test" / "a" / "0.png").rename(tmp_path / "train" / "a" / "9.png")
    assert Folder(tmp_path).fingerprint() != before
