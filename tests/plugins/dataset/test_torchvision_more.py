"""Torchvision's other classification sets, tiny and in their published layouts, against torchvision's own reading."""

from __future__ import annotations

import bz2
import struct
from typing import TYPE_CHECKING, get_args, get_type_hints

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset._torchvision import SOURCES
from cnnbench_plugins.dataset.torchvision import Torchvision

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def paint(file: Path, height: int, width: int) -> None:
    """An image of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(file)


def idx(file: Path, array: np.ndarray, kind: int) -> None:
    """An IDX file: type 8 is an unsigned byte, 12 a big-endian integer."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write_bytes(header + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes())


def dtd(root: Path) -> None:
    for part in ("train", "val", "test"):
        lines = [f"{name}/{name}_{part}.png" for name in ("banded", "zigzagged")]
        for number, line in enumerate(lines):
            paint(root / "dtd/dtd/images" / line, 20 + number, 30)
        (root / "dtd/dtd/labels").mkdir(exist_ok=True)
        (root / "dtd/dtd/labels" / f"{part}1.txt").write_text("\n".join(lines))


def pet(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part in ("trainval", "test"):
        (folder / "annotations" / f"{part}.txt").write_text(f"Abyssinian_{part} 1 1 1\ngreat_pyrenees_{part} 2 2 1\n")
        for number, name in enumerate(("Abyssinian", "great_pyrenees")):
            paint(folder / "images" / f"{name}_{part}.jpg", 16, 24 + number)


def gtsrb(root: Path) -> None:
    for sign in range(3):
        paint(root / f"gtsrb/GTSRB/Training/0000{sign}/0_0.ppm", 20 + sign, 25)
        paint(root / f"gtsrb/GTSRB/Final_Test/Images/0000{sign}.ppm", 20, 25 + sign)
    rows = "".join(f"0000{sign}.ppm;20;25;1;1;2;2;{sign}\n" for sign in (2, 0, 1))
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    (root / "gtsrb/GT-final_test.csv").write_text(head + rows)


def imagenette(root: Path) -> None:
    for part in ("train", "val"):
        for word in ("n01440764", "n02102040"):
            paint(root / "imagenette2-160" / part / word / f"{part}.JPEG", 16, 21)


def usps(root: Path) -> None:
    for name in ("usps.bz2", "usps.t.bz2"):
        rows = [[label, *RNG.uniform(-1, 1, 256).round(4)] for label in (3, *range(1, 11))]
        lines = [f"{row[0]:.0f} " + " ".join(f"{k}:{x}" for k, x in enumerate(row[1:], 1)) for row in rows]
        (root / name).write_bytes(bz2.compress(("\n".join(lines) + "\n").encode()))


def stl10(root: Path) -> None:
    (root / "stl10_binary").mkdir()
    (root / "stl10_binary/class_names.txt").write_text("airplane\nbird\n")
    for part in ("train", "test"):
        (root / f"stl10_binary/{part}_X.bin").write_bytes(RNG.integers(0, 256, 2 * 3 * 96 * 96, np.uint8).tobytes())
        (root / f"stl10_binary/{part}_y.bin").write_bytes(bytes([2, 1]))


def qmnist(root: Path) -> None:
    for part in ("train", "test"):
        idx(root / f"QMNIST/raw/qmnist-{part}-images-idx3-ubyte", RNG.integers(0, 256, (10, 28, 28)), 8)
        labels = np.concatenate([RNG.permutation(10)[:, None], RNG.integers(0, 90, (10, 7))], 1)
        idx(root / f"QMNIST/raw/qmnist-{part}-labels-idx2-int", labels, 12)


MADE = {
    "DTD": dtd,
    "OxfordIIITPet": pet,
    "GTSRB": gtsrb,
    "Imagenette": imagenette,
    "USPS": usps,
    "STL10": stl10,
    "QMNIST": qmnist,
}


@pytest.fixture(autouse=True)
def _no_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.stl10, "check_integrity", lambda *_: True)


def made(root: Path, name: str) -> Torchvision:
    MADE[name](root)
    return Torchvision(name, path=root, size=12 if SOURCES[name].varied else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MADE)
def test_images_and_labels_are_those_of_torchvisions_items(name: str, tmp_path: Path) -> None:
    dataset = made(tmp_path, name)
    data = load(dataset)
    source = SOURCES[name]
    for parts, images, labels in (
        (source.train, data.train_images, data.train_labels),
        (source.test, data.test_images, data.test_labels),
    ):
        items = [item for part in parts for item in getattr(torchvision.datasets, name)(root=str(tmp_path), **part)]
        assert labels.tolist() == [label for _, label in items]
        for image, (picture, _) in zip(images, items, strict=True):
            expected = picture
            if dataset.size is not None:  # the centre square, then its scale
                margins = [(side - min(picture.size)) / 2 for side in picture.size]
                box = (*margins, *(margin + min(picture.size) for margin in margins))
                expected = picture.resize((12, 12), Image.Resampling.BILINEAR, box)
            assert (image.permute(1, 2, 0).squeeze(2).numpy() == np.asarray(expected)).all()


