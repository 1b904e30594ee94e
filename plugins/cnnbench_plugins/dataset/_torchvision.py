"""Downloads and reads datasets through torchvision."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from cnnbench.errors import DataError
from cnnbench_plugins.dataset._images import as_array

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

_Parts = tuple[dict[str, Any], ...]
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError, SyntaxError)


@dataclass(frozen=True)
class Source:
    """How torchvision lays out a dataset, and how its class is asked for it.

    Attributes:
        files: patterns of its files under torchvision's root.
        train: arguments for each part that serves training.
        test: arguments for each part that serves testing.
        counts: published numbers of training and test images; None where they are read from the files.
        varied: whether its images differ in size.
    """

    files: tuple[str, ...]
    train: _Parts
    test: _Parts
    counts: tuple[int, int] | None
    varied: bool = False


def _flagged() -> tuple[_Parts, _Parts]:
    return ({"train": True},), ({"train": False},)


def _split(*train: str, test: str = "test") -> tuple[_Parts, _Parts]:
    return tuple({"split": part} for part in train), ({"split": test},)


SOURCES: Mapping[str, Source] = {
    "CIFAR10": Source(("cifar-10-batches-py/*",), *_flagged(), (50_000, 10_000)),
    "CIFAR100": Source(("cifar-100-python/*",), *_flagged(), (50_000, 10_000)),
    "MNIST": Source(("MNIST/raw/*",), *_flagged(), None),
    "KMNIST": Source(("KMNIST/raw/*",), *_flagged(), None),
    "FashionMNIST": Source(("FashionMNIST/raw/*",), *_flagged(), None),
    "QMNIST": Source(("QMNIST/raw/qmnist-t*-ubyte", "QMNIST/raw/qmnist-t*-int"), *_flagged(), (60_000, 60_000)),
    "EMNIST": Source(("EMNIST/raw/emnist-{split}-*-ubyte",), *_flagged(), None),
    "USPS": Source(("usps.bz2", "usps.t.bz2"), *_flagged(), (7_291, 2_007)),
    "SVHN": Source(("train_32x32.mat", "test_32x32.mat"), *_split("train"), (73_257, 26_032)),
    "STL10": Source(
        ("stl10_binary/train_*", "stl10_binary/test_*", "stl10_binary/class_names.txt"),
        *_split("train"),
        (5_000, 8_000),
    ),
    "GTSRB": Source(
        ("gtsrb/GTSRB/Training/**/*", "gtsrb/GTSRB/Final_Test/**/*", "gtsrb/GT-final_test.csv"),
        *_split("train"),
        (26_640, 12_630),
        varied=True,
    ),
    "EuroSAT": Source(("eurosat/2750/**/*",), ({},), (), None),
    "DTD": Source(("dtd/dtd/**/*",), *_split("train", "val"), (3_760, 1_880), varied=True),
    "Flowers102": Source(
        ("flowers-102/jpg/*", "flowers-102/*.mat"), *_split("train", "val"), (2_040, 6_149), varied=True
    ),
    "OxfordIIITPet": Source(
        ("oxford-iiit-pet/images/*", "oxford-iiit-pet/annotations/*.txt"),
        *_split("trainval"),
        (3_680, 3_669),
        varied=True,
    ),
    "FGVCAircraft": Source(("fgvc-aircraft-2013b/data/**/*",), *_split("trainval"), (6_667, 3_333), varied=True),
    "StanfordCars": Source(("stanford_cars/**/*",), *_split("train"), (8_144, 8_041), varied=True),
    "Food101": Source(("food-101/images/**/*", "food-101/meta/*"), *_split("train"), (75_750, 25_250), varied=True),
    "Imagenette": Source(
        ("imagenette2-160/**/*",),
        ({"split": "train", "size": "160px"},),
        ({"split": "val", "size": "160px"},),
        (9_469, 3_925),
        varied=True,
    ),
    "RenderedSST2": Source(("rendered-sst2/**/*",), *_split("train", "val"), (7_792, 1_821)),
    "Country211": Source(("country211/**/*",), *_split("train", "valid"), (42_200, 21_100), varied=True),
}
"""Torchvision's datasets by class name. Its validation images serve training, which holds out its own share."""


def fetch(name: str, root: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Download all parts of a torchvision dataset into ``root``.

    Args:
        name: torchvision's class.
        root: its root folder.
        extra: more arguments of the class.

    Raises:
        DataError: the download failed or its checksum is wrong.
    """
    for part in (*SOURCES[name].train, *SOURCES[name].test):
        open_part(name, root, {**part, **(extra or {})}, download=True)


def open_part(name: str, root: Path, part: Mapping[str, Any], *, download: bool = False) -> Any:
    """The torchvision dataset object of one part.

    Raises:
        DataError: torchvision can't find, fetch or read it.
    """
    import torchvision.datasets

    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, name)(root=str(root), **({"download": True} if download else {}), **part)
    except (*_UNREADABLE, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        doing = "downloading failed" if download else "corrupt"
        raise DataError(f"{name} in {root}: {doing}: {reason}") from error


def read(
    name: str, root: Path, part: Mapping[str, Any], size: int | None
) -> tuple[list[npt.NDArray[np.uint8]], list[int], tuple[str, ...]]:
    """All images of one part, [H, W] or [H, W, 3], their labels, and the class names where torchvision has them.

    Raises:
        DataError: torchvision can't read the part, or one of its images.
    """
    opened = open_part(name, root, part)
    images, labels = [], []
    for index in range(len(opened)):
        try:
            image, label = opened[index]
            images.append(as_array(image, size))
        except (*_UNREADABLE, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{name} in {root}: corrupt: image {index}: {reason}") from error
        labels.append(int(label))
    names = tuple(entry if isinstance(entry, str) else entry[0] for entry in getattr(opened, "classes", ()))
    return images, labels, names
