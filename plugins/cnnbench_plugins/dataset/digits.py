"""The embedded default: handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset._files import digest_files

if TYPE_CHECKING:
    import numpy.typing as npt

_TEST_EVERY = 5


@technique("dataset", "digits")
class Digits:
    """Handwritten digits, 1797 gray images of 8x8 in ten classes, shipped with scikit-learn: nothing to download.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998. scikit-learn ships the repository's test file alone. Values 0..16 become round(255 v / 16).

    Split: of each class, in the order of the file, every fifth image (the 5th, 10th, ...) is a test image: 1442 for
    training, 355 for test, without any randomness. The file goes writer by writer and the split does not, so both
    parts hold digits of the same 13 people and accuracies here exceed those of the repository's writer-independent
    split.

    Helps where an answer is wanted in seconds. Differences of large or deep networks don't show at this size.
    """

    def fingerprint(self) -> str:
        """Digest of the file's bytes. Raises ``DataError`` where scikit-learn or its file is missing."""
        file = _file()
        return digest_files([file], file.parent)

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images. Raises ``DataError`` as loading does."""
        labels = _table()[:, 64]
        test = sum(int((labels == digit).sum()) // _TEST_EVERY for digit in range(10))
        return len(labels) - test, test

    def __call__(self) -> ImageData:
        """Load all images. Raises ``DataError`` where scikit-learn's file is missing or corrupt."""
        table = _table()
        images = torch.from_numpy(np.rint(table[:, :64] * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
        labels = torch.from_numpy(table[:, 64].astype(np.int64))
        test = torch.zeros(len(labels), dtype=torch.bool)
        for digit in range(10):
            test[(labels == digit).nonzero()[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
        return ImageData(images[~test], labels[~test], images[test], labels[test], tuple("0123456789"))


def _table() -> npt.NDArray[np.float64]:
    """Rows of 64 pixels and a label."""
    file = _file()
    try:
        with gzip.open(file, "rt", encoding="ascii") as stream:
            table = np.loadtxt(stream, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file}: corrupt: {error}; reinstall scikit-learn") from error
    if table.shape[1] != 65:
        raise DataError(f"{file}: {table.shape[1]} columns, not 64 pixels and a label; reinstall scikit-learn")
    return table


def _file() -> Path:
    """scikit-learn's file, found without the second that importing scikit-learn takes."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("digits ship with scikit-learn, which is not installed: pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataError(f"digits ship with scikit-learn, but {file} is missing; reinstall scikit-learn")
    return file


TECHNIQUES = (Digits,)