@pytest.mark.parametrize("name", MADE)
def test_the_fingerprint_stands_for_every_file(name: str, tmp_path: Path) -> None:
    dataset = made(tmp_path, name)
    before = {dataset.fingerprint()}
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        before.add(dataset.fingerprint())
    assert len(before) == len(files) + 1


def test_official_validation_images_serve_training(tmp_path: Path) -> None:
    data = load(made(tmp_path, "DTD"))
    assert (len(data.train_labels), len(data.test_labels)) == (4, 2)


def test_class_names(tmp_path: Path) -> None:
    names = {name: load(made(tmp_path, name)).class_names for name in MADE}
    assert names["DTD"] == ("banded", "zigzagged")
    assert names["OxfordIIITPet"] == ("Abyssinian", "Great Pyrenees")
    assert names["Imagenette"] == ("tench", "English springer")
    assert names["GTSRB"] == ("0", "1", "2")
    assert names["USPS"] == tuple("0123456789")


@pytest.mark.parametrize(("split", "first", "classes"), [("letters", 1, 26), ("digits", 0, 10)])
def test_emnist_stands_upright_and_counts_its_classes_from_0(
    tmp_path: Path, split: str, first: int, classes: int
) -> None:
    pixels = RNG.integers(0, 256, (classes, 28, 28), np.uint8)
    order = RNG.permutation(classes)
    for part in ("train", "test"):
        idx(tmp_path / f"EMNIST/raw/emnist-{split}-{part}-images-idx3-ubyte", pixels, 8)
        idx(tmp_path / f"EMNIST/raw/emnist-{split}-{part}-labels-idx1-ubyte", order + first, 8)
    data = load(Torchvision("EMNIST", path=tmp_path, split=split))  # type: ignore[arg-type]
    assert (data.train_images[:, 0].numpy() == pixels.transpose(0, 2, 1)).all()
    assert data.test_labels.tolist() == order.tolist()
    assert data.class_names == tuple("abcdefghijklmnopqrstuvwxyz" if first else "0123456789")
    with pytest.raises(DataError, match="emnist-balanced"):
        Torchvision("EMNIST", path=tmp_path).fingerprint()


def test_eurosat_is_split_as_a_folder_is(tmp_path: Path) -> None:
    for name in ("Forest", "River"):
        for number in range(5):
            paint(tmp_path / f"eurosat/2750/{name}/{name}_{number}.png", 8, 8)
    dataset = Torchvision("EuroSAT", path=tmp_path)
    data = load(dataset)
    assert dataset.sizes() == (len(data.train_labels), len(data.test_labels)) == (8, 2)
    assert data.class_names == ("Forest", "River")
    assert (load(Torchvision("EuroSAT", path=tmp_path, size=4)).train_images.shape) == (8, 3, 4, 4)


def test_images_of_one_size_can_be_scaled_too(tmp_path: Path) -> None:
    usps(tmp_path)
    data = load(Torchvision("USPS", path=tmp_path, size=8))
    assert data.train_images.shape == data.test_images.shape == (11, 1, 8, 8)


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].varied])
def test_images_of_many_sizes_ask_for_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"images of {name} differ in size: set size"):
        Torchvision(name)  # type: ignore[arg-type]


def test_split_is_emnists() -> None:
    with pytest.raises(ValueError, match="split belongs to EMNIST"):
        Torchvision("USPS", split="letters")


@pytest.mark.parametrize("name", SOURCES)
def test_torchvision_has_each_and_missing_data_says_where_it_was_looked_for(name: str, tmp_path: Path) -> None:
    assert hasattr(torchvision.datasets, name)
    dataset = Torchvision(name, path=tmp_path, size=16)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"{name}: no .* in {tmp_path}: set its option download"):
        dataset.fingerprint()


def test_a_corrupt_image_is_one_line(tmp_path: Path) -> None:
    dataset = made(tmp_path, "GTSRB")
    (tmp_path / "gtsrb/GTSRB/Training/00001/0_0.ppm").write_bytes(b"P6 none")
    with pytest.raises(DataError, match=r"GTSRB in .*: corrupt: image 1: ") as caught:
        dataset()
    assert "\n" not in str(caught.value)


def test_the_table_and_the_type_have_the_same_names() -> None:
    assert get_args(get_type_hints(Torchvision)["dataset"]) == tuple(SOURCES)
