from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset import _files, fashion_mnist
from cnnbench_plugins.dataset.fashion_mnist import FashionMnist
from cnnbench_plugins.dataset.torchvision import Torchvision

TRAIN, TEST = 30, 20


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, *, zipped: bool = True, seed: int = 0) -> Path:
    """The four files of a tiny set of the MNIST family."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        content = {
            "images-idx3-ubyte": random.integers(0, 256, (count, 28, 28), np.uint8),
            "labels-idx1-ubyte": (np.arange(count) % 10).astype(np.uint8),
        }
        for name, array in content.items():
            body = idx(array)
            file = folder / f"{prefix}-{name}{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(body) if zipped else body)
    return folder


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data on this machine but what a test writes."""
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(_files, "user_cache_dir", lambda name: str(tmp_path / "cache"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("name", "cls"), [("FashionMNIST", None), ("MNIST", "MNIST"), ("KMNIST", "KMNIST")])
def test_agrees_with_torchvision(tmp_path: Path, name: str, cls: str | None, zipped: bool) -> None:
    raw = write(tmp_path / name / "raw", zipped=False)
    reference = [getattr(torchvision.datasets, name)(tmp_path, train=train) for train in (True, False)]
    if zipped:
        for file in raw.iterdir():
            file.unlink()
        write(raw)
    dataset = Torchvision(cls, path=tmp_path) if cls else FashionMnist(path=tmp_path)
    data = load(dataset)
    assert dataset.sizes() == (len(data.train_labels), len(data.test_labels)) == (TRAIN, TEST)
    for images, labels, part in zip(
        (data.train_images, data.test_images), (data.train_labels, data.test_labels), reference, strict=True
    ):
        assert torch.equal(images[:, 0], part.data)
        assert torch.equal(labels, part.targets)
    assert len(data.class_names) == len(reference[0].classes) == 10
    if name == "FashionMNIST":
        assert [n.lower() for n in data.class_names] == [n.lower() for n in reference[0].classes]


@pytest.mark.parametrize(
    "place",
    [
        "given",
        "given/fashion-mnist",
        "env/fashion-mnist",
        "env/FashionMNIST/raw",
        "debian",
        "cache/data/FashionMNIST/raw",
        "cache/data/fashion-mnist",
    ],
)
def test_found_in_each_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "env"))
    write(tmp_path / place)
    dataset = FashionMnist(path=tmp_path / "given" if place.startswith("given") else None)
    assert len(load(dataset).train_labels) == TRAIN
    assert dataset.sizes() == (TRAIN, TEST)


def test_the_named_folder_comes_before_debians(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "debian", seed=1)
    before = FashionMnist().fingerprint()
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "env"))
    write(tmp_path / "env" / "fashion-mnist", seed=2)
    assert FashionMnist().fingerprint() != before


def test_a_path_is_the_only_place(tmp_path: Path) -> None:
    write(tmp_path / "debian")
    with pytest.raises(DataError, match=r"is in none of .*/elsewhere, .*apt-get install dataset-fashion-mnist"):
        FashionMnist(path=tmp_path / "elsewhere").fingerprint()


def test_missing_says_where_it_looked_and_how_to_get_it() -> None:
    with pytest.raises(DataError) as caught:
        FashionMnist()()
    text = str(caught.value)
    for part in (
        "debian",
        "cache/data/FashionMNIST/raw",
        "apt-get install dataset-fashion-mnist",
        "download = true",
        "CNNBENCH_DATA",
    ):
        assert part in text
    assert "\n" not in text
    with pytest.raises(DataError, match=r"KMNIST: no KMNIST/raw.* in .*cache/data: set its option download = true"):
        Torchvision("KMNIST").fingerprint()


def test_fingerprint_changes_with_any_byte_and_not_with_the_place(tmp_path: Path) -> None:
    one = FashionMnist(path=write(tmp_path / "one", zipped=False))
    assert one.fingerprint() == FashionMnist(path=write(tmp_path / "two", zipped=False)).fingerprint()
    for file in (tmp_path / "one").iterdir():
        before, content = one.fingerprint(), file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert one.fingerprint() != before


def images(folder: Path) -> Path:
    return folder / "train-images-idx3-ubyte.gz"


def labels(folder: Path) -> Path:
    return folder / "t10k-labels-idx1-ubyte.gz"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def longer(file: Path) -> None:
    file.write_bytes(gzip.compress(idx(np.zeros(TEST + 1, np.uint8))))


DAMAGES = [
    (lambda f: cut(images(f)), "train-images-idx3-ubyte.gz: truncated or corrupt", True),
    (lambda f: images(f).write_bytes(b"\x1f\x8b"), "train-images-idx3-ubyte.gz: corrupt", True),
    (lambda f: images(f).write_bytes(b""), "train-images-idx3-ubyte.gz", True),
    (lambda f: images(f).write_bytes(b"<html>not found</html>"), "corrupt: Not a gzipped file", True),
    (lambda f: flip(images(f)), "train-images-idx3-ubyte.gz: corrupt", False),
    (lambda f: labels(f).write_bytes(gzip.compress(b"<html>nothing here</html>")), "starts with 0x3c68746d", True),
    (lambda f: labels(f).write_bytes(images(f).read_bytes()), "not an IDX file of bytes in 1 dimensions", True),
    (lambda f: longer(labels(f)), "21 labels for the 20 images of t10k-images-idx3-ubyte.gz", False),
    (lambda f: labels(f).unlink(), r"t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte.gz\) is missing", True),
    (
        lambda f: labels(f).write_bytes(gzip.compress(idx(np.full(TEST, 11, np.uint8)))),
        "label 11 is out of range",
        False,
    ),
]


@pytest.mark.parametrize(("damage", "message", "cheap"), DAMAGES)
def test_corrupt_files_are_named(tmp_path: Path, damage: object, message: str, cheap: bool) -> None:
    folder = write(tmp_path / "set")
    damage(folder)
    dataset = FashionMnist(path=folder)
    with pytest.raises(DataError, match=message) as caught:
        load(dataset)
    assert "\n" not in str(caught.value)
    if cheap:  # what the length gives away shows before anything runs
        with pytest.raises(DataError, match=message):
            dataset.fingerprint()


def test_plain_files_are_checked_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", zipped=False)
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    for call in (FashionMnist(path=folder).fingerprint, FashionMnist(path=folder)):
        with pytest.raises(DataError, match="truncated or corrupt"):
            call()


def test_download_goes_to_the_cache_and_completes_what_is_partial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stub:
        def __init__(self, root: str, download: bool, train: bool) -> None:
            assert download
            calls.append(train)
            write(Path(root) / "FashionMNIST" / "raw")

    calls: list[bool] = []
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Stub)
    dataset = FashionMnist(download=True)
    dataset.fingerprint()
    dataset.fingerprint()
    assert calls == [True, False]
    (tmp_path / "cache/data/FashionMNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    assert len(load(dataset).test_labels) == TEST
    assert calls == [True, False] * 2


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise RuntimeError("no route\nto host")

    for name, dataset in (("FashionMNIST", FashionMnist(download=True)), ("SVHN", Torchvision("SVHN", download=True))):
        monkeypatch.setattr(torchvision.datasets, name, fail)
        with pytest.raises(DataError, match=rf"{name} in .*: downloading failed: no route to host"):
            dataset.fingerprint()


def test_path_and_download_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out path or download"):
        FashionMnist(path=tmp_path, download=True)
