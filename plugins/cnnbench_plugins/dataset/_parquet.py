"""What datasets in Parquet files share: all but where the files are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.registry import nearest
from cnnbench.types import ImageData
from cnnbench_plugins.dataset._files import digest_files
from cnnbench_plugins.dataset._images import decode, stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

_MAGIC = b"PAR1"
_ROWS = 1024


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Files at any depth that a pattern names, sorted.

    Raises:
        DataError: there is none; says what is there.
    """
    files = sorted(file for file in folder.rglob(pattern) if file.is_file())
    if files:
        return files
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold {pattern}")
    there = sorted({file.name for file in folder.rglob("*.parquet")})
    hint = f"it holds {', '.join(there[:8])}" if there else "it holds no Parquet file"
    raise DataError(f"{folder}: no file is named {pattern}; {hint}")


class ParquetFiles:
    """A dataset of encoded images with integer labels: a technique inherits it, has its options, and finds the files.

    Attributes:
        image: name of the image column.
        label: name of the label column.
        size: scale each image's shorter side to so many pixels and cut out the centre; None wants all of one size.
    """

    image: str
    label: str
    size: int | None

    def located(self) -> tuple[Path, str, str]:
        """Folder, and the patterns of the training and the test files in it. Raises ``DataError``."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Digest of the files, training and test apart. Raises ``DataError``."""
        files = self._parts()
        for file in (file for part in files for file in part):
            _check_ends(file)
        return "-".join(digest_files(part, self.located()[0]) for part in files)

    def sizes(self) -> tuple[int, int]:
        """Rows of the training and of the test files, from their metadata. Raises ``DataError``."""
        train, test = (sum(map(_count, part)) for part in self._parts())
        return train, test

    def __call__(self) -> ImageData:
        """Decode all images. Raises ``DataError``, naming file and row."""
        parts = [self._read(part) for part in self._parts()]
        images = stack([part.images for part in parts], [part.places for part in parts])
        labels = [torch.from_numpy(np.asarray(part.labels, np.int64)) for part in parts]
        names = parts[0].class_names or tuple(map(str, range(1 + max(int(part.max()) for part in labels))))
        return ImageData(images[0], labels[0], images[1], labels[1], names)

    def _parts(self) -> list[list[Path]]:
        folder, *patterns = self.located()
        return [files_in(folder, pattern) for pattern in patterns]

    def _read(self, files: list[Path]) -> _Part:
        part = _Part()
        for file in files:
            for place, encoded, label in self._rows(file, part):
                part.images.append(decode(encoded, place, self.size))
                part.labels.append(label)
                part.places.append(place)
        if not part.images:
            raise DataError(f"{files[0]}: no rows")
        return part

    def _rows(self, file: Path, part: _Part) -> Iterator[tuple[str, bytes, int]]:
        """Rows of a file as place, encoded image, label; reads a block of rows at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                for column in (self.image, self.label):
                    if column not in schema.names:
                        raise DataError(f"{file}: no column {column!r}: {nearest(column, schema.names)}")
                if not pa.types.is_integer(schema.field(self.label).type):
                    found = schema.field(self.label).type
                    raise DataError(f"{file}: column {self.label!r} should hold integers from 0, not {found}")
                part.class_names = part.class_names or _class_names(schema.metadata, self.label)
                row = 0
                for batch in opened.iter_batches(_ROWS, columns=[self.image, self.label]):
                    images, labels = batch.column(self.image).to_pylist(), batch.column(self.label).to_pylist()
                    for image, label in zip(images, labels, strict=True):
                        place = f"{file}, row {row}"
                        encoded = image.get("bytes") if isinstance(image, dict) else image
                        if not isinstance(encoded, bytes) or label is None:
                            lacking = "a label" if isinstance(encoded, bytes) else f"image bytes in {self.image!r}"
                            raise DataError(f"{place}: lacks {lacking}")
                        yield place, encoded, label
                        row += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a Parquet file, or corrupt: {' '.join(str(error).split())}") from error


class _Part:
    """What was read of one part: images, their labels and places, and the class names if the files have them."""

    def __init__(self) -> None:
        self.images: list[npt.NDArray[np.uint8]] = []
        self.labels: list[int] = []
        self.places: list[str] = []
        self.class_names: tuple[str, ...] = ()


def _count(file: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a Parquet file, or corrupt: {' '.join(str(error).split())}") from error


def _check_ends(file: Path) -> None:
    """Parquet starts and ends with the same four bytes; a truncated file does not."""
    try:
        with file.open("rb") as stream:
            first = stream.read(4)
            stream.seek(-4, 2)
            last = stream.read(4)
    except OSError as error:
        raise DataError(f"{file}: not a Parquet file: {error.strerror}") from error
    if first != _MAGIC or last != _MAGIC:
        raise DataError(f"{file}: not a Parquet file, or truncated: it should start and end with {_MAGIC.decode()}")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...]:
    """Names from the schema's Hugging Face metadata; none if it has none."""
    try:
        info: Any = json.loads((metadata or {})[b"huggingface"])
        return tuple(map(str, info["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
