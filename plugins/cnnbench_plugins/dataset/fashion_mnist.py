"""Fashion-MNIST, wherever it lies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import DataError
from cnnbench.technique import technique
from cnnbench_plugins.dataset import _idx
from cnnbench_plugins.dataset._files import DATA_VARIABLE, cache_folder, data_folders, digest_files, first_with
from cnnbench_plugins.dataset._torchvision import fetch

if TYPE_CHECKING:
    from cnnbench.types import ImageData

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_LAYOUTS = ("fashion-mnist", "FashionMNIST/raw")
CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@technique("dataset", "fashion-mnist")
class FashionMnist:
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothing, gray 28x28, ten classes.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", arXiv:1708.07747, 2017; its own split.

    With ``path`` only that folder is looked at. Otherwise the first of these that holds the files counts: the folder
    that the environment variable ``CNNBENCH_DATA`` names, Debian's package dataset-fashion-mnist, and the user's cache
    folder; in each of them the files may lie as torchvision lays them (``FashionMNIST/raw``), gzipped or not.

    Helps where MNIST is solved by anything. At 28x28 gray, colour and scale augmentation have little to act on.

    Attributes:
        path: a folder with the four IDX files, or one that holds ``fashion-mnist`` or ``FashionMNIST/raw``.
        download: fetch the files into the cache folder through torchvision if they are nowhere; not with ``path``.
    """

    path: Path | None = None
    download: bool = False

    def __post_init__(self) -> None:
        if self.download and self.path is not None:
            raise ValueError("download puts the files into the cache folder: leave out path or download")

    def fingerprint(self) -> str:
        """Digest of the four files. Raises ``DataError``; imports torch only where it has to download."""
        folder = self._folder()
        return digest_files(_idx.find(folder).values(), folder)

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images, from the files' headers. Raises ``DataError``."""
        return _idx.sizes(self._folder())

    def __call__(self) -> ImageData:
        """Load all images. Raises ``DataError``."""
        return _idx.load(self._folder(), CLASSES)

    def _folder(self) -> Path:
        if self.path is not None:
            places = [self.path, *(self.path / layout for layout in _LAYOUTS)]
        else:
            named, cached = data_folders()[:-1], cache_folder()
            places = [folder / layout for folder in named for layout in _LAYOUTS]
            places += [_DEBIAN, *(cached / layout for layout in _LAYOUTS)]
        found = first_with(places, _idx.FILES)
        if self.download and not (found and _idx.complete(found)):
            fetch("FashionMNIST", cache_folder())
            return cache_folder() / "FashionMNIST" / "raw"
        if found is not None:
            return found
        raise DataError(
            f"Fashion-MNIST is in none of {', '.join(map(str, places))}: apt-get install dataset-fashion-mnist "
            f"(Debian, Ubuntu), or set its option download = true, or path, or the variable {DATA_VARIABLE}"
        )


TECHNIQUES = (FashionMnist,)
