"""NumPy arrays in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path  # noqa: TC003 - read at run time
from typing import Any

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset._files import digest_files

_NAMES = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}


@technique("dataset", "arrays")
class Arrays:
    """NumPy arrays in one ``.npz`` file: ``x_train``, ``y_train``, ``x_test``, ``y_test`` (the layout of Keras' sets).

    Images are uint8, [N, H, W] (gray), [N, H, W, C] or [N, C, H, W] with C 1 or 3; where both could be meant, channels
    come last. Labels are integers from 0, [N] or [N, 1]. ``class_names``, an array of text, is optional.

    Attributes:
        path: the file.
    """

    path: Path

    def fingerprint(self) -> str:
        """Digest of the file. Raises ``DataError``."""
        return digest_files([self._file()], self.path.parent)

    def sizes(self) -> tuple[int, int] | None:
        """Number of training and test images, from the arrays' headers; None where loading will find them faulty."""
        try:
            with zipfile.ZipFile(self._file()) as file:
                train, test = (_length(file, x) for x, _ in _NAMES.values())
        except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile, zlib.error):
            return None
        return train, test

    def __call__(self) -> ImageData:
        """Load all images. Raises ``DataError``, naming the array."""
        try:
            with self._file().open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in arrays.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, TypeError, AttributeError) as error:
            raise DataError(f"{self.path}: not an .npz file of plain arrays, or corrupt: {error}") from error
        tensors = {}
        for part, (x, y) in _NAMES.items():
            for name in (x, y):
                if name not in content:
                    raise DataError(f"{self.path}: no array {name!r}; it holds {', '.join(content) or 'none'}")
            tensors[f"{part}_images"] = _images(content[x], f"{self.path}: {x}")
            tensors[f"{part}_labels"] = _labels(content[y], f"{self.path}: {y}")
        highest = max(int(tensors[f"{part}_labels"].max()) for part in _NAMES)
        names = content.get("class_names", np.arange(highest + 1))
        return ImageData(**tensors, class_names=tuple(map(str, names.tolist())))

    def _file(self) -> Path:
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: no such file; it should be an .npz file with x_train, y_train, x_test, y_test"
            )
        return self.path


def _length(file: zipfile.ZipFile, name: str) -> int:
    """First dimension of an array, of which the header alone is read."""
    with file.open(f"{name}.npy") as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        return int(read(stream)[0][0])


def _images(array: np.ndarray[Any, Any], place: str) -> torch.Tensor:
    if array.dtype != np.uint8 or array.ndim not in {3, 4} or not array.size:
        raise DataError(f"{place}: should be uint8 [N, H, W(, C)], not {array.dtype} {list(array.shape)}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] in {1, 3}:
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(array: np.ndarray[Any, Any], place: str) -> torch.Tensor:
    if not np.issubdtype(array.dtype, np.integer) or not array.size or array.size != len(array):
        raise DataError(f"{place}: should be integers [N] or [N, 1], not {array.dtype} {list(array.shape)}")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


TECHNIQUES = (Arrays,)
