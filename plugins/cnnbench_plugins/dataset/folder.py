"""A folder of images, one subfolder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset._files import digest_files
from cnnbench_plugins.dataset._images import decode, stack

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_ByClass = dict[str, list[Path]]


@technique("dataset", "folder")
class Folder:
    """A folder of images, one subfolder a class, or one such folder each for ``train`` and ``test``.

    Classes are the subfolders in alphabetical order; images lie in them at any depth. Where there are subfolders
    ``train`` and ``test`` (or ``val``/``valid``/``validation`` in place of ``test``), they are the split. Otherwise of
    each class those images are for test whose relative paths have the smallest digests: a fixed split without
    randomness, in which adding an image moves at most one other. It knows nothing of near-duplicates (frames of one
    video, one patient's images): give ``train`` and ``test`` folders for those.

    Images are decoded once, into memory, as uint8: gray where every image is, else RGB.

    Attributes:
        path: the folder.
        size: scale each image's shorter side to so many pixels and cut out the centre; None wants all of one size.
        test_share: share of each class for test where the folder has no split of its own.
    """

    path: Path
    size: Annotated[int, Ge(4)] | None = None
    test_share: Annotated[float, Gt(0), Lt(1)] = 0.2

    def fingerprint(self) -> str:
        """Digest of class names, file names and bytes. Raises ``DataError``."""
        train, test = self._split()
        files = sorted(file for part in (train, test) for paths in part.values() for file in paths)
        return digest_files(files, self.path)

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images. Raises ``DataError``."""
        train, test = (sum(map(len, part.values())) for part in self._split())
        return train, test

    def __call__(self) -> ImageData:
        """Decode all images. Raises ``DataError``, naming the file."""
        train, test = self._split()
        names = tuple(train)
        files = [[file for name in names for file in part.get(name, ())] for part in (train, test)]
        decoded = [[decode(_bytes(file), str(file), self.size) for file in part] for part in files]
        images = stack(decoded, [map(str, part) for part in files])
        labels = [
            torch.tensor([index for index, name in enumerate(names) for _ in part.get(name, ())], dtype=torch.int64)
            for part in (train, test)
        ]
        return ImageData(images[0], labels[0], images[1], labels[1], names)

    def _split(self) -> tuple[_ByClass, _ByClass]:
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such folder; it should hold one subfolder of images for each class")
        train = self.path / "train"
        test = next((t for n in ("test", "val", "valid", "validation") if (t := self.path / n).is_dir()), None)
        if train.is_dir() and test is not None:
            parts = _by_class(train), _by_class(test)
            for name in parts[1].keys() - parts[0].keys():
                raise DataError(f"{test / name}: class {name!r} is not in {train}")
            return parts
        everything = _by_class(self.path)
        chosen = {name: self._test_files(files) for name, files in everything.items()}
        return {name: [f for f in files if f not in chosen[name]] for name, files in everything.items()}, {
            name: [f for f in files if f in chosen[name]] for name, files in everything.items()
        }

    def _test_files(self, files: list[Path]) -> frozenset[Path]:
        """The test share of one class: at least one image for each part."""
        if len(files) < 2:
            raise DataError(f"{files[0].parent}: one image can't serve both training and test: give two or more")
        count = min(max(round(self.test_share * len(files)), 1), len(files) - 1)
        return frozenset(sorted(files, key=self._place_in_order)[:count])

    def _place_in_order(self, file: Path) -> bytes:
        return hashlib.blake2b(file.relative_to(self.path).as_posix().encode(), digest_size=16).digest()


def _by_class(folder: Path) -> _ByClass:
    """Image files of each class, both in alphabetical order."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: no subfolders; it should hold one subfolder of images for each class")
    found = {}
    for entry in classes:
        found[entry.name] = sorted(f for f in entry.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        if not found[entry.name]:
            raise DataError(f"{entry}: no image in this class folder (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror}") from error


TECHNIQUES = (Folder,)
