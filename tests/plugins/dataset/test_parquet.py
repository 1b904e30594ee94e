from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench_plugins.dataset.parquet import Parquet

RANDOM = np.random.default_rng(0)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def colour(count: int, side: int = 6) -> list[np.ndarray]:
    return list(RANDOM.integers(0, 256, (count, side, side, 3), np.uint8))


def write(
    file: Path,
    images: list[bytes | None],
    labels: list[int | None],
    *,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    struct: bool = True,
) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    values = [{"bytes": i, "path": None} for i in images] if struct else images
    table = pa.table({columns[0]: pa.array(values, kind), columns[1]: pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {columns[1]: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


@pytest.mark.parametrize("struct", [True, False])
def test_pixels_labels_and_names(tmp_path: Path, struct: bool) -> None:
    train, test = colour(4), colour(3)
    names = ["cat", "dog"]
    write(
        tmp_path / "data/train-00000-of-00002.parquet", [png(p) for p in train[:2]], [0, 1], names=names, struct=struct
    )
    write(
        tmp_path / "data/train-00001-of-00002.parquet", [png(p) for p in train[2:]], [1, 0], names=names, struct=struct
    )
    write(tmp_path / "data/test-00000-of-00001.parquet", [png(p) for p in test], [0, 1, 0], names=names, struct=struct)
    data = load(Parquet(tmp_path))
    assert (data.train_images.numpy() == np.stack(train).transpose(0, 3, 1, 2)).all()
    assert (data.test_images.numpy() == np.stack(test).transpose(0, 3, 1, 2)).all()
    assert data.train_labels.tolist() == [0, 1, 1, 0]
    assert Parquet(tmp_path).sizes() == (4, 3)
    assert data.class_names == ("cat", "dog")


def test_gray_images_other_columns_and_numbers_for_names(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (3, 5, 4), np.uint8)
    for part in ("train", "validation"):
        write(tmp_path / f"{part}.parquet", [png(p) for p in pixels], [0, 2, 1], columns=("img", "fine_label"))
    data = load(Parquet(tmp_path, test="validation*.parquet", image="img", label="fine_label"))
    assert data.train_images.shape == (3, 1, 5, 4)
    assert (data.test_images.numpy()[:, 0] == pixels).all()
    assert data.class_names == ("0", "1", "2")


def test_one_colour_image_makes_all_of_them_rgb(tmp_path: Path) -> None:
    gray = RANDOM.integers(0, 256, (6, 6), np.uint8)
    write(tmp_path / "train.parquet", [png(gray), png(gray)], [0, 1])
    write(tmp_path / "test.parquet", [png(colour(1)[0])], [0])
    data = load(Parquet(tmp_path))
    assert data.image_shape == (3, 6, 6)
    assert torch.equal(data.train_images[0], torch.from_numpy(gray).expand(3, 6, 6))


def test_size_is_antialiased_resize_and_centre_crop(tmp_path: Path) -> None:
    wide = RANDOM.integers(0, 256, (32, 64, 3), np.uint8)
    write(tmp_path / "train.parquet", [png(wide), png(wide.transpose(1, 0, 2))], [0, 1])
    write(tmp_path / "test.parquet", [png(wide[:9, :9])], [1])
    data = load(Parquet(tmp_path, size=8))
    assert data.image_shape == (3, 8, 8)
    original = torch.from_numpy(wide).permute(2, 0, 1)
    reference = functional.center_crop(functional.resize(original, [8], antialias=True), [8, 8]).int()
    assert (data.train_images[0].int() - reference).abs().max() <= 1
    assert (data.train_images[1].int() - reference.mT).abs().max() <= 1


def pair(folder: Path, **train: object) -> Parquet:
    write(folder / "train.parquet", **{"images": [png(p) for p in colour(4)], "labels": [0, 1, 0, 1], **train})
    write(folder / "test.parquet", [png(p) for p in colour(2)], [0, 1])
    return Parquet(folder)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"images": [png(colour(1)[0]), b"no image"], "labels": [0, 1]}, r"train.parquet, row 1: not an image"),
        ({"images": [png(colour(1)[0])[:80]], "labels": [0]}, r"train.parquet, row 0: corrupt image"),
        ({"images": [None], "labels": [0]}, r"row 0: lacks image bytes in 'image'"),
        ({"labels": [0, 1, None, 1]}, r"row 2: lacks a label"),
        ({"labels": [0, 1, -1, 1]}, r"label -1 is out of range"),
        ({"names": ["only", "two"], "labels": [0, 1, 2, 1]}, r"label 2 is out of range: 2 classes"),
        ({"columns": ("image", "labels")}, r"no column 'label': did you mean 'labels'\?"),
        ({"images": [png(p) for p in (*colour(3), *colour(1, 7))]}, r"row 3: 7 x 7 pixels, the first image has 6 x 6"),
        ({"images": [], "labels": []}, r"train.parquet: no rows"),
        ({"images": [png(np.zeros((6, 6), np.uint16))] * 4}, r"more than 8 bits a channel \(mode I;16\)"),
    ],
)
def test_faults_name_file_and_row(tmp_path: Path, train: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(pair(tmp_path, **train))
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_integers(tmp_path: Path) -> None:
    dataset = pair(tmp_path)
    pq.write_table(pa.table({"image": [b""], "label": ["cat"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="column 'label' should hold integers from 0, not string"):
        dataset()


@pytest.mark.parametrize("keep", [slice(0, -9), slice(9, None), slice(0, 0), slice(0, 2)])
def test_a_truncated_file_shows_before_anything_runs(tmp_path: Path, keep: slice) -> None:
    dataset = pair(tmp_path)
    file = tmp_path / "test.parquet"
    file.write_bytes(file.read_bytes()[keep])
    with pytest.raises(DataError, match=r"test.parquet: not a Parquet file"):
        dataset.fingerprint()
    with pytest.raises(DataError, match=r"test.parquet: not a Parquet file, or corrupt"):
        dataset()


def test_a_flipped_page_is_one_line(tmp_path: Path) -> None:
    dataset = pair(tmp_path)
    file = tmp_path / "train.parquet"
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train.parquet"):
        dataset()


def test_missing_files_and_folder(tmp_path: Path) -> None:
    pair(tmp_path)
    with pytest.raises(DataError, match=r"no file is named val\*.parquet; it holds test.parquet, train.parquet"):
        Parquet(tmp_path, test="val*.parquet").fingerprint()
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        Parquet(tmp_path / "nowhere").fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it holds no Parquet file"):
        Parquet(tmp_path / "empty")()


def test_fingerprint_follows_content_and_split_not_place(tmp_path: Path) -> None:
    first = pair(tmp_path / "one")
    for name in ("train", "test"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / f"{name}.parquet").write_bytes((tmp_path / "one" / f"{name}.parquet").read_bytes())
    second = Parquet(tmp_path / "two")
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != Parquet(tmp_path / "one", train="test*", test="train*").fingerprint()
    pair(tmp_path / "two")
    assert first.fingerprint() != second.fingerprint()


def test_real_cifar10() -> None:
    root = os.environ.get("CNNBENCH_TEST_DATA")
    if not root or not (Path(root) / "cifar10").is_dir():
        pytest.skip("CNNBENCH_TEST_DATA names no folder that holds cifar10/ with train.parquet and test.parquet")
    data = load(Parquet(Path(root) / "cifar10", train="test.parquet"))
    assert data.train_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.test_labels).tolist() == [1000] * 10
