"""What the datasets share: where to look for files, and digests of what was found."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_dir

from cnnbench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DATA_VARIABLE = "CNNBENCH_DATA"
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where downloads go: ``data`` in the user's cache folder."""
    return Path(user_cache_dir("cnnbench")) / "data"


def data_folders() -> list[Path]:
    """Folders that may hold datasets: the one that ``CNNBENCH_DATA`` names, then the cache's."""
    named = os.environ.get(DATA_VARIABLE)
    return [*([Path(named)] if named else []), cache_folder()]


def first_with(folders: Sequence[Path], files: Iterable[str]) -> Path | None:
    """The first folder that holds any of the files."""
    wanted = tuple(files)
    return next((folder for folder in folders if any((folder / name).is_file() for name in wanted)), None)


def digest_files(files: Iterable[Path], root: Path) -> str:
    """Digest of the files' paths within ``root`` and their bytes.

    Raises:
        DataError: a file can't be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{file}: can't be read: {error.strerror}") from error
    return digest.hexdigest()
