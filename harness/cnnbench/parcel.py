"""Folders and data as bytes, on their way to another machine: nothing in them is unpickled or leaves its folder."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.types import ImageData

if TYPE_CHECKING:
    from collections.abc import Mapping

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


def pack(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, by its path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what ``pack`` read into a folder.

    Raises:
        ValueError: a path would leave the folder; nothing has been written.
    """
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or PureWindowsPath(name).drive or "\\" in name or ".." in path.parts or not path.parts:
            raise ValueError(f"a file of the parcel would leave its folder: {name!r}")
    for name, content in files.items():
        file = folder.joinpath(*PurePosixPath(name).parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def arrays_of(data: ImageData) -> dict[str, np.ndarray]:
    """A dataset as arrays: its four tensors, and ``class_names`` as text."""
    arrays = {name: getattr(data, name).cpu().numpy() for name in _TENSORS}
    return {**arrays, "class_names": np.array(data.class_names, dtype=np.str_)}


def write_data(arrays: Mapping[str, np.ndarray], file: Path) -> None:
    """Write what ``arrays_of`` gave; the file is there in full or not at all."""
    scratch = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        with scratch.open("wb") as stream:
            content: dict[str, Any] = dict(arrays)
            np.savez(stream, **content)
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def read_data(file: Path) -> ImageData:
    """The dataset in a file that ``write_data`` wrote.

    Raises:
        DataError: it can't be read.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in _TENSORS}
            return ImageData(**tensors, class_names=tuple(map(str, arrays["class_names"])))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not the dataset that was sent here: {error}") from error
