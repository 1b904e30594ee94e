"""Small-image datasets by torchvision's names and in its layout."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time
from typing import Literal

import numpy as np

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset import _idx
from cnnbench_plugins.dataset._files import DATA_VARIABLE, cache_folder, data_folders, digest_files
from cnnbench_plugins.dataset._torchvision import fetch, open_part

# What torchvision puts under its root folder.
_LAYOUT = {
    "CIFAR10": ("cifar-10-batches-py/*",),
    "CIFAR100": ("cifar-100-python/*",),
    "MNIST": ("MNIST/raw/*",),
    "KMNIST": ("KMNIST/raw/*",),
    "SVHN": ("train_32x32.mat", "test_32x32.mat"),
}
_IDX_CLASSES = {
    "MNIST": tuple("0123456789"),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}

# Torchvision checks the files' digests, so that no others are loaded under these names.
_SIZES = {"CIFAR10": (50_000, 10_000), "CIFAR100": (50_000, 10_000), "SVHN": (73_257, 26_032)}


@technique("dataset", "torchvision")
class Torchvision:
    """A small-image dataset by torchvision's name, in the layout that torchvision downloads.

    CIFAR-10 and CIFAR-100 (A. Krizhevsky 2009; 50,000 and 10,000 colour images 32x32), MNIST (Y. LeCun et al. 1998) and
    KMNIST (T. Clanuwat et al. 2018; 60,000 and 10,000 gray images 28x28), SVHN (Y. Netzer et al. 2011; 73,257 and
    26,032 colour images 32x32); each with its own split.

    Attributes:
        dataset: torchvision's class name.
        path: torchvision's ``root``; None looks in the folder that the environment variable ``CNNBENCH_DATA`` names,
            then in the user's cache folder.
        download: fetch it into ``path`` (or the cache folder) if it is not there.
    """

    dataset: Literal["CIFAR10", "CIFAR100", "MNIST", "KMNIST", "SVHN"]
    path: Path | None = None
    download: bool = False

    def fingerprint(self) -> str:
        """Digest of the dataset's files. Raises ``DataError``; imports torch only where it has to download."""
        root = self._root()
        return digest_files(self._files(root), root)

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images: the files' headers', else the published ones. Raises ``DataError``."""
        if self.dataset in _IDX_CLASSES:
            return _idx.sizes(self._root() / self.dataset / "raw")
        return _SIZES[self.dataset]

    def __call__(self) -> ImageData:
        """Load all images. Raises ``DataError``."""
        root = self._root()
        if self.dataset in _IDX_CLASSES:
            return _idx.load(root / self.dataset / "raw", _IDX_CLASSES[self.dataset])
        train, test = (open_part(self.dataset, root, part) for part in ("train", "test"))
        names = tuple(getattr(train, "classes", None) or "0123456789")
        return ImageData(*_tensors(train), *_tensors(test), names)

    def _files(self, root: Path) -> list[Path]:
        return sorted(file for pattern in _LAYOUT[self.dataset] for file in root.glob(pattern) if file.is_file())

    def _root(self) -> Path:
        places = [self.path] if self.path is not None else data_folders()
        for place in places:
            if self._files(place):
                return place
        if self.download:
            fetch(self.dataset, self.path or cache_folder())
            return self.path or cache_folder()
        raise DataError(
            f"{self.dataset}: no {_LAYOUT[self.dataset][0]} in {' or '.join(map(str, places))}: "
            f"set its option download = true, or path, or the variable {DATA_VARIABLE}"
        )


def _tensors(part: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, C, H, W] and labels of a CIFAR (channels last, list of labels) or SVHN (channels first) object."""
    images = np.asarray(part.data)  # type: ignore[attr-defined]
    labels = part.labels if hasattr(part, "labels") else part.targets  # type: ignore[attr-defined]
    if images.shape[1] != 3:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(images), torch.from_numpy(np.asarray(labels, dtype=np.int64))


TECHNIQUES = (Torchvision,)
