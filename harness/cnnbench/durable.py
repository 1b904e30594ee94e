"""Writing that a full disk or a killed process leaves whole or undone."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from cnnbench.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_SCRATCH: Final = ".part"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder where there is none; on disk when this returns.

    Raises:
        StoreError: it can't be written.
    """
    scratch = path.with_name(f".{path.name}-{os.getpid()}{_SCRATCH}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # before the new name: else a power cut may leave an empty file under it
            scratch.replace(path)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error.strerror or error}") from error


def clear_scratch(folder: Path) -> None:
    """Remove what processes that were killed left while they wrote into a folder; nobody else may be writing there."""
    for scratch in folder.glob(f".*{_SCRATCH}"):
        scratch.unlink(missing_ok=True)


def append(file: IO[bytes], data: bytes) -> None:
    """Add whole lines to the end of a file and see them on disk, or leave it as it was.

    Args:
        file: open for reading and appending, without a buffer, and locked.
        data: lines; they begin on one of their own even where the last one was torn.

    Raises:
        OSError: it can't be written.
    """
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(-1, os.SEEK_END)
        data = data if file.read(1) == b"\n" else b"\n" + data
    try:
        write_whole(file, data)
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(size)
        raise


def write_whole(file: IO[bytes], data: bytes) -> None:
    """One write; more only where the system takes less than it was given (a nearly full disk)."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
