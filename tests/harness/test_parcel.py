"""What is sent to another machine arrives as it was, and writes nowhere else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.errors import DataError
from cnnbench.parcel import arrays_of, pack, read_data, unpack, write_data
from cnnbench.types import ImageData


def test_a_folder_arrives_as_it_was(tmp_path):
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/empty").touch()
    (tmp_path / "a/result.json").write_bytes(b"\x00\xff")
    files = pack(tmp_path / "a")
    assert files == {"deep/empty": b"", "result.json": b"\x00\xff"}
    unpack(files, tmp_path / "b")
    assert pack(tmp_path / "b") == files


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "c:x", "..\\x", "", "."])
def test_nothing_leaves_its_folder(name, tmp_path):
    folder = tmp_path / "in/here"
    with pytest.raises(ValueError, match="would leave its folder"):
        unpack({"good": b"1", name: b"2"}, folder)
    assert not folder.exists()
    assert [*tmp_path.rglob("*")] == []


@given(name=st.text(alphabet="ab./\\:~", min_size=1, max_size=8))
def test_any_name_is_refused_or_stays_below(name, tmp_path_factory):
    root = tmp_path_factory.mktemp("parcel")
    try:
        unpack({name: b"1"}, root / "in")
    except ValueError:
        assert [*root.rglob("*")] == []
    else:
        (file,) = (path for path in root.rglob("*") if path.is_file())
        assert file.resolve().is_relative_to((root / "in").resolve())


def test_a_dataset_arrives_as_it_was(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8, generator=generator)
    data = ImageData(images[:4], torch.tensor([0, 1, 2, 1]), images[4:], torch.tensor([2, 0]), ("cat", "Käfer", "狗"))
    write_data(arrays_of(data), tmp_path / "d.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["d.npz"]
    found = read_data(tmp_path / "d.npz")
    assert found.class_names == data.class_names
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(found, name), getattr(data, name))
        assert getattr(found, name).dtype == getattr(data, name).dtype


def test_a_dataset_that_did_not_arrive_is_told(tmp_path):
    (tmp_path / "d.npz").write_bytes(b"half of i")
    with pytest.raises(DataError, match=r"d\.npz: not the dataset that was sent here"):
        read_data(tmp_path / "d.npz")
