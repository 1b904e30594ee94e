from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset.torchvision import Torchvision

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 20
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
LABELS = [k % 10 for k in range(COUNT)]


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiny CIFAR-10 in the authors' layout; torchvision checks no sums here."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": PIXELS.reshape(COUNT, -1), "labels": LABELS}
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))
    names = {"label_names": [f"name {k}" for k in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    cls = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cls, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(cls, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cls, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return tmp_path


def test_cifar_keeps_pixels_labels_and_names(cifar: Path) -> None:
    data = load(Torchvision("CIFAR10", path=cifar))
    assert (data.train_images.numpy() == PIXELS).all()
    assert (data.test_images.numpy() == PIXELS).all()
    assert data.train_images.is_contiguous()
    assert data.train_labels.tolist() == LABELS
    assert data.class_names[3] == "name 3"


def test_svhn_keeps_pixels_and_calls_the_tenth_label_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = np.array([label or 10 for label in LABELS], np.uint8).reshape(-1, 1)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        scipy.io.savemat(tmp_path / name, {"X": PIXELS.transpose(2, 3, 1, 0), "y": stored})
    parts = {part: ["", f"{part}_32x32.mat", None] for part in ("train", "test")}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", parts)
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path))
    dataset = Torchvision("SVHN")
    data = load(dataset)
    assert (data.train_images.numpy() == PIXELS).all()
    assert data.train_labels.tolist() == LABELS
    assert data.class_names == tuple("0123456789")
    before = dataset.fingerprint()
    content = (tmp_path / "test_32x32.mat").read_bytes()
    (tmp_path / "test_32x32.mat").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert dataset.fingerprint() != before


def test_a_corrupt_file_is_one_line(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"not a pickle")
    with pytest.raises(DataError, match=r"CIFAR10 in .*: corrupt: ") as caught:
        Torchvision("CIFAR10", path=cifar)()
    assert "\n" not in str(caught.value)


def test_a_missing_part_is_one_line(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(DataError, match=r"CIFAR10 in .*: corrupt: .*not found"):
        Torchvision("CIFAR10", path=cifar)()


def test_missing_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"CIFAR100: no cifar-100-python/\* in {tmp_path}: set its option download"):
        Torchvision("CIFAR100", path=tmp_path).fingerprint()
