"""Names from files as names of files: what may become part of a path, and what may be opened."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path
from typing import Final

from cnnbench.errors import StoreError, UsageError
from cnnbench.text import printable

_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³")}
)
"""Names of devices on Windows, whatever their ending."""
_LONGEST: Final = 200
"""Bytes; file systems take 255, and some files get an ending of their own."""


def name_fault(name: str) -> str:
    """Why a text is no name for one file or folder on any system, or an empty string."""
    if not name.strip():
        return "is empty"
    if name in {".", ".."}:
        return "is a way through folders"
    wrong = next((c for c in name if c in "/\\:" or unicodedata.category(c) in {"Cc", "Cf", "Cs"}), None)
    if wrong is not None:
        return f"has the character {wrong!a}"
    if len(name.encode()) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    if name.endswith((" ", ".")):
        return "ends with a space or a dot"
    return "is a device's name on Windows" if name.partition(".")[0].strip().lower() in _RESERVED else ""


def plain_name(name: str, what: str) -> str:
    """A name that comes from records or a suite, once it is sure to be that of one file or folder.

    Args:
        name: to be checked.
        what: it is the name of, for the message.

    Raises:
        UsageError: it could lead elsewhere, or is none on some system.
    """
    fault = name_fault(name)
    if fault:
        raise UsageError(f"{what} {printable(name)[:60]!r} {fault}: expected a plain name")
    return name


def within(folder: Path, name: str) -> Path:
    """A path below a folder whose content others may have made.

    Args:
        folder: to stay in.
        name: relative to it, with slashes.

    Raises:
        StoreError: it leads out of the folder, by its parts or by links, or it is a link itself.
    """
    path = folder / name
    try:
        inside = "\0" not in name and path.parent.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
    except (OSError, ValueError, RuntimeError):  # a null byte; links in a circle
        inside = False
    if not inside or Path(name).is_absolute() or ".." in Path(name).parts:
        raise StoreError(f"{folder}: {printable(name)[:60]!r} leads out of the folder")
    return path


def content_within(folder: Path, name: str) -> bytes | None:
    """Content of a file below a folder; None where there is none.

    Raises:
        StoreError: the name leads out of the folder, or the file can't be read.
    """
    path = within(folder, name)
    try:
        check_readable(path)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror or error}") from error


def check_readable(path: Path) -> None:
    """See that a path is a regular file, or a link to one: ``/dev/zero`` has no end, and a pipe waits for a writer.

    Raises:
        StoreError: it is something else.
        OSError: it is not there, is a folder, or can't be looked at.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise StoreError(f"{path}: is {kind}, expected a file")


def folder_fault(folder: Path) -> str:
    """What is in the way of making a folder at a path, in words, or an empty string."""
    for part in (folder, *folder.parents):
        if part.is_dir():
            return ""
        if part.exists() or part.is_symlink():
            what = "is a file" if part.exists() else "is a link that leads nowhere"
            where = f"{folder}: {part}" if part != folder else f"{folder}:"
            return f"{where} {what}, expected a folder"
    return ""
