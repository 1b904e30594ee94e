from __future__ import annotations

import gzip
import importlib.util
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset.digits import Digits

if TYPE_CHECKING:
    from pathlib import Path


def test_images_and_labels_are_those_of_scikit_learn() -> None:
    reference, data = load_digits(), load(Digits())
    images = np.concatenate([data.train_images.numpy(), data.test_images.numpy()]).reshape(-1, 64)
    labels = np.concatenate([data.train_labels.numpy(), data.test_labels.numpy()])
    ours = sorted(
        (int(label), *(image.astype(float) * 16 / 255).round().tolist())
        for image, label in zip(images, labels, strict=True)
    )
    theirs = sorted(
        (int(label), *image.tolist()) for image, label in zip(reference.data, reference.target, strict=True)
    )
    assert ours == theirs
    assert int(data.train_images.max()) == 255
    assert data.class_names == tuple(map(str, reference.target_names))


def test_every_fifth_image_of_a_class_is_for_test() -> None:
    reference, data = load_digits(), load(Digits())
    assert (len(data.train_labels), len(data.test_labels)) == Digits().sizes() == (1442, 355)
    sevens = np.rint(reference.images[reference.target == 7] * 255 / 16).astype(np.uint8)
    held = data.test_images[data.test_labels == 7][:, 0]
    assert torch.equal(held, torch.from_numpy(sevens[4::5]))


def redirect(monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes | None) -> None:
    """Let scikit-learn seem installed in ``folder``."""
    place = folder / "datasets" / "data"
    place.mkdir(parents=True)
    if content is not None:
        (place / "digits.csv.gz").write_bytes(content)
    spec = ModuleSpec("sklearn", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_fingerprint_follows_the_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = Digits().fingerprint()
    assert before == Digits().fingerprint()
    redirect(monkeypatch, tmp_path, gzip.compress(b"0," * 64 + b"1\n", mtime=0))
    assert Digits().fingerprint() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "digits.csv.gz is missing"),
        (b"no gzip", "corrupt: .*reinstall"),
        (gzip.compress(b"0,1\n" * 300, mtime=0)[:20], "corrupt"),
        (gzip.compress(b"a,b\n", mtime=0), "corrupt"),
        (gzip.compress(b"0,1\n", mtime=0), "2 columns, not 64 pixels and a label"),
    ],
)
def test_missing_or_corrupt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, message: str
) -> None:
    redirect(monkeypatch, tmp_path, content)
    with pytest.raises(DataError, match=message):
        Digits()()


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        Digits().fingerprint()
