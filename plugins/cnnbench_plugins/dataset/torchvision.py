"""Classification datasets by torchvision's names and in its layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - read at run time
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from PIL import Image

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData
from cnnbench_plugins.dataset import _idx
from cnnbench_plugins.dataset._files import DATA_VARIABLE, cache_folder, data_folders, digest_files
from cnnbench_plugins.dataset._images import as_array, stack
from cnnbench_plugins.dataset._torchvision import SOURCES, fetch, read
from cnnbench_plugins.dataset.fashion_mnist import CLASSES as FASHION
from cnnbench_plugins.dataset.folder import Folder

_DIGITS = tuple("0123456789")
_IDX_CLASSES = {
    "MNIST": _DIGITS,
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "FashionMNIST": FASHION,
}
_EMNIST_COUNTS = {
    **dict.fromkeys(("byclass", "bymerge"), (697_932, 116_323)),
    "balanced": (112_800, 18_800),
    "letters": (124_800, 20_800),
    "digits": (240_000, 40_000),
    "mnist": (60_000, 10_000),
}


@technique("dataset", "torchvision", example={"dataset": "MNIST"})
class Torchvision:
    """A classification dataset by torchvision's name, in the layout that torchvision downloads.

    Of one size: CIFAR-10 and CIFAR-100 (A. Krizhevsky 2009; 50,000 and 10,000 colour images 32x32), MNIST (Y. LeCun et
    al. 1998), KMNIST (T. Clanuwat et al. 2018), Fashion-MNIST (H. Xiao et al. 2017), QMNIST (C. Yadav, L. Bottou 2019)
    and EMNIST (G. Cohen et al. 2017; turned upright), all gray 28x28; USPS (gray 16x16), SVHN (Y. Netzer et al. 2011;
    32x32), STL10 (96x96), EuroSAT (64x64), RenderedSST2 (448x448). Of many sizes, brought to ``size``: GTSRB, DTD
    (partition 1), Flowers102, OxfordIIITPet, FGVCAircraft (100 variants), StanfordCars (which must be there: its
    address is gone), Food101, Imagenette (the edition of 160 pixels), Country211.

    Each has its own split; official validation images serve training (Imagenette's serve as test images: it has no
    others). EuroSAT has none: the technique ``folder``'s split by digests of names, a fifth of each class for test.
    Left to ``folder`` and ``parquet`` are sets without a split (Caltech, SUN397, SEMEION), without labels in the test
    images (FER2013), in HDF5 (PCAM), and those that don't fit into memory (ImageNet, Places365, iNaturalist).

    Attributes:
        dataset: torchvision's class name.
        path: torchvision's ``root``; None looks in the folder that the environment variable ``CNNBENCH_DATA`` names,
            then in the user's cache folder.
        download: fetch it into ``path`` (or the cache folder) if it is not there.
        size: scale each image's shorter side to so many pixels and cut out the centre; required where images differ in
            size, else None keeps theirs.
        split: which of EMNIST's six sets, for EMNIST alone; None means ``balanced``, 47 classes.
    """

    dataset: Literal[
        "CIFAR10",
        "CIFAR100",
        "MNIST",
        "KMNIST",
        "FashionMNIST",
        "QMNIST",
        "EMNIST",
        "USPS",
        "SVHN",
        "STL10",
        "GTSRB",
        "EuroSAT",
        "DTD",
        "Flowers102",
        "OxfordIIITPet",
        "FGVCAircraft",
        "StanfordCars",
        "Food101",
        "Imagenette",
        "RenderedSST2",
        "Country211",
    ]
    path: Path | None = None
    download: bool = False
    size: Annotated[int, Ge(4)] | None = None
    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] | None = None

    def __post_init__(self) -> None:
        if SOURCES[self.dataset].varied and self.size is None:
            raise ValueError(f"images of {self.dataset} differ in size: set size, e.g. 64")
        if self.split is not None and self.dataset != "EMNIST":
            raise ValueError(f"split belongs to EMNIST; {self.dataset} has its own: leave split out")

    def fingerprint(self) -> str:
        """Digest of the dataset's files. Raises ``DataError``; imports torch only where it has to download."""
        root = self._root()
        return digest_files(self._files(root), root)

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images: the files' headers', else the published ones. Raises ``DataError``."""
        if self.dataset in _IDX_CLASSES:
            return _idx.sizes(self._root() / self.dataset / "raw")
        if self.dataset == "EuroSAT":
            return self._folder(self._root()).sizes()
        return SOURCES[self.dataset].counts or _EMNIST_COUNTS[self._emnist()]

    def __call__(self) -> ImageData:
        """Load all images. Raises ``DataError``."""
        root = self._root()
        if self.dataset in _IDX_CLASSES:
            data = _idx.load(root / self.dataset / "raw", _IDX_CLASSES[self.dataset])
            return replace(data, train_images=self._fit(data.train_images), test_images=self._fit(data.test_images))
        if self.dataset == "EuroSAT":
            return self._folder(root)()
        return self._read(root)

    def _read(self, root: Path) -> ImageData:
        """All parts as torchvision reads them."""
        source = SOURCES[self.dataset]
        images, labels = [], []
        names: tuple[str, ...] = ()
        for parts in (source.train, source.test):
            found = [read(self.dataset, root, {**part, **self._extra()}, self.size) for part in parts]
            images.append([image for one in found for image in one[0]])
            labels.append(np.array([label for one in found for label in one[1]], np.int64))
            names = names or found[0][2]
        if self.dataset == "QMNIST":
            names = _DIGITS
        if self.dataset == "EMNIST":  # stored column by column; its letters count from 1
            images = [[image.T for image in part] for part in images]
            if self.split == "letters":
                labels, names = [part - 1 for part in labels], names[1:]
        names = names or tuple(map(str, range(1 + max(int(part.max()) for part in labels))))
        places = [[f"{self.dataset}, image {index}" for index in range(len(part))] for part in images]
        train, test = stack(images, places)
        return ImageData(train, torch.from_numpy(labels[0]), test, torch.from_numpy(labels[1]), names)

    def _fit(self, images: torch.Tensor) -> torch.Tensor:
        """Gray images [N, 1, H, W] at ``size``."""
        if self.size is None:
            return images
        fitted = [as_array(Image.fromarray(image), self.size) for image in images[:, 0].numpy()]
        return torch.from_numpy(np.stack(fitted)).unsqueeze(1)

    def _folder(self, root: Path) -> Folder:
        return Folder(root / "eurosat" / "2750", self.size)

    def _emnist(self) -> str:
        return self.split or "balanced"

    def _extra(self) -> dict[str, str]:
        return {"split": self._emnist()} if self.dataset == "EMNIST" else {}

    def _patterns(self) -> list[str]:
        return [pattern.format(split=self._emnist()) for pattern in SOURCES[self.dataset].files]

    def _files(self, root: Path) -> list[Path]:
        return sorted({file for pattern in self._patterns() for file in root.glob(pattern) if file.is_file()})

    def _root(self) -> Path:
        places = [self.path] if self.path is not None else data_folders()
        for place in places:
            if self._files(place):
                return place
        if self.download:
            fetch(self.dataset, self.path or cache_folder(), self._extra())
            return self.path or cache_folder()
        raise DataError(
            f"{self.dataset}: no {self._patterns()[0]} in {' or '.join(map(str, places))}: "
            f"set its option download = true, or path, or the variable {DATA_VARIABLE}"
        )


TECHNIQUES = (Torchvision,)
