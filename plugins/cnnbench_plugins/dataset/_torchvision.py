"""Downloads and reads datasets through torchvision."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from cnnbench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def fetch(name: str, root: Path) -> None:
    """Download both parts of a torchvision dataset into ``root``.

    Raises:
        DataError: the download failed or its checksum is wrong.
    """
    for part in ("train", "test"):
        open_part(name, root, part, download=True)


def open_part(name: str, root: Path, part: str, *, download: bool = False) -> Any:
    """The torchvision dataset object of one part, ``train`` or ``test``.

    Raises:
        DataError: torchvision can't find, fetch or read it.
    """
    import torchvision.datasets

    which = {"split": part} if name == "SVHN" else {"train": part == "train"}
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, name)(root=str(root), download=download, **which)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        doing = "downloading failed" if download else "corrupt"
        raise DataError(f"{name} in {root}: {doing}: {reason}") from error
