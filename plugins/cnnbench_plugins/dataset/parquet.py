"""Images in Parquet files, as dataset hubs keep them."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - read at run time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.registry import nearest
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset._files import digest_files
from cnnbench_plugins.dataset._images import decode, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_MAGIC = b"PAR1"
_ROWS = 1024


@technique("dataset", "parquet")
class Parquet:
    """Images in Parquet files in the hubs' layout: a column of encoded images and a column of integer labels.

    The image column is ``struct<bytes: binary, path: string>`` (or plain binary), as ``datasets.Image`` stores it; the
    label column holds integers from 0. Class names come from the schema's ``huggingface`` metadata where it has them,
    else they are the numbers. Images are decoded once, into memory, as uint8: gray where every image is, else RGB.

    Attributes:
        path: a folder with the files, searched to any depth.
        train: pattern of the training files' names.
        test: pattern of the test files' names, e.g. ``validation*.parquet``.
        image: name of the image column.
        label: name of the label column.
        size: scale each image's shorter side to so many pixels and cut out the centre; None wants all of one size.
    """

    path: Path
    train: str = "train*.parquet"
    test: str = "test*.parquet"
    image: str = "image"
    label: str = "label"
    size: Annotated[int, Ge(4)] | None = None

    def fingerprint(self) -> str:
        """Digest of the files, training and test apart. Raises ``DataError``."""
        files = [self.files(pattern) for pattern in (self.train, self.test)]
        for file in (file for part in files for file in part):
            _check_ends(file)
        return "-".join(digest_files(part, self.path) for part in files)

    def sizes(self) -> tuple[int, int]:
        """Rows of the training and of the test files, from their metadata. Raises ``DataError``."""
        train, test = (sum(map(_count, self.files(pattern))) for pattern in (self.train, self.test))
        return train, test

    def __call__(self) -> ImageData:
        """Decode all images. Raises ``DataError``, naming file and row."""
        parts = [self._read(self.files(pattern)) for pattern in (self.train, self.test)]
        images = stack([part.images for part in parts], [part.places for part in parts])
        labels = [torch.from_numpy(np.asarray(part.labels, np.int64)) for part in parts]
        names = parts[0].class_names or tuple(map(str, range(1 + max(int(part.max()) for part in labels))))
        return ImageData(images[0], labels[0], images[1], labels[1], names)

    def files(self, pattern: str) -> list[Path]:
        """Files that a pattern names. Raises ``DataError`` where there is none, and says what is there."""
        files = sorted(file for file in self.path.rglob(pattern) if file.is_file())
        if files:
            return files
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such folder; it should hold {self.train} and {self.test}")
        there = sorted({file.name for file in self.path.rglob("*.parquet")})
        hint = f"it holds {', '.join(there[:8])}" if there else "it holds no Parquet file"
        raise DataError(f"{self.path}: no file is named {pattern}; {hint}")

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


TECHNIQUES = (Parquet,)
