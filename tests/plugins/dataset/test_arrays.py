from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset.arrays import Arrays

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(folder: Path, **changes: object) -> Arrays:
    arrays = {"x_train": GRAY, "y_train": LABELS, "x_test": GRAY, "y_test": LABELS, **changes}
    np.savez_compressed(folder / "set.npz", **{k: v for k, v in arrays.items() if v is not None})
    return Arrays(folder / "set.npz")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GRAY, GRAY[:, None]),
        (GRAY[..., None], GRAY[:, None]),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
    ],
)
def test_layouts(tmp_path: Path, given: np.ndarray, expected: np.ndarray) -> None:
    data = load(save(tmp_path, x_train=given, x_test=given, y_train=LABELS[:, None].astype(np.uint8)))
    assert (data.train_images.numpy() == expected).all()
    assert data.train_labels.tolist() == LABELS.tolist()
    assert data.class_names == ("0", "1", "2")


def test_class_names(tmp_path: Path) -> None:
    assert load(save(tmp_path, class_names=np.array(["a", "b", "c"]))).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"set.npz: no array 'y_test'; it holds x_train, y_train, x_test"),
        ({"x_train": GRAY.astype(float)}, r"x_train: should be uint8 .* not float64 \[6, 5, 4\]"),
        ({"x_test": GRAY[0]}, r"x_test: should be uint8"),
        ({"y_train": LABELS.astype(float)}, r"y_train: should be integers"),
        ({"y_train": np.eye(6, dtype=int)}, r"y_train: should be integers \[N\] or \[N, 1\], not int64 \[6, 6\]"),
        ({"y_train": LABELS[:5]}, r"labels must be int64 \[6\], one for each image, not int64 \[5\]"),
        ({"y_train": LABELS - 1}, r"label -1 is out of range"),
        ({"x_train": np.array([{}], dtype=object)}, r"not an .npz file of plain arrays"),
    ],
)
def test_faults_name_the_array(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(save(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_sizes_come_from_the_headers(tmp_path: Path) -> None:
    dataset = save(tmp_path, x_test=GRAY[:4], y_test=LABELS[:4])
    assert dataset.sizes() == (6, 4)
    assert save(tmp_path, x_test=None).sizes() is None
    dataset.path.write_bytes(b"PK and no more")
    assert dataset.sizes() is None


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_corrupt_files(tmp_path: Path, content: bytes) -> None:
    dataset = save(tmp_path)
    dataset.path.write_bytes(content)
    with pytest.raises(DataError, match=r"set.npz: not an .npz file of plain arrays, or corrupt"):
        dataset()


def test_a_single_array_is_not_an_npz_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GRAY)
    with pytest.raises(DataError, match=r"x.npy: not an .npz file"):
        Arrays(tmp_path / "x.npy")()


def test_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    before = save(tmp_path).fingerprint()
    assert before != save(tmp_path, x_train=255 - GRAY).fingerprint()
    with pytest.raises(DataError, match="no such file"):
        Arrays(tmp_path / "other.npz").fingerprint()
