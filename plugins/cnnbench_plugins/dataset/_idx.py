"""Datasets of the MNIST family: four files in the IDX format, plain or gzipped (LeCun's layout)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.types import ImageData

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
STEMS = (*IMAGES.values(), *LABELS.values())
FILES = tuple(stem + suffix for stem in STEMS for suffix in ("", ".gz"))

_UNSIGNED_BYTE = 0x08


def complete(folder: Path) -> bool:
    """Whether all four files are there; an interrupted download leaves fewer."""
    return all(any((folder / f"{stem}{suffix}").is_file() for suffix in ("", ".gz")) for stem in STEMS)


def find(folder: Path) -> dict[str, Path]:
    """The four files in ``folder`` by stem, the plain one where a file is there both ways.

    Raises:
        DataError: a file is missing, or its header and length don't agree.
    """
    found = {}
    for stem in STEMS:
        candidates = [folder / stem, folder / f"{stem}.gz"]
        file = next((path for path in candidates if path.is_file()), None)
        if file is None:
            raise DataError(f"{folder}: {stem} (or {stem}.gz) is missing")
        _check_length(file, 3 if stem in IMAGES.values() else 1)
        found[stem] = file
    return found


def load(folder: Path, class_names: tuple[str, ...]) -> ImageData:
    """Read the four files of a folder.

    Raises:
        DataError: a file is missing or corrupt, or there are more or fewer labels than images.
    """
    files = find(folder)
    tensors = {}
    for part in ("train", "test"):
        images, labels = read(files[IMAGES[part]], 3), read(files[LABELS[part]], 1)
        if len(images) != len(labels):
            there = files[IMAGES[part]].name
            raise DataError(f"{files[LABELS[part]]}: {len(labels)} labels for the {len(images)} images of {there}")
        tensors[f"{part}_images"] = torch.from_numpy(images).unsqueeze(1)
        tensors[f"{part}_labels"] = torch.from_numpy(labels.astype(np.int64))
    return ImageData(**tensors, class_names=class_names)


def sizes(folder: Path) -> tuple[int, int]:
    """Number of training and test images by the headers alone.

    Raises:
        DataError: a file is missing or its header is none.
    """
    files = find(folder)
    train, test = (_shape(file, _head(file, 3), 3)[0] for file in (files[IMAGES["train"]], files[IMAGES["test"]]))
    return train, test


def read(file: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of bytes in an IDX file of so many dimensions.

    Raises:
        DataError: not such a file, truncated, or the checksum of the compressed data doesn't fit.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: corrupt: {error}") from error
    shape = _shape(file, content[: _header(dimensions)], dimensions)
    body = np.frombuffer(bytearray(content), np.uint8, offset=_header(dimensions))
    if body.size != math.prod(shape):
        raise DataError(
            f"{file}: corrupt: {body.size} bytes of data where its header {list(shape)} asks for another count"
        )
    return body.reshape(shape)


def _header(dimensions: int) -> int:
    return 4 * (1 + dimensions)


def _head(file: Path, dimensions: int) -> bytes:
    """The header's bytes, of a compressed file too."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return stream.read(_header(dimensions))


def _shape(file: Path, header: bytes, dimensions: int) -> Sequence[int]:
    """Shape from the header: two zero bytes, the type, the number of dimensions, then big-endian sizes."""
    if len(header) < _header(dimensions) or header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(
            f"{file}: not an IDX file of bytes in {dimensions} dimensions: it starts with 0x{header[:4].hex()}, "
            f"not 0x0000{_UNSIGNED_BYTE:02x}{dimensions:02x}"
        )
    return struct.unpack(f">{dimensions}I", header[4:])


def _check_length(file: Path, dimensions: int) -> None:
    """Compare header and length without decompressing: the last four bytes of gzip hold the length of its content."""
    try:
        header = _head(file, dimensions)
        if file.suffix == ".gz":
            with file.open("rb") as raw:
                raw.seek(-4, 2)
                length = struct.unpack("<I", raw.read(4))[0]
        else:
            length = file.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: corrupt: {error}") from error
    expected = _header(dimensions) + math.prod(_shape(file, header, dimensions))
    if length != expected:
        raise DataError(f"{file}: truncated or corrupt: {length} bytes where its header asks for {expected}")
